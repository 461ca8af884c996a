import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from service.encoder.calibration import LocalCalibration
from service.geo import haversine_m
from service.localization.confidence import judge
from service.localization.places import (
    GRAIN_SIDES,
    MAX_PLACES,
    MIN_CONFIDENCE,
    RASTER_SHARE,
    matched_error,
    places,
)
from service.localization.refine import weighted_position
from service.localization.rerank import unmatched, with_others

ORIGIN = (24.26, 120.72)


def test_neighbouring_tiles_are_one_place(hit, calibration):
    hits = [hit(0.9), hit(0.88, 50), hit(0.85, 700), hit(0.8, 740)]
    first, second = places(unmatched(hits, calibration), calibration)
    assert (first.lat, first.lon) == weighted_position(hits, calibration.refine_temperature)
    assert (second.lat, second.lon) == weighted_position([hits[2], hits[3]], calibration.refine_temperature)
    assert (first.tile_id, second.tile_id) == (hits[0].tile.id, hits[2].tile.id)


def test_each_place_has_its_confidence_and_its_error(hit, calibration):
    hits = [hit(0.9), hit(0.85, 700)]
    confidences = judge(hits, calibration).candidate_confidences
    assert [place.confidence for place in places(unmatched(hits, calibration), calibration)] == confidences
    for place in places(unmatched(hits, calibration), calibration):
        assert place.error.sigma_m == pytest.approx(25, rel=1e-3)
        assert place.error.raster_m**2 == pytest.approx(RASTER_SHARE * 25**2, rel=2e-3)
        assert place.error.grain_m == pytest.approx(GRAIN_SIDES * 100, rel=1e-3)
        assert place.error.common_m == 0


def test_a_matched_position_errs_by_its_own_and_by_what_all_share():
    """Its own is what the spread of its matches says, scaled; the floor, of a tile of 100 m, all photos have."""
    fix = SimpleNamespace(sigma_m=0.8)
    error = matched_error(fix, 100.0, LocalCalibration(30, 0.2, sigma_scale=1.25, sigma_floor_tiles=0.03))
    assert (error.own_m, error.common_m, error.raster_m) == pytest.approx((1, 3, 0))
    assert error.sigma_m == pytest.approx(math.sqrt(10))


def test_without_refinement_a_place_is_its_best_tile(hit, calibration):
    (place,) = places(unmatched([hit(0.9), hit(0.89, 50)], calibration), calibration, refine=False)
    assert haversine_m(place.lat, place.lon, *ORIGIN) < 1e-6


def test_hopeless_places_are_left_out(hit, calibration):
    assert len(places(unmatched([hit(0.9), hit(0.1, 700)], calibration), calibration)) == 1
    assert places(unmatched([], calibration), calibration) == []


def test_their_number_is_bounded(hit, calibration):
    hits = [hit(0.5, 500.0 * i) for i in range(40)]
    assert len(places(unmatched(hits, calibration), calibration)) == MAX_PLACES


def test_candidates_that_were_matched_are_judged_by_their_evidence(rank, hit, calibration, tile_map, photo_map):
    """The place of the tile that shows the ground comes first, with what its inliers are worth."""
    fitted = replace(calibration, local=replace(calibration.local, inlier_weight=0.2, judge=calibration))
    hits = [hit(0.7, 700), hit(0.6)]
    ranking = rank(hits, photo_map(), [*map(tile_map, hits)], fitted)
    found = places(with_others(ranking, [hit(0.5, 1400)]), fitted)
    expected = judge([*ranking.hits, hit(0.5, 1400)], calibration, [*ranking.evidence, 0.5]).candidate_confidences
    assert [place.tile_id for place in found][:2] == [hits[1].tile.id, hits[0].tile.id]
    assert [place.confidence for place in found] == [each for each in expected if each >= MIN_CONFIDENCE]
    assert found[0].confidence > 0.9
