from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidParameter
from service.maps.tiling import Grid, Tiling


@given(
    st.floats(20, 3000),
    st.floats(20, 3000),
    st.floats(0.05, 1),
    st.floats(30, 500),
    st.floats(0, 0.9),
    st.integers(16, 400),
)
def test_windows_cover_every_pixel_and_stay_inside(width_m, height_m, gsd_m, size_m, overlap, max_px):
    grid, pixel_m = Grid.over(width_m, height_m, gsd_m, Tiling(size_m, overlap, max_px))
    assert pixel_m >= gsd_m * 0.96  # 16 pixels or more, rounded: never much finer than the map
    assert grid.tile_px * pixel_m == pytest.approx(min(size_m, width_m, height_m))
    for starts, length_px, length_m in (
        (grid.columns, grid.width_px, width_m),
        (grid.rows, grid.height_px, height_m),
    ):
        assert length_px * pixel_m == pytest.approx(length_m, abs=pixel_m * 0.51)
        assert starts[0] == 0
        assert starts[-1] + grid.tile_px == length_px
        assert all(0 < b - a <= grid.tile_px for a, b in pairwise(starts))


def test_half_overlapping_tiles_of_a_round_map():
    grid, pixel_m = Grid.over(400, 200, 1, Tiling(100, 0.5, 384))
    assert (grid.columns, grid.rows, pixel_m) == ([0, 50, 100, 150, 200, 250, 300], [0, 50, 100], 1)
    assert len(grid) == 21


def test_what_is_left_over_is_spread_evenly():
    assert Grid.over(230, 100, 1, Tiling(100, 0, 384))[0].columns == [0, 65, 130]
    assert Grid.over(403, 100, 1, Tiling(100, 0.5, 384))[0].columns == [0, 50, 101, 151, 202, 252, 303]


def test_neighbours_overlap_as_asked_for():
    for length_m in range(100, 700, 7):
        grid, _ = Grid.over(length_m, 100, 1, Tiling(100, 0.5, 384))
        assert all(b - a <= 55 for a, b in pairwise(grid.columns))
        assert len(grid.columns) <= 1 + -(-(length_m - 100) // 50)


def test_a_map_smaller_than_a_tile_is_one_tile_of_its_own_size():
    grid, _ = Grid.over(50, 50, 0.5, Tiling(86, 0.5, 384))
    assert (len(grid), grid.tile_px) == (1, 100)


def test_fine_maps_are_made_coarser():
    assert Grid.over(100, 100, 0.01, Tiling(50, 0.5, 384))[1] == pytest.approx(50 / 384)


@pytest.mark.parametrize("values", [(0, 0.5, 384), (86, 1, 384), (86, -0.1, 384), (86, 0.5, 0), (float("nan"), 0, 99)])
def test_refuses_values_out_of_range(values):
    with pytest.raises(InvalidParameter, match="give"):
        Tiling(*values)


def test_refuses_tiles_of_a_few_pixels():
    with pytest.raises(InvalidParameter, match="give a tile_size_m of 160 m or more"):
        Grid.over(5000, 5000, 10, Tiling(86, 0.5, 384))
