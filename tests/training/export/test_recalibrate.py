import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from made_rehearsal import rehearsal

from training.config import Config, ModelConfig
from training.data.simulator.simulated import SimulatedConfig
from training.errors import TrainingError
from training.export import recalibrate as module
from training.export.calibrate import untrained_calibration
from training.export.onnx_file import write_onnx
from training.export.recalibrate import recalibrate
from training.models.encoder import Encoder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A file with descriptors and a calibration that the fit has to replace."""
    torch.manual_seed(0)
    tree = {"backbone": "test_efficientnet", "weights": "none", "embedding_dim": 16, "image_size": 64}
    config = Config(model=ModelConfig(frozen_stages=0, local_dim=64, local_from="xfeat", **tree))
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    local = {"min_inliers": 9, "inlier_weight": 0.3, "turns": 4}
    write_onnx(Encoder(config.model), config, path, untrained_calibration() | {"local": local})
    return path


@pytest.fixture
def stage(monkeypatch):
    """Stands for the service: answers of known truth, and what it was asked with."""
    asked = []

    def rehearse(path):
        asked.append(calibration_of(path))
        return rehearsal(1000)

    monkeypatch.setattr(module, "calibration_textures", lambda data: [])
    monkeypatch.setattr(module, "write_stage", lambda *words, **options: SimpleNamespace(rehearse=rehearse))
    return asked


def calibration_of(path):
    return json.loads({each.key: each.value for each in onnx.load(str(path)).metadata_props}["aerofix.calibration"])


def test_the_section_of_matches_is_fitted_anew_and_nothing_else_changes(model, stage, tmp_path):
    out = tmp_path / "out.onnx"
    report = recalibrate(model, out, Config(data=SimulatedConfig()))
    before, after = calibration_of(model), calibration_of(out)
    assert after["local"]["min_inliers"] == 15
    assert after["local"]["turns"] == 4
    assert {**after, "local": 0} == {**before, "local": 0}
    assert "held-out photos: 1000" in report[1]
    first, second = (onnx.load(str(path)) for path in (model, out))
    assert first.graph.SerializeToString(deterministic=True) == second.graph.SerializeToString(deterministic=True)
    assert len(stage) == 2


def test_real_photos_are_fitted_too(model, stage, tmp_path):
    real = rehearsal(40, seed=5)
    real = real.__class__(**vars(real) | {"real": np.ones(40, bool), "judged": np.arange(40) >= 20})
    flown = SimpleNamespace(rehearse=lambda path: real)
    report = recalibrate(model, tmp_path / "out.onnx", Config(data=SimulatedConfig()), flown=flown)
    assert "held-out photos: 1020" in report[1]
    assert any(line.startswith("real photos that nothing was fitted on: 20;") for line in report)


def test_a_model_without_descriptors_is_refused(tmp_path):
    config = Config(model=ModelConfig(backbone="test_efficientnet", weights="none", image_size=32, frozen_stages=0))
    write_onnx(Encoder(config.model), config, tmp_path / "m.onnx", untrained_calibration())
    with pytest.raises(TrainingError, match="no local descriptors"):
        recalibrate(tmp_path / "m.onnx", tmp_path / "out.onnx", Config(data=SimulatedConfig()))


@pytest.mark.parametrize("content", [None, b"no model"])
def test_a_file_that_is_no_model_is_named(content, tmp_path):
    if content is not None:
        (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(TrainingError, match=r"m\.onnx.*(no readable ONNX|give an \.onnx file)"):
        recalibrate(tmp_path / "m.onnx", tmp_path / "out.onnx", Config(data=SimulatedConfig()))
