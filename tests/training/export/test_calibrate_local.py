import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from made_rehearsal import CHANCE_SUPPORT, rehearsal

from service.encoder.calibration import Calibration
from training.export.calibrate import untrained_calibration
from training.export.calibrate_local import ENOUGH_REAL, Evidence, calibrate_local, fit_evidence, fit_scale
from training.export.rehearsal import Rehearsal


@pytest.fixture(scope="module")
def fitted():
    asked = []

    def answer(calibration):
        asked.append(calibration)
        return rehearsal(seed=len(asked))

    return *calibrate_local(untrained_calibration(), answer), asked


def test_evidence_by_hand():
    scores, support, none = np.array([[0.5, 0.6]]), np.array([[75.0, 20.0]]), np.zeros((1, 2))
    no = np.zeros(1, bool)
    one = Rehearsal(scores, support, np.zeros((1, 2, 2)), none, none, np.zeros(1), no, no)
    assert Evidence(20, 0.1)(one)[0] == pytest.approx([0.5 + 0.1 * math.log(80 / 25), 0.6])


def test_min_inliers_is_what_chance_hardly_reaches_and_matches_decide():
    found = fit_evidence(rehearsal())
    assert found.min_inliers == CHANCE_SUPPORT
    best = found(rehearsal(seed=9)).argmax(1)
    truth = rehearsal(seed=9).truth[:, 0] / 10
    inside = ~np.isnan(truth)
    assert (best == truth)[inside].mean() > 0.97  # by cosine alone, one in twenty


def test_the_service_reads_the_section(fitted):
    calibration, _, _ = fitted
    local = Calibration.parse(json.dumps(calibration)).local
    assert local.min_inliers == CHANCE_SUPPORT
    many, few = local.evidence(0.6, 100), local.evidence(0.6, 10)
    assert local.judge.place(many, many - few) > 0.9 > 0.3 > local.judge.place(few, 0.0)
    assert local.evidence(0.5, 5) < 0.5 < local.evidence(0.5, 50)


def test_the_error_is_the_scaled_spread_of_matches(fitted):
    """Positions were made to err by twice their spread."""
    local = fitted[0]["local"]
    assert local["sigma_scale"] == pytest.approx(2, rel=0.1)
    assert local["sigma_floor_tiles"] == 0


@pytest.mark.parametrize("floor", [0.0, 0.02])
def test_two_thirds_lie_within_the_radius(floor):
    some = rehearsal(20_000)
    spread = np.random.default_rng(1).uniform(0.005, 0.02, 20_000)
    some = replace(some, spread=spread, positions=some.truth + drawn(np.hypot(1.5 * spread, floor)))
    assert fit_scale(some, floor) == pytest.approx(1.5, rel=0.06)
    none = replace(some, spread=np.full(20_000, np.nan))
    assert fit_scale(none, floor) == 1  # nothing was laid on the ground


@pytest.mark.parametrize(("count", "scale"), [(ENOUGH_REAL - 1, 1), (ENOUGH_REAL, 3)])
def test_real_photos_decide_alone_where_there_are_enough(count, scale):
    some = rehearsal(20_000)
    laid = np.flatnonzero(~np.isnan(some.truth[:, 0]))
    real = np.isin(np.arange(20_000), laid[:count])
    radius = np.where(real, 0.03, 0.01) * math.sqrt(-2 * math.log(0.32))  # all at the 68 % of their scale
    some = replace(some, real=real, positions=some.truth + radius[:, None] * [1.0, 0.0])
    assert fit_scale(some, 0.0) == pytest.approx(scale)


def test_what_is_judged_is_left_out_of_the_fit_and_reported():
    """Of one kind the positions of the judged half are off by a side and so wrong: the fit must not see them."""
    some = rehearsal(4000)
    judged = np.arange(4000) % 2 == 0
    positions = np.where(judged[:, None], some.positions + 1.0, some.positions)
    told, report = calibrate_local(
        untrained_calibration(), lambda _: replace(some, positions=positions, judged=judged, real=judged)
    )
    assert "held-out photos: 2000" in report[1]
    (line,) = [line for line in report if line.startswith("real photos")]
    assert "2000; right 0, located" in line
    assert line.endswith("within the radius nan")
    assert float(re.search(r"error of confidence (\d\.\d+)", line)[1]) > 0.5
    assert told["local"]["sigma_scale"] == pytest.approx(2, rel=0.1)


def drawn(sigma):
    return sigma[:, None] * np.random.default_rng(2).standard_normal((len(sigma), 2))


def test_every_rehearsal_is_held_with_a_calibration_that_always_answers(fitted):
    _, report, asked = fitted
    assert len(asked) == 2
    assert all(calibration["local"]["not_found_below"] == 0 for calibration in asked)
    assert asked[1]["local"]["min_inliers"] == CHANCE_SUPPORT
    assert "matches: 15 count" in report[0]
    assert "held-out photos: 2000" in report[1]
