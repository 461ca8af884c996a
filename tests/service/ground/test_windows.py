"""Windows as numbers, against projections that other libraries compute."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.warp import transform

from service.ground.tile import Footprint
from service.ground.windows import (
    MAX_MAP,
    Lattice,
    Rectangle,
    cells_of,
    key_of,
    maps_of,
    nearest_zoom,
    pack,
    pixel_m,
    range_of,
    rectangle_of,
    zooms_of,
)

WORLD_M = 40_075_016.685578488  # around the equator of WGS84, which Web Mercator is as wide as
LATTICE = Lattice(224)


@given(st.integers(1, MAX_MAP), st.integers(0, 21), st.integers(0, 2**23 - 1), st.integers(0, 2**24 - 1))
def test_an_id_holds_map_zoom_row_and_column(number, zoom, row, column):
    ids = pack(number, zoom, np.array([row]), np.array([column]))
    assert ids.tolist() == [key_of(number, zoom, row, column)]
    assert (maps_of(ids).tolist(), zooms_of(ids).tolist()) == ([number], [zoom])
    assert [part.tolist() for part in cells_of(ids)] == [[row], [column]]
    first, last = range_of(number, zoom)
    assert range_of(number)[0] <= first <= ids[0] <= last <= range_of(number)[1] < 2**63


@given(st.integers(12, 20), st.floats(-80, 80), st.floats(-179.9, 179.9))
def test_a_window_lies_where_web_mercator_puts_its_pixels(zoom, lat, lon):
    (x,), (y,) = transform("EPSG:4326", "EPSG:3857", [lon], [lat])
    step_m = WORLD_M / (256 * 2**zoom) * 112
    column, row = int((x + WORLD_M / 2) / step_m), int((WORLD_M / 2 - y) / step_m)
    west, north = column * step_m - WORLD_M / 2, WORLD_M / 2 - row * step_m
    lons, lats = transform(
        "EPSG:3857",
        "EPSG:4326",
        [west, west + 2 * step_m, west + 2 * step_m, west],
        [north, north, north - 2 * step_m, north - 2 * step_m],
    )
    ids = pack(3, zoom, np.array([row]), np.array([column]))
    (tile,) = LATTICE.tiles(ids, {3: "town"})
    assert tile.id == f"town/{zoom}/{row}/{column}"
    around = np.array([(a, (b + 180) % 360 - 180) for a, b in zip(lats, lons, strict=True)])
    assert np.array(tile.footprint.corners) == pytest.approx(around, abs=1e-9)
    checked = Footprint.from_corners(tile.footprint.corners, 224, 224)  # what it says of itself is what it is
    assert tile.footprint.side_m == pytest.approx(checked.side_m, rel=1e-5)
    assert tile.footprint.gsd_m == pytest.approx(checked.gsd_m, rel=1e-5)
    assert tile.footprint.centre == pytest.approx(checked.centre, abs=1e-9)
    assert tile.footprint.bounds == pytest.approx(checked.bounds, abs=1e-9)
    assert LATTICE.centres(ids)[0] == pytest.approx(checked.centre, abs=1e-9)
    assert LATTICE.sides_m(ids)[0] == pytest.approx(checked.side_m, rel=1e-5)
    assert LATTICE.side_m(zoom, checked.centre[0]) == pytest.approx(checked.side_m, rel=1e-4)


def test_a_window_over_the_antimeridian_is_small():
    side = 256 * 2**17
    (tile,) = LATTICE.tiles(pack(1, 17, np.array([60_000]), np.array([side // 112 - 1])), {1: "fiji"})
    west, _, east, _ = tile.footprint.bounds
    assert west > 179.99
    assert east < -179.99
    assert Footprint.from_corners(tile.footprint.corners, 224, 224).side_m == pytest.approx(
        tile.footprint.side_m, rel=1e-5
    )


def test_windows_of_a_map_that_is_gone_are_none():
    ids = pack(2, 17, np.array([5, 6]), np.array([7, 8]))
    assert LATTICE.tiles(ids, {1: "town"}) == [None, None]
    assert LATTICE.tiles(ids[:0], {}) == []


@given(st.floats(-70, 70), st.floats(0.05, 1.2))
def test_levels_cover_what_drones_see_as_far_as_the_map_can(lat, gsd_m):
    sides_m = [LATTICE.side_m(zoom, lat) for zoom in LATTICE.levels(gsd_m, lat)]
    assert all(large == pytest.approx(2 * small, rel=1e-6) for small, large in itertools.pairwise(sides_m))
    assert sides_m[-1] <= 700 * 2**0.5
    assert sides_m[-1] > 700 / 2**0.5
    assert sides_m[0] >= 40 / 2**0.5 * (1 - 1e-9)
    # as fine as drones need, or as the map is
    assert sides_m[0] < 40 * 2**0.5 * 1.001 or sides_m[0] <= gsd_m * 224 * 2**0.5 * 1.001
    assert sides_m[0] >= gsd_m * 224 / 2**0.5 * 0.999


def test_a_coarse_map_gets_the_level_of_its_own_resolution():
    assert LATTICE.levels(20.0, 0.0) == [nearest_zoom(20.0, 0.0)] == [13]


@given(st.floats(-85, 85), st.integers(1, 21))
def test_the_zoom_nearest_to_a_pixel_of_a_zoom_is_that_zoom(lat, zoom):
    assert nearest_zoom(pixel_m(zoom, lat) * 1.3, lat) == zoom
    assert nearest_zoom(pixel_m(zoom, lat) / 1.3, lat) == zoom


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(1, 900), st.integers(1, 900))
def test_all_windows_whose_middle_half_meets_an_area_are_listed(left, top, width, height):
    area = rectangle_of_pixels(left, top, width, height)
    found = LATTICE.windows_in(area)

    def meets(cell, start, end):
        return cell * 112 + 56 < end and cell * 112 + 168 > start

    columns = [c for c in range(-3, 70) if c >= 0 and meets(c, left, left + width)]
    rows = [r for r in range(-3, 70) if r >= 0 and meets(r, top, top + height)]
    assert list(range(found.left, found.right)) == columns
    assert list(range(found.top, found.bottom)) == rows


def rectangle_of_pixels(left, top, width, height):
    return Rectangle(left, top, left + width, top + height)


def test_bounds_in_pixels():
    assert rectangle_of((-180, -85.0511287798066, 180, 85.0511287798066), 2) == (0, 0, 1024, 1024)
    assert rectangle_of((0, -85.0511287798066, 180, 0), 1) == (256, 256, 512, 512)
    left, _, right, _ = rectangle_of((179, -1, -179, 1), 10)
    assert right - left == pytest.approx(2 / 360 * 256 * 1024, abs=2)
    assert left < 256 * 1024 < right
