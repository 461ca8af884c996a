import pytest

from service.geo import haversine_m
from service.localization.confidence import judge
from service.localization.places import GRAIN_SIDES, MAX_PLACES, places
from service.localization.refine import weighted_position

ORIGIN = (24.26, 120.72)


def test_neighbouring_tiles_are_one_place(hit, calibration):
    hits = [hit(0.9), hit(0.88, 50), hit(0.85, 700), hit(0.8, 740)]
    first, second = places(hits, calibration)
    assert (first.lat, first.lon) == weighted_position(hits, calibration.refine_temperature)
    assert (second.lat, second.lon) == weighted_position([hits[2], hits[3]], calibration.refine_temperature)
    assert (first.tile_id, second.tile_id) == (hits[0].tile.id, hits[2].tile.id)


def test_each_place_has_its_confidence_and_its_error(hit, calibration):
    hits = [hit(0.9), hit(0.85, 700)]
    confidences = judge(hits, calibration).candidate_confidences
    assert [place.confidence for place in places(hits, calibration)] == confidences
    for place in places(hits, calibration):
        assert place.sigma_m == pytest.approx(25, rel=1e-3)
        assert place.grain_m == pytest.approx(GRAIN_SIDES * 100, rel=1e-3)


def test_without_refinement_a_place_is_its_best_tile(hit, calibration):
    (place,) = places([hit(0.9), hit(0.89, 50)], calibration, refine=False)
    assert haversine_m(place.lat, place.lon, *ORIGIN) < 1e-6


def test_hopeless_places_are_left_out(hit, calibration):
    assert len(places([hit(0.9), hit(0.1, 700)], calibration)) == 1
    assert places([], calibration) == []


def test_their_number_is_bounded(hit, calibration):
    hits = [hit(0.5, 500.0 * i) for i in range(40)]
    assert len(places(hits, calibration)) == MAX_PLACES
