"""The two packages meet in one file: what training writes, the service reads, and both mean the same by it."""

import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from service.encoder import contract as service_contract
from service.encoder.calibration import Calibration, LocalCalibration
from service.encoder.contract import check_contract
from service.encoder.preprocess import preprocess
from service.encoder.session import Encoder as ServiceEncoder
from service.geo import offset, offset_m
from service.ground.records import Hit
from service.ground.tile import Footprint, Tile
from service.localization.confidence import accuracy_m, judge
from service.localization.refine import weighted_position
from training.config import parse_config
from training.export import calibrate
from training.export import onnx_file as export
from training.export.calibrate_local import Evidence
from training.export.rehearsal import Rehearsal
from training.models.encoder import Encoder as TrainingEncoder

ROOT = Path(__file__).parents[2]
SIDE_M, ORIGIN = 86.0, (24.26, 120.72)
CALIBRATION = {
    "version": 1,
    "place": {"bias": -3.0, "score": 2.5, "margin": 9.0, "fitted_on": 8},
    "in_gallery": {"bias": -2.0, "score": 6.0, "margin": 1.0},
    "rival_floor": 0.21,
    "sigma_tiles": 0.17,
    "located_min_confidence": 0.8,
    "not_found_below": 0.45,
    "refine_temperature": 0.05,
}


# --- the file ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["squash", "center_crop"])
def model(request, tmp_path_factory):
    """``(file, config, the encoder in PyTorch)``."""
    tiny = {"backbone": "test_efficientnet", "weights": "none", "embedding_dim": 24, "image_size": 64}
    config = parse_config({"name": "tiny", "model": tiny | {"frozen_stages": 0, "resize": request.param}})
    torch.manual_seed(0)
    encoder = TrainingEncoder(config.model).eval()
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    export.write_onnx(encoder, config, path, CALIBRATION)
    return path, config, encoder


def test_the_service_accepts_what_training_writes(model):
    path, config, encoder = model
    contract = check_contract(path)
    assert contract.image_size == config.model.image_size
    assert contract.resize == config.model.resize
    assert contract.embedding_dim == encoder.embedding_dim
    assert contract.gsd_range_m == config.model.gsd_range_m
    assert (contract.method, contract.backbone) == ("sample4geo", "test_efficientnet")
    assert contract.license == config.license
    assert contract.local_shape is None
    assert contract.training_config["model"]["embedding_dim"] == 24
    assert contract.calibration == Calibration.parse(json.dumps(CALIBRATION))


def test_the_service_embeds_as_training_does(model):
    path, _, encoder = model
    served = ServiceEncoder(path, device="cpu", threads=1)
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((64, 64), (90, 160), (200, 120))]
    images = np.stack([preprocess(photo, served.contract) for photo in photos])
    with torch.no_grad():
        expected = encoder(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(served.encode(images).embedding, expected, atol=1e-5)
    assert served.canary_agrees()


def test_preprocessing_is_what_the_model_was_trained_on(model):
    """``resize`` names the part of a photo that becomes the square: all of it, or its middle."""
    contract = check_contract(model[0])
    photo = np.zeros((60, 120, 3), np.uint8)
    photo[:, :30], photo[:, 90:] = 250, 250  # white left and right of the centre square
    seen = preprocess(Image.fromarray(photo), contract)
    assert seen.shape == (64, 64, 3)
    assert seen.mean() == pytest.approx(125 if contract.resize == "squash" else 0, abs=2)


def test_both_packages_hash_weights_alike(model):
    import onnx

    loaded = onnx.load(str(model[0]))
    assert export.weights_sha256(loaded) == service_contract.weights_sha256(loaded)


def test_the_uncalibrated_file_is_accepted_and_never_sure():
    calibration = Calibration.parse(json.dumps(calibrate.untrained_calibration()))
    assert calibration.place(0.99, 0.9) < calibration.located_min_confidence


# --- the confidence ----------------------------------------------------------------------------------------------

#: Tile centres in tile sides, and cosines: what one search finds.
searches = st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(-0.2, 1.0)), min_size=1, max_size=12)


