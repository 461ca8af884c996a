import math

import numpy as np
import pytest
import torch

from training.data.simulator.simulated import SimulatedConfig
from training.data.simulator.textures import load_textures
from training.errors import TrainingError
from training.export.calibrate import (
    RIGHT_WITHIN_SIDES,
    Answers,
    calibrate,
    calibration_error,
    features,
    fit_logistic,
    held_out_answers,
    probability,
    refined_errors,
    untrained_calibration,
)
from training.models.encoder import Encoder

SIGMA = 0.12


def synthetic(photos, seed, places=12):
    """Searches of known statistics: own tile cosine N(0.55, 0.12), others N(0.3, 0.1), Rayleigh errors of SIGMA."""
    rng = np.random.default_rng(seed)
    centres = np.stack((np.arange(places) * 100.0, np.zeros(places)), axis=1)
    own = rng.integers(places, size=photos)
    away = rng.random(photos) < 0.25
    scores = rng.normal(0.3, 0.1, (photos, places))
    mine = rng.normal(0.55, 0.12, photos)
    scores[np.arange(photos), own] = np.where(away, -np.inf, mine)
    truth = centres[own] + rng.normal(0, SIGMA, (photos, 2))
    return Answers(scores, centres, np.where(away[:, None], np.nan, truth))


@pytest.fixture(scope="module")
def fitted():
    return calibrate(synthetic(4000, 0))


# --- features ----------------------------------------------------------------------------------------------------


def hand_made():
    """Two half-overlapping pairs of tiles, 100 sides apart, and a photo of the first place 0.1 sides off its tile."""
    centres = np.array([[0, 0], [0.5, 0], [100, 0], [100.5, 0]])
    scores = np.array([[0.8, 0.7, 0.5, 0.6], [0.3, 0.2, 0.9, -np.inf], [0.8, 0.7, -np.inf, -np.inf]])
    truth = np.array([[0.1, 0.0], [np.nan, np.nan], [0.0, 0.3]])
    return Answers(scores, centres, truth)


def test_the_margin_is_over_the_best_tile_of_another_place():
    score, margin, best = features(hand_made(), 0.1)
    assert best.tolist() == [0, 2, 0]
    assert score.tolist() == [0.8, 0.9, 0.8]
    assert margin == pytest.approx([0.2, 0.6, 0.7])  # rivals 0.6, 0.3, none: the floor
    assert features(hand_made(), 0.65)[1] == pytest.approx([0.15, 0.25, 0.15])


def test_inside_is_a_known_truth():
    assert hand_made().inside.tolist() == [True, False, True]


def test_refined_errors_by_hand():
    answers, temperature = hand_made(), 0.1
    best = np.array([0, 2, 0])
    share = math.exp(0.7 / 0.1) / (math.exp(0.8 / 0.1) + math.exp(0.7 / 0.1))  # of the tile at 0.5
    errors = refined_errors(answers, best, temperature)
    assert errors[0] == pytest.approx(abs(0.5 * share - 0.1))
    assert np.isnan(errors[1])
    assert errors[2] == pytest.approx(math.hypot(0.5 * share, 0.3))


def test_a_cold_refinement_is_the_best_tile_and_a_hot_one_the_middle():
    errors = [refined_errors(hand_made(), np.array([0, 2, 0]), t)[0] for t in (1e-4, 1e4)]
    assert errors == pytest.approx([0.1, 0.15], abs=1e-4)


# --- fits --------------------------------------------------------------------------------------------------------


def test_fit_logistic_finds_the_curve_that_made_the_data():
    rng = np.random.default_rng(0)
    score, margin = rng.uniform(0, 1, 40_000), rng.uniform(-0.1, 0.5, 40_000)
    true = {"bias": -4.0, "score": 5.0, "margin": 8.0}
    p = 1 / (1 + np.exp(-(true["bias"] + true["score"] * score + true["margin"] * margin)))
    curve = fit_logistic(score, margin, rng.random(40_000) < p)
    assert curve == pytest.approx(true | {"fitted_on": 40_000}, rel=0.05)
    np.testing.assert_allclose(probability(curve, score, margin), p, atol=0.02)
    assert (np.diff(probability(curve, np.linspace(0, 1, 50), np.full(50, 0.2))) > 0).all()


def test_fit_logistic_survives_data_without_overlap():
    score = np.linspace(0, 1, 100)
    curve = fit_logistic(score, np.zeros(100), score > 0.5)
    assert all(math.isfinite(v) for v in curve.values())
    p = probability(curve, score, np.zeros(100))
    assert p[0] < 0.05
    assert p[-1] > 0.95


