import cmath
import math

import numpy as np
import pytest

from service.camera.look import Look
from service.camera.pinhole import similarity_matrix
from service.geo import offset, offset_m
from service.localization.agreement import Sighting, pooled, sighting
from service.localization.matching import Similarity

ORIGIN = (24.26, 120.72)


def seen(tile_id, look, support, east_m=0.0, *, octave=7, right_m=100 + 0j):
    lat, lon = offset(*ORIGIN, east_m, 0.0)
    return Sighting(tile_id, look, octave, float(lat), float(lon), right_m, support)


def test_looks_that_agree_add_their_fourth_powers():
    worth = pooled([seen("a", 0, 40.0), seen("b", 1, 40.0, 10.0), seen("c", 1, 45.0, 900.0)])
    assert worth["a", 0] == worth["b", 1] == pytest.approx(40 * 2**0.25)
    assert worth["c", 1] == pytest.approx(45.0)  # alone, and now behind


def test_levels_of_one_look_count_apart_and_windows_of_one_level_do_not():
    """Windows that overlap share their descriptors, so that they agree whether they are right or not."""
    assert pooled([seen("a", 0, 40.0), seen("b", 0, 40.0)])["a", 0] == pytest.approx(40.0)
    assert pooled([seen("a", 0, 40.0), seen("b", 0, 40.0, octave=8)])["a", 0] == pytest.approx(40 * 2**0.25)


def test_a_poor_match_is_not_lifted_by_a_good_one():
    worth = pooled([seen("good", 0, 100.0), seen("poor", 1, 30.0)])
    assert worth["poor", 1] == pytest.approx(30 * 2**0.25)
    assert 100 < worth["good", 0] < 101


@pytest.mark.parametrize(
    "other",
    [
        seen("b", 1, 40.0, 30.0),  # a third of the photo's width away
        seen("b", 1, 40.0, right_m=100 * cmath.rect(1, math.radians(40))),
        seen("b", 1, 40.0, right_m=170 + 0j),
    ],
)
def test_what_lays_the_photo_otherwise_does_not_agree(other):
    assert pooled([seen("a", 0, 40.0), other])["a", 0] == pytest.approx(40.0)


def test_nothing_seen_is_worth_nothing():
    assert pooled([]) == {}


def test_a_sighting_is_of_the_photos_centre(hit):
    """The square is half as wide as the photo, a fifth of its width to the right, and shows 60 m of ground."""
    look = Look(similarity_matrix(0.5 + 0j, 0.2 + 0j), 0.75)
    fit = Similarity(60j, 5 + 7j, np.ones(3, bool), 0.0)
    found = sighting(hit(0.9), 2, look.from_photo, fit, 50.0)
    assert complex(*offset_m(*ORIGIN, found.lat, found.lon)) == pytest.approx(5 + 7j - 0.4 * 60j, abs=0.01)
    assert found.right_m == pytest.approx(120j, abs=0.01)
    assert (found.look, found.support, found.octave) == (2, 50.0, 7)
    assert sighting(hit(0.9), 2, look.from_photo, None, 0.0) is None
