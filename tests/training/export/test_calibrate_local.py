import json
import math

import numpy as np
import pytest

from service.encoder.calibration import Calibration
from training.export.calibrate import untrained_calibration
from training.export.calibrate_local import Evidence, calibrate_local, fit_evidence, fit_sigma
from training.export.rehearsal import Rehearsal

PLACES = 20
CHANCE_INLIERS = 15


def rehearsal(answers=2000, seed=0):
    """The right tile is as good as its rivals by cosine, but has 20 to 150 inliers where they have up to 15."""
    rng = np.random.default_rng(seed)
    scores = -np.sort(-rng.normal(0.6, 0.02, (answers, PLACES)), axis=1)
    inliers = rng.integers(0, CHANCE_INLIERS + 1, (answers, PLACES)).astype(float)
    centres = np.tile(np.stack((np.arange(PLACES) * 10.0, np.zeros(PLACES)), axis=1), (answers, 1, 1))
    away, own = rng.random(answers) < 0.25, rng.integers(PLACES, size=answers)
    inliers[~away, own[~away]] = rng.integers(20, 150, (~away).sum())
    truth = np.stack((own * 10.0, np.zeros(answers)), axis=1)
    positions = truth + rng.normal(0, 0.02, truth.shape)
    known = np.where(away[:, None], np.nan, truth)
    return Rehearsal(scores, inliers, inliers, centres, positions, known)


@pytest.fixture(scope="module")
def fitted():
    asked = []

    def answer(calibration):
        asked.append(calibration)
        return rehearsal(seed=len(asked))

    return *calibrate_local(untrained_calibration(), answer), asked


def test_evidence_by_hand():
    scores, support, none = np.array([[0.5, 0.6]]), np.array([[75.0, 20.0]]), np.zeros((1, 2))
    one = Rehearsal(scores, support, support, np.zeros((1, 2, 2)), none, none)
    assert Evidence(20, 0.1)(one)[0] == pytest.approx([0.5 + 0.1 * math.log(80 / 25), 0.6])


def test_min_inliers_is_what_chance_hardly_reaches_and_matches_decide():
    found = fit_evidence(rehearsal())
    assert found.min_inliers == CHANCE_INLIERS
    best = found(rehearsal(seed=9)).argmax(1)
    truth = rehearsal(seed=9).truth[:, 0] / 10
    inside = ~np.isnan(truth)
    assert (best == truth)[inside].mean() > 0.97  # by cosine alone, one in twenty


def test_the_service_reads_the_section(fitted):
    calibration, _, _ = fitted
    local = Calibration.parse(json.dumps(calibration)).local
    assert local.min_inliers == CHANCE_INLIERS
    assert local.judge.place(0.9, 0.3) > 0.9 > 0.3 > local.judge.place(0.6, 0.0)
    assert local.evidence(0.5, 5) < 0.5 < local.evidence(0.5, 50)


def test_sigma_is_the_scale_of_the_answered_positions(fitted):
    """The made-up errors do not depend on inliers."""
    local = fitted[0]["local"]
    assert local["sigma_exponent"] == pytest.approx(0, abs=0.05)
    assert local["sigma_tiles"] == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.2])
def test_errors_that_fall_with_matches(exponent):
    rng = np.random.default_rng(0)
    found = np.exp(rng.uniform(0, 3, 20_000))
    errors = rng.rayleigh(0.03 * found**-exponent)
    assert fit_sigma(found, errors) == pytest.approx((exponent, 0.03), rel=0.05, abs=0.02)
    assert fit_sigma(np.ones(5), np.ones(5))[0] == 0  # nothing to learn an exponent from
    assert fit_sigma(found, rng.rayleigh(0.03 * found))[0] == 0  # never less sure for more matches


def test_every_rehearsal_is_held_with_a_calibration_that_always_answers(fitted):
    _, report, asked = fitted
    assert len(asked) == 2
    assert all(calibration["local"]["not_found_below"] == 0 for calibration in asked)
    assert asked[1]["local"]["min_inliers"] == CHANCE_INLIERS
    assert "matches: 15 count" in report[0]
    assert "held-out photos: 2000" in report[1]
