import numpy as np
import pytest

from service.geo import offset
from service.ground.gallery import Gallery
from service.ground.records import NewTile
from service.ground.tile import Footprint, Tile
from service.localization.scale import TileSizes, first_of_levels, fitting_side_m, levels, levels_of, prefer_size

ORIGIN = (24.26, 120.72)


def tile(side_m, east_m=0.0, north_m=0.0):
    lat, lon = offset(*ORIGIN, east_m, north_m)
    return Tile(f"{side_m}/{east_m}/{north_m}", Footprint.from_centre(float(lat), float(lon), side_m / 100, 100, 100))


def preferred(places, ground_side_m):
    """Rows that are left of ``(side_m, east_m)``."""
    centres = np.array([np.array(offset(*ORIGIN, east_m, 0.0)) for _, east_m in places]).reshape(-1, 2)
    sides_m = np.array([float(side_m) for side_m, _ in places])
    return prefer_size(centres, sides_m, sides_m, ground_side_m).tolist()


def test_a_photo_is_cropped_to_windows_that_are_clearly_smaller_only():
    assert fitting_side_m([50.0, 200.0], 90.0) == 50.0  # 1.8 times, against 2.2
    assert fitting_side_m([50.0, 200.0], 110.0) == 200.0
    assert fitting_side_m([30.0, 61.0, 113.0, 122.0], 79.0) == 113.0  # of one map 61, of another 113
    assert fitting_side_m([61.0], 600.0) == 61.0
    assert fitting_side_m([], 110.0) is None


def test_levels_are_a_factor_of_two_apart():
    assert levels([]) == levels([86.0]) == levels([80.0, 86.0]) == 1
    assert levels([61.0, 66.0, 122.0, 244.0, 977.0]) == 5


def test_another_size_yields_where_a_better_one_shows_the_ground():
    small, large, far_large = (86, 0.0), (344, 100.0), (344, 2000.0)
    assert preferred([large, far_large, small], 86.0) == [1, 2]
    assert preferred([large, far_large, small], 344.0) == [0, 1]


def test_sizes_about_as_far_off_both_stay():
    assert preferred([(100, 0.0), (140, 10.0)], 118.0) == [0, 1]
    assert preferred([(100, 0.0), (200, 10.0)], 141.0) == [0, 1]
    assert preferred([(100, 0.0), (200, 10.0)], 110.0) == [0]


def test_a_window_yields_to_a_level_of_its_map_that_was_not_found():
    centres, sides_m = np.array([ORIGIN, ORIGIN]), np.array([344.0, 344.0])
    assert prefer_size(centres, sides_m, np.array([86.0, 344.0]), 86.0).tolist() == [1]


def test_without_a_better_size_nothing_is_hidden():
    assert preferred([(344, 0.0), (344, 500.0)], 86.0) == [0, 1]
    assert preferred([], 86.0) == []


def test_sizes_follow_the_gallery():
    vector = np.eye(4, dtype=np.float32)[0]
    with Gallery.open(":memory:", "model", 4) as gallery:
        sizes = TileSizes(gallery)
        assert sizes.sides_m(gallery.generation) == []
        gallery.upsert([NewTile(tile(86, 500.0 * i), vector, b"") for i in range(3)])
        assert sizes.sides_m(gallery.generation) == pytest.approx([86], rel=1e-3)
        gallery.upsert([NewTile(tile(300), vector, b"")])
        assert sizes.sides_m(gallery.generation) == pytest.approx([86, 300], rel=1e-3)
        gallery.delete([tile(300).id])
        assert sizes.sides_m(gallery.generation) == pytest.approx([86], rel=1e-3)


def test_every_level_has_its_part_of_what_is_taken():
    sides_m = np.array([50.0, 50.0, 51.0, 200.0, 50.0, 99.0, 201.0, np.nan])
    assert levels_of(sides_m).tolist() == [0, 0, 0, 2, 0, 1, 2, 0]
    assert first_of_levels(sides_m, 6).tolist() == [0, 1, 3, 5, 6]
    assert first_of_levels(sides_m, 3, at_least=2).tolist() == [0, 1, 3, 5]
    assert first_of_levels(np.empty(0), 6).tolist() == []