def as_hits(search):
    """The service's view: tiles on the Earth, best first."""
    hits = []
    for number, (east, north, score) in enumerate(search):
        lat, lon = offset(*ORIGIN, east * SIDE_M, north * SIDE_M)
        footprint = Footprint.from_centre(float(lat), float(lon), SIDE_M / 64, 64, 64)
        hits.append(Hit(Tile(str(number), footprint), score))
    return sorted(hits, key=lambda hit: -hit.score)


def as_answers(search, truth=(0.0, 0.0)):
    """Training's view: a plane in tile sides."""
    centres, scores = np.array(search)[:, :2], np.array(search)[None, :, 2]
    return calibrate.Answers(scores, centres, np.array([truth]))


def clear(search):
    """No ties, and no centre within 1.5 % of a side from the border of another's place: the Earth is not a plane."""
    scores = [score for *_, score in search]
    gaps = [math.dist(a[:2], b[:2]) for i, a in enumerate(search) for b in search[:i]]
    return len(set(scores)) == len(scores) and all(abs(gap - calibrate.NEAR_SIDES) > 0.015 for gap in gaps)


@settings(max_examples=200)
@given(searches)
def test_score_and_margin_mean_the_same(search):
    assume(clear(search))
    calibration = Calibration.parse(json.dumps(CALIBRATION))
    score, margin, _ = calibrate.features(as_answers(search), CALIBRATION["rival_floor"])
    verdict = judge(as_hits(search), calibration)
    place = calibrate.probability(CALIBRATION["place"], score, margin)[0]
    in_gallery = calibrate.probability(CALIBRATION["in_gallery"], score, margin)[0]
    assert verdict.confidence == pytest.approx(place, rel=1e-9)
    expected = "located" if place >= 0.8 else "not_found" if in_gallery < 0.45 else "ambiguous"
    assert verdict.status == expected


@settings(max_examples=200)
@given(searches)
def test_the_refined_position_is_the_same(search):
    """Training measures distances from the truth: with the service's answer as the truth there is none."""
    assume(clear(search))
    position = weighted_position(as_hits(search), CALIBRATION["refine_temperature"])
    truth = np.array(offset_m(*ORIGIN, *position)) / SIDE_M
    answers = as_answers(search, truth)
    best = answers.scores.argmax(1)
    error = calibrate.refined_errors(answers, best, CALIBRATION["refine_temperature"])[0]
    assert error < 1e-3


def test_a_sure_answer_has_the_radius_that_training_measured():
    """sigma_tiles is fitted to the 68 % quantile of right answers: a certain answer's radius is that quantile."""
    calibration = Calibration.parse(json.dumps(CALIBRATION | {"place": {"bias": 60.0, "score": 0.0, "margin": 0.0}}))
    hits = as_hits([(0.0, 0.0, 0.9)])
    verdict = judge(hits, calibration)
    assert verdict.confidence == 1.0
    radius_m = accuracy_m(verdict, ORIGIN, hits[0], calibration)
    rng = np.random.default_rng(0)
    errors_m = np.linalg.norm(rng.normal(0, CALIBRATION["sigma_tiles"] * SIDE_M, (200_000, 2)), axis=1)
    assert (errors_m <= radius_m).mean() == pytest.approx(0.68, abs=0.005)


@given(st.floats(-1, 1), st.floats(0, 900), st.integers(3, 60), st.floats(0, 1))
def test_evidence_is_the_same(score, support, min_inliers, weight):
    one, none = np.array([[score]]), np.zeros((1, 1, 2))
    supports, no = np.array([[support]]), np.zeros(1, bool)
    rehearsal = Rehearsal(one, supports, none, none[0], none[0], np.zeros(1), no, no)
    theirs = LocalCalibration(min_inliers, weight).evidence(score, support)
    assert Evidence(min_inliers, weight)(rehearsal)[0, 0] == pytest.approx(theirs, abs=1e-12)


# --- the wall between ---------------------------------------------------------------------------------------------


def imported_roots(path):
    """Top-level names of all packages that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("service", {"training", "torch", "torchvision", "timm"}), ("training", {"service"})],
)
def test_the_packages_do_not_import_each_other(package, forbidden):
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 10
    found = {str(f.relative_to(ROOT)): names for f in files if (names := forbidden & set(imported_roots(f)))}
    assert found == {}
