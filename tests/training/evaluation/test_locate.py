"""UnifyGeo's heat map in metres, against positions on the plane that the simulator knows."""

import numpy as np
import pytest
import torch

from training.checkpoint import save_model
from training.data.datasets import open_dataset
from training.distributed import World
from training.errors import TrainingError
from training.evaluation.locate import metric_localization
from training.methods.unifygeo import UnifyGeo
from training.train import make_state


@pytest.fixture
def run(tiny_config, tmp_path):
    """``run(**sections)``: a fresh checkpoint, its task, and the ground truth ``[Q, 2]`` (right, down) on tiles."""

    def make(**sections):
        model = {"local_dim": 16, "local_stride": 16}
        config = tiny_config(method={"name": "unifygeo"}, model=model, data={"held_out_share": 0.4}, **sections)
        torch.manual_seed(0)
        state = make_state(config, 8, World(0, 1, torch.device("cpu")))
        save_model(state, tmp_path / "best.pt", config)
        task = open_dataset(config.data, config.model, seed=1).tasks()[0]
        rows = [i for i, own in enumerate(task.positives) if len(own)]
        tiles = [int(task.positives[i][0]) for i in rows]
        gap = task.queries.point_m[rows] - task.gallery.centre_m[tiles]
        return tmp_path / "best.pt", task, gap * [1, -1], state

    return make


def peaks(truth, side_m, cells):
    """Heat maps ``[N, cells, cells]`` that point at the truth."""
    column, row = np.floor((truth / side_m + 0.5) * cells).astype(int).T.clip(0, cells - 1)
    maps = torch.zeros(len(truth), cells, cells)
    maps[np.arange(len(truth)), row, column] = 50.0
    return maps


@pytest.mark.parametrize("riders", [{}, {"dphr": {"window": 1}}])
def test_errors_are_measured_on_the_right_tile(run, monkeypatch, riders):
    path, task, truth, _ = run(**riders)
    answers = iter(torch.split(peaks(truth, 30.0, 60), 3))
    monkeypatch.setattr(UnifyGeo, "heatmap", lambda self, photo, tile: next(answers))
    found = metric_localization(path, task, batch=3)()
    assert found["queries"] == len(truth) > 3
    assert found["error_mean_m"] < 0.36  # half the diagonal of a cell of 0.5 m
    assert found["within_1m"] == 1
    assert found["centre_median_m"] == pytest.approx(np.median(np.hypot(*truth.T)), rel=1e-3)


def test_the_trained_decoder_answers(run, monkeypatch):
    """The decoder of the checkpoint, not a fresh one: its bias is moved before it is saved."""
    path, task, _, state = run()
    with torch.no_grad():
        state.method.decoder.correct.bias.fill_(3.0)
    content = torch.load(path, weights_only=True)
    content["method"] = state.method.state_dict()
    torch.save(content, path)
    seen = []
    real = UnifyGeo.heatmap
    monkeypatch.setattr(
        UnifyGeo, "heatmap", lambda self, *a: seen.append(float(self.decoder.correct.bias)) or real(self, *a)
    )
    found = metric_localization(path, task)()
    assert set(seen) == {3.0}
    assert 0 <= found["within_1m"] <= found["within_5m"] <= found["within_10m"] <= 1
    assert found["error_median_m"] <= 30 * 2**0.5


def test_what_cannot_be_located_names_the_fix(run, tiny_config, tmp_path):
    path, task, _, _ = run()
    with pytest.raises(TrainingError, match="take vigor or simulated"):
        metric_localization(path, type(task)("t", task.queries, task.gallery, task.positives))
    other = tiny_config()
    save_model(make_state(other, 8, World(0, 1, torch.device("cpu"))), tmp_path / "other.pt", other)
    with pytest.raises(TrainingError, match="is of sample4geo, which locates nothing"):
        metric_localization(tmp_path / "other.pt", task)
    with pytest.raises(TrainingError, match="no decoder to locate with"):
        metric_localization(tmp_path / "model.onnx", task)
