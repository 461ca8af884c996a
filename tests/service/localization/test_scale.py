import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.geo import offset
from service.ground.gallery import Gallery, Hit, NewTile
from service.ground.tile import Footprint, Tile
from service.localization.scale import TileSizes, closest_side_m, group_sides, prefer_size

ORIGIN = (24.26, 120.72)


def tile(side_m, east_m=0.0, north_m=0.0):
    lat, lon = offset(*ORIGIN, east_m, north_m)
    return Tile(f"{side_m}/{east_m}/{north_m}", Footprint.from_centre(float(lat), float(lon), side_m / 100, 100, 100))


def hit(score, side_m, east_m=0.0):
    return Hit(tile(side_m, east_m), score)


@given(st.lists(st.tuples(st.sampled_from([20.0, 86.0, 344.0]), st.floats(0.9, 1.1)), max_size=50))
def test_sides_near_each_other_are_one_size(sides):
    """Nominal sizes a factor 4 apart, each off by up to 10 %: as many groups as sizes, each with its median."""
    groups = group_sides(np.array([nominal * factor for nominal, factor in sides]))
    expected = [
        np.median([n * f for n, f in sides if n == nominal]) for nominal in sorted({nominal for nominal, _ in sides})
    ]
    assert groups == pytest.approx(expected)


def test_the_closest_size_is_that_of_the_nearest_ratio():
    assert closest_side_m([50.0, 200.0], 90.0) == 50.0  # 1.8 times, against 2.2
    assert closest_side_m([50.0, 200.0], 110.0) == 200.0
    assert closest_side_m([], 110.0) is None


def test_a_hit_of_another_size_yields_where_the_preferred_one_shows_the_ground():
    small, large, far_large = hit(0.5, 86), hit(0.9, 344, 100.0), hit(0.8, 344, 2000.0)
    assert prefer_size([large, far_large, small], 86.0) == [far_large, small]
    assert prefer_size([large, far_large, small], 344.0) == [large, far_large]


def test_without_a_hit_of_the_preferred_size_nothing_is_hidden():
    hits = [hit(0.9, 344), hit(0.8, 344, 500.0)]
    assert prefer_size(hits, 86.0) == hits
    assert prefer_size([], 86.0) == []


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
