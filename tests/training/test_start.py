"""Runs that begin with the weights of another."""

import pytest
import torch

from training.checkpoint import load_encoder, with_local
from training.distributed import World
from training.errors import TrainingError
from training.train import fit, make_state

ALONE = World(0, 1, torch.device("cpu"))


def test_a_run_starts_from_another_runs_encoder(tiny_config, tmp_path):
    first = fit(tiny_config(optim={"steps": 1}), quiet=True)
    weights = load_encoder(first)[0].state_dict()
    grown = tiny_config(
        model={"start": str(first), "local_dim": 8, "local_stride": 16}, run={"out": str(tmp_path / "b")}
    )
    ours = make_state(grown, 12, ALONE).encoder.state_dict()
    assert all(torch.equal(ours[k], v) for k, v in weights.items())
    assert any(k.startswith("dense.") for k in ours)


def test_descriptors_train_alone_and_join_another_runs_encoder(tiny_config, tmp_path):
    first = fit(tiny_config(optim={"steps": 1}), quiet=True)
    own = {"local_dim": 64, "local_from": "xfeat", "image_size": 64}
    alone = {"method": {"name": "none"}, "dense": {}, "run": {"out": str(tmp_path / "b")}, "optim": {"steps": 1}}
    second = fit(tiny_config(model=own, **alone), quiet=True)
    assert "recall_at_1" not in (tmp_path / "b" / "log.csv").read_text()
    joined, config = with_local(*load_encoder(first), second)
    assert config.method_name == "sample4geo+dense"
    ours, (a, b) = joined.state_dict(), (load_encoder(path)[0].state_dict() for path in (first, second))
    assert all(torch.equal(v, ours[k]) for k, v in a.items())
    assert all(torch.equal(v, ours[k]) for k, v in b.items() if k.startswith("dense."))
    with pytest.raises(TrainingError, match=r"model\.local_from=xfeat"):
        with_local(*load_encoder(second), first)


def test_nothing_alone_is_no_objective(tiny_config):
    with pytest.raises(TrainingError, match=r"dense=\{\}"):
        fit(tiny_config(method={"name": "none"}), quiet=True)


def test_another_network_is_no_start(tiny_config):
    first = fit(tiny_config(optim={"steps": 1}), quiet=True)
    for change in ({"embedding_dim": 16}, {"backbone": "test_convnext"}):
        with pytest.raises(TrainingError, match="holds another network"):
            make_state(tiny_config(model={"start": str(first)} | change), 12, ALONE)