def test_calibration_error_by_hand():
    confidence = np.array([0.05, 0.05, 0.95, 0.95, 1.0])
    right = np.array([False, True, True, True, False])
    # first bin: |0.05 - 0.5| · 2/5; last bin: |2.9 / 3 - 2 / 3| · 3/5
    assert calibration_error(confidence, right) == pytest.approx(0.45 * 2 / 5 + 0.3 * 3 / 5)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0


def test_confidence_is_honest_on_fresh_photos(fitted):
    calibration, _ = fitted
    fresh = synthetic(4000, 1)
    score, margin, best = features(fresh, calibration["rival_floor"])
    right = refined_errors(fresh, best, calibration["refine_temperature"]) < RIGHT_WITHIN_SIDES
    assert calibration_error(probability(calibration["place"], score, margin), right) < 0.03
    assert calibration_error(probability(calibration["in_gallery"], score, margin), fresh.inside) < 0.04


def test_few_photos_of_other_places_are_called_located(fitted):
    calibration, _ = fitted
    fresh = synthetic(4000, 2)
    score, margin, _ = features(fresh, calibration["rival_floor"])
    located = probability(calibration["place"], score, margin) >= calibration["located_min_confidence"]
    assert located[~fresh.inside].mean() < 0.012
    assert located[fresh.inside].mean() > 0.2


def test_sigma_is_the_scale_of_the_errors(fitted):
    assert fitted[0]["sigma_tiles"] == pytest.approx(SIGMA, rel=0.05)


def test_the_radius_holds_68_percent_of_right_answers(fitted):
    fresh = synthetic(4000, 3)
    _, _, best = features(fresh, 0.0)
    errors = refined_errors(fresh, best, fitted[0]["refine_temperature"])
    radius = fitted[0]["sigma_tiles"] * math.sqrt(-2 * math.log(0.32))
    assert (errors[errors < RIGHT_WITHIN_SIDES] <= radius).mean() == pytest.approx(0.68, abs=0.03)


def test_higher_scores_and_margins_mean_more(fitted):
    assert fitted[0]["place"]["score"] > 0 or fitted[0]["place"]["margin"] > 0
    confident, unsure = (
        probability(fitted[0]["place"], np.array([s]), np.array([m])) for s, m in ((0.8, 0.4), (0.4, 0.0))
    )
    assert confident > 0.9 > 0.3 > unsure


def test_the_report_names_what_was_measured(fitted):
    text = "\n".join(fitted[1])
    assert "held-out photos: 4000" in text
    assert "expected calibration error" in text


def test_a_model_that_finds_nothing_cannot_be_calibrated():
    answers = synthetic(400, 0)
    hopeless = Answers(answers.scores, answers.centres, answers.truth + 30)
    with pytest.raises(TrainingError, match="--no-calibrate"):
        calibrate(hopeless)


def test_without_calibration_nothing_is_sure():
    flat = untrained_calibration()
    assert probability(flat["place"], np.array([0.99]), np.array([0.9])) == 0.5 < flat["located_min_confidence"]


# --- held-out photos ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def held_out(picture_folder):
    data = SimulatedConfig(
        root=picture_folder, textures=("*/*.png",), held_out_share=0.0, tile_side_m=30.0, window_px=(100, 130)
    )
    return load_textures(data)[0], data


def test_held_out_answers_are_searches_with_known_truth(tiny_config, held_out):
    torch.manual_seed(0)
    encoder = Encoder(tiny_config().model).eval()
    textures, data = held_out
    answers = held_out_answers(encoder, textures, data, seed=1)
    assert answers.centres.shape == (24 * 9, 2)
    assert 80 < len(answers.scores) <= 24 * 4
    assert 0.1 < (~answers.inside).mean() < 0.45
    searched = np.isfinite(answers.scores)
    assert np.abs(answers.scores[searched]).max() <= 1.0001
    assert set(searched.reshape(-1, 24, 9).sum(2).flatten()) == {0, 9}  # whole scenes
    scene = np.floor(answers.truth[answers.inside, 0] / 1e4 + 0.5).astype(int)
    rows = np.flatnonzero(answers.inside)
    assert searched.reshape(-1, 24, 9)[rows, scene].all()  # its own place is in the gallery
    gap = np.linalg.norm(answers.centres.reshape(24, 9, 2)[scene] - answers.truth[rows][:, None], axis=2).min(1)
    assert gap.max() < 0.4  # no truth is farther from the nearest of the nine tiles than half a diagonal step
    again = held_out_answers(encoder, textures, data, seed=1)
    np.testing.assert_array_equal(answers.scores, again.scores)


def test_too_few_held_out_textures_name_the_fix(tiny_config, held_out):
    with pytest.raises(TrainingError, match=r"19 held-out textures .*raise data\.held_out_share"):
        held_out_answers(Encoder(tiny_config().model), held_out[0][:19], held_out[1], seed=1)
