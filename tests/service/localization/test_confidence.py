import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.encoder.calibration import Logistic
from service.geo import haversine_m
from service.localization.confidence import Verdict, accuracy_m, judge, with_proof

ORIGIN = (24.26, 120.72)
SIDE_M, SIGMA_M = 100.0, 25.0


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def verdict(p, rival=None):
    return Verdict("located", p, [p], rival)


@given(st.floats(-30, 30), st.floats(-1, 1), st.floats(-1, 1))
def test_logistic(bias, score, margin):
    assert Logistic(bias, 3.0, 7.0)(score, margin) == pytest.approx(
        sigmoid(bias + 3 * score + 7 * margin), rel=1e-9, abs=1e-12
    )


def test_logistic_does_not_overflow():
    assert Logistic(-1e6, 0, 0)(0, 0) == 0
    assert Logistic(1e6, 0, 0)(0, 0) == 1


def test_a_curve_claims_no_more_than_its_answers_support():
    curve = Logistic(0, 100, 0, fitted_on=98)
    assert curve(1, 0) == pytest.approx(0.99)  # 98 of 98 right: the next is wrong once in 100 times
    assert curve(-1, 0) == pytest.approx(0.01)
    assert curve(0.01, 0) == pytest.approx(sigmoid(1))


def test_the_margin_is_over_the_best_rival_of_another_place(hit, calibration):
    result = judge([hit(0.9), hit(0.85, 60), hit(0.7, 500), hit(0.6, 900)], calibration)
    assert result.confidence == pytest.approx(sigmoid(-2 + 4 * 0.9 + 10 * (0.9 - 0.7)))
    assert result.rival.score == 0.7
    assert result.status == "located"


@pytest.mark.parametrize("others", [[], [(0.85, 60)], [(0.1, 500)]])
def test_a_rival_counts_with_at_least_the_floor(hit, calibration, others):
    result = judge([hit(0.9), *(hit(*other) for other in others)], calibration)
    assert result.confidence == pytest.approx(sigmoid(-2 + 4 * 0.9 + 10 * (0.9 - 0.3)))


def test_each_candidate_has_the_confidence_of_its_own_place(hit, calibration):
    result = judge([hit(0.9), hit(0.85, 60), hit(0.7, 500), hit(0.6, 560)], calibration)
    best, neighbour, rival, rivals_neighbour = result.candidate_confidences
    assert best == neighbour == result.confidence
    assert rival == pytest.approx(sigmoid(-2 + 4 * 0.7 + 10 * (0.7 - 0.9)))
    assert rivals_neighbour == pytest.approx(sigmoid(-2 + 4 * 0.6 + 10 * (0.6 - 0.9)))


def test_statuses(hit, calibration):
    assert judge([hit(0.9), hit(0.6, 500)], calibration).status == "located"
    assert judge([hit(0.6), hit(0.6, 500)], calibration).status == "ambiguous"  # in gallery: sigmoid(1.8)
    assert judge([hit(0.3), hit(0.3, 500)], calibration).status == "not_found"  # in gallery: sigmoid(−0.6)
    assert judge([], calibration).status == "not_found"


def test_thresholds_are_those_of_the_calibration(hit, calibration):
    hits = [hit(0.6), hit(0.6, 500)]
    p = judge(hits, calibration).confidence
    assert judge(hits, replace(calibration, located_min_confidence=p)).status == "located"
    assert judge(hits, replace(calibration, located_min_confidence=1.0, not_found_below=1.0)).status == "not_found"


@given(st.lists(st.tuples(st.floats(-1, 1), st.integers(-9, 9)), min_size=1, max_size=12, unique_by=lambda c: c[1]))
def test_confidences_against_brute_force(hit, calibration, candidates):
    hits = [hit(score, 70.0 * column) for score, column in sorted(candidates, reverse=True)]
    result = judge(hits, calibration)

    def confidence(i):
        far = [
            other.score
            for other in hits
            if haversine_m(*hits[i].tile.footprint.centre, *other.tile.footprint.centre) > hits[i].tile.footprint.side_m
        ]
        return sigmoid(-2 + 4 * hits[i].score + 10 * (hits[i].score - max([*far, 0.3])))

    assert result.confidence == pytest.approx(confidence(0))
    for i, candidate in enumerate(result.candidate_confidences):
        distance = haversine_m(*hits[0].tile.footprint.centre, *hits[i].tile.footprint.centre)
        assert candidate == pytest.approx(confidence(0 if distance <= hits[0].tile.footprint.side_m else i))


@pytest.mark.parametrize("p", [0.7, 0.75, 0.9, 0.99, 1.0])
def test_the_radius_holds_68_percent_of_simulated_answers(hit, calibration, p):
    rng = np.random.default_rng(0)
    n = 400_000
    errors_m = np.hypot(*rng.normal(0, SIGMA_M, (2, n)))
    errors_m[rng.random(n) > p] = np.inf
    radius_m = accuracy_m(verdict(p), ORIGIN, hit(0.9), calibration)
    assert np.mean(errors_m < radius_m) == pytest.approx(0.68, abs=0.004)  # 5 standard errors of a share of 400,000


@given(st.floats(0.681, 1), st.floats(0.681, 1))
def test_less_confidence_never_means_a_smaller_radius(hit, calibration, one, other):
    low, high = sorted((one, other))
    best = hit(0.9)
    assert accuracy_m(verdict(low), ORIGIN, best, calibration) >= accuracy_m(verdict(high), ORIGIN, best, calibration)


def test_an_ambiguous_radius_holds_both_places(hit, calibration):
    radius_m = accuracy_m(verdict(0.5, hit(0.8, 700)), ORIGIN, hit(0.9), calibration)
    assert radius_m == pytest.approx(700 + SIGMA_M * math.sqrt(-2 * math.log(0.32)), rel=0.005)


def test_an_unsure_answer_without_a_rival_still_has_a_radius(hit, calibration):
    radius_m = accuracy_m(verdict(0.5), ORIGIN, hit(0.9), calibration)
    assert radius_m == pytest.approx(SIGMA_M * math.sqrt(-2 * math.log(0.32)), rel=0.005)


@pytest.mark.parametrize(
    ("support", "status"), [(60.0, "located"), (50.0, "located"), (49.0, "ambiguous"), (None, "ambiguous")]
)
def test_what_only_looks_alike_is_not_located(hit, calibration, support, status):
    alike = judge([hit(0.9), hit(0.6, 500)], calibration)
    assert alike.status == "located"
    proven = with_proof(alike, support, 50)
    assert proven.status == status
    assert proven.confidence == alike.confidence
    unsure = judge([hit(0.6), hit(0.6, 500)], calibration)
    assert with_proof(unsure, 60.0, 50) == unsure
