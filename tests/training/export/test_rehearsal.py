import csv
import math

import numpy as np
import pytest
import torch
from PIL import Image

from training.config import Config, ModelConfig
from training.data.base import EARTH_RADIUS_M
from training.data.simulator.simulated import SimulatedConfig
from training.data.simulator.textures import load_textures
from training.errors import TrainingError
from training.export import rehearsal
from training.export.calibrate import untrained_calibration
from training.export.onnx_file import write_onnx
from training.export.rehearsal import PHOTOS_PER_SCENE, SPACING_M, write_stage
from training.models.encoder import Encoder

SIDE_M, SIZE = 30.0, 64


@pytest.fixture(scope="module")
def places(picture_folder):
    data = SimulatedConfig(
        root=picture_folder, textures=("*/*.png",), held_out_share=0.0, tile_side_m=SIDE_M, window_px=(100, 130)
    )
    return load_textures(data)[0], data


@pytest.fixture(scope="module")
def stage(tmp_path_factory, places):
    return write_stage(tmp_path_factory.mktemp("stage"), *places, image_size=SIZE, seed=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    settings = ModelConfig(
        backbone="test_efficientnet",
        weights="none",
        embedding_dim=32,
        image_size=SIZE,
        frozen_stages=0,
        local_dim=64,
        local_from="xfeat",
    )
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    always = {"min_inliers": 5, "inlier_weight": 0.1, "not_found_below": 0.0}
    write_onnx(Encoder(settings), Config(model=settings), path, untrained_calibration() | {"local": always})
    return path


def test_a_stage_is_a_piece_of_map_and_two_photos_of_each_place(stage):
    rows = list(csv.DictReader((stage.folder / "scenes.csv").read_text().splitlines()))
    assert len(rows) == stage.scenes == 24
    assert len(stage.truth_m) == PHOTOS_PER_SCENE * stage.scenes
    for name, side in (("photo0.jpg", SIZE), (rows[0]["file"], 2 * SIZE)):
        with Image.open(stage.folder / name) as image:
            assert image.size == (side, side)
    metres = math.radians(1) * EARTH_RADIUS_M
    places = [(float(r["lon"]) * metres, float(r["lat"]) * metres) for r in rows]
    np.testing.assert_allclose(places, [(n * SPACING_M, 0) for n in range(24)], atol=1e-3)
    assert float(rows[3]["gsd_m"]) == pytest.approx(SIDE_M / SIZE)


def test_photos_look_at_their_place(stage):
    scene = np.arange(len(stage.truth_m)) // PHOTOS_PER_SCENE
    seen = ~np.isnan(stage.truth_m[:, 0])
    assert seen.mean() > 0.9
    off = stage.truth_m - np.stack((scene * SPACING_M, np.zeros(len(scene))), axis=1)
    assert np.abs(off[seen]).max() < SIDE_M


def test_answers_are_the_services_own(monkeypatch, stage, model):
    monkeypatch.setattr(rehearsal, "CIRCLES", 2)
    monkeypatch.setattr(rehearsal, "PHOTOS_PER_CIRCLE", 8)
    found = stage.rehearse(model)
    assert found.scores.shape == found.support.shape == (16, rehearsal.CANDIDATES)
    assert np.isnan(found.truth[:, 0]).sum() == 2 * 2  # a quarter is of places outside the circle
    listed = np.isfinite(found.scores)
    assert (listed.sum(1) >= 5 * 9).all()  # circles hold five scenes or more, whole ones
    assert np.abs(found.scores[listed]).max() <= 1.0001
    assert (found.support[:, 0] > 0).any()
    inside = ~np.isnan(found.truth[:, 0])
    nearest = np.linalg.norm(found.centres - found.truth[:, None], axis=2)[inside].min(1)
    assert nearest.max() < 1  # circles with a photo's place hold the tiles that show it; roofs move its centre
    again = stage.rehearse(model)
    np.testing.assert_array_equal(found.support, again.support)


def test_a_model_that_the_service_refuses_is_named(stage, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(TrainingError, match=r"aerofix .* failed on the exported model: .*broken\.onnx"):
        stage.rehearse(broken)


def test_too_few_held_out_textures_name_the_fix(places, tmp_path):
    with pytest.raises(TrainingError, match=r"19 held-out textures .*raise data\.held_out_share"):
        write_stage(tmp_path, places[0][:19], places[1], image_size=SIZE, seed=1)
