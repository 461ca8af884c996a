import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.geo import haversine_m, offset_m
from service.localization.refine import same_place, weighted_position

ORIGIN = (24.26, 120.72)


def test_one_tile_gives_its_centre(hit):
    assert weighted_position([hit(0.9)], 0.05) == pytest.approx(ORIGIN, abs=1e-9)


def test_two_equal_neighbours_give_the_middle(hit):
    east, north = offset_m(*ORIGIN, *weighted_position([hit(0.8), hit(0.8, 50, 20)], 0.05))
    assert (east, north) == pytest.approx((25, 10), abs=0.01)


def test_far_candidates_have_no_weight(hit):
    near = [hit(0.8), hit(0.7, 50)]
    assert weighted_position([*near, hit(0.79, 111)], 0.05) == weighted_position(near, 0.05)


@given(
    st.lists(st.tuples(st.floats(-60, 60), st.floats(-60, 60), st.floats(-1, 1)), min_size=1, max_size=8),
    st.floats(0.01, 1),
)
def test_the_position_is_the_softmax_mean(hit, places, temperature):
    places = sorted(places, key=lambda place: -place[2])
    hits = [hit(score, east, north) for east, north, score in places]
    best_lat, best_lon = hits[0].tile.footprint.centre
    total = expected_east = expected_north = 0.0
    for each in hits:
        lat, lon = each.tile.footprint.centre
        if haversine_m(best_lat, best_lon, lat, lon) <= 1.1 * hits[0].tile.footprint.side_m:
            weight = np.exp(each.score / temperature)
            east, north = offset_m(best_lat, best_lon, lat, lon)
            total, expected_east, expected_north = (
                total + weight,
                expected_east + weight * east,
                expected_north + weight * north,
            )
    east, north = offset_m(best_lat, best_lon, *weighted_position(hits, temperature))
    assert (east, north) == pytest.approx((expected_east / total, expected_north / total), abs=0.01)


@pytest.mark.parametrize("two_steps", [(100, 0), (0, 100)])
def test_the_tile_two_half_steps_on_is_of_the_same_place(hit, two_steps):
    assert same_place([hit(0.9), hit(0.8, *two_steps)]).all()


def test_same_place_is_a_little_over_one_tile_side(hit):
    near = same_place([hit(0.9), hit(0.8, 109), hit(0.7, 218)])
    np.testing.assert_array_equal(near, [[True, True, False], [True, True, True], [False, True, True]])
