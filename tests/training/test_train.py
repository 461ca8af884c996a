import csv
import json
import math
from dataclasses import replace

import pytest
import torch

from training import train
from training.checkpoint import load_encoder, with_local
from training.config import OptimConfig, parse_config
from training.distributed import World, join_world
from training.errors import TrainingError
from training.train import fit, learning_rate, make_state, total_steps

ALONE = World(0, 1, torch.device("cpu"))


def log_rows(config):
    """Rows of the log, without its header."""
    with (config.run.out / "log.csv").open() as file:
        return list(csv.reader(file))[1:]


def timeless(rows):
    """Without the last column, pairs/s."""
    return [row[:-1] for row in rows]


class Killed(BaseException):
    """What no handler catches."""


def killed_at(monkeypatch, step):
    """Let ``fit`` die when it begins this step."""
    real = train.train_step

    def dying(state, *args, **kwargs):
        if state.step == step:
            raise Killed
        return real(state, *args, **kwargs)

    monkeypatch.setattr(train, "train_step", dying)


def test_fit_writes_config_log_and_checkpoint(tiny_config):
    config = tiny_config(optim={"steps": 3})
    checkpoint = fit(config, quiet=True)
    assert checkpoint == config.run.out / "checkpoint.pt"
    rows = log_rows(config)
    assert [int(row[0]) for row in rows] == [1, 2, 3]
    header = (config.run.out / "log.csv").read_text().splitlines()[0]
    assert header == "step,loss,scale,recall_at_1,lr,pairs_per_s"
    assert all(math.isfinite(float(row[1])) and 0 <= float(row[3]) <= 1 for row in rows)
    environment = json.loads((config.run.out / "environment.json").read_text())
    assert torch.__version__.startswith(environment["packages"]["torch"])
    assert list(config.run.out.glob("events.out.tfevents*"))
    encoder, saved = load_encoder(checkpoint)
    assert saved == config
    assert not encoder.training
    content = torch.load(checkpoint, weights_only=True)
    assert content["step"] == 3
    assert all(torch.equal(v, content["encoder"][k]) for k, v in encoder.state_dict().items())
    assert parse_config(content["config"]) == config


def test_kill_and_resume_gives_the_losses_of_an_uninterrupted_run(tiny_config, tmp_path, monkeypatch):
    straight = tiny_config(optim={"steps": 6}, run={"out": str(tmp_path / "straight"), "checkpoint_every": 2})
    fit(straight, quiet=True)

    broken = tiny_config(optim={"steps": 6}, run={"out": str(tmp_path / "broken"), "checkpoint_every": 2})
    with monkeypatch.context() as patch:
        killed_at(patch, 3)
        with pytest.raises(Killed):
            fit(broken, quiet=True)
    assert torch.load(broken.run.out / "checkpoint.pt", weights_only=True)["step"] == 2
    with (broken.run.out / "log.csv").open("a") as log:
        log.write("4,0.1")  # a row that the kill tore
    fit(broken, quiet=True)

    assert timeless(log_rows(broken)) == timeless(log_rows(straight))
    one, other = (torch.load(c.run.out / "checkpoint.pt", weights_only=True) for c in (straight, broken))
    assert all(torch.equal(one["encoder"][k], other["encoder"][k]) for k in one["encoder"])


def test_a_finished_run_is_left_alone(tiny_config):
    config = tiny_config(optim={"steps": 2})
    before = fit(config, quiet=True).read_bytes()
    rows = log_rows(config)
    assert fit(config, quiet=True).read_bytes() == before
    assert log_rows(config) == rows


@pytest.mark.parametrize(
    ("sections", "name"),
    [
        ({"optim": {"lr": 1e-4}}, "optim"),
        ({"model": {"embedding_dim": 64}}, "model"),
        ({"data": {"tile_side_m": 40.0}}, "data"),
        ({"run": {"seed": 7}}, "run.seed"),
    ],
)
def test_resuming_with_other_settings_is_refused(tiny_config, sections, name):
    fit(tiny_config(optim={"steps": 1}), quiet=True)
    first = {"optim": {"steps": 1}}
    changed = first | {k: first.get(k, {}) | v for k, v in sections.items()}
    with pytest.raises(TrainingError, match=rf"other settings under {name}: choose another run\.out"):
        fit(tiny_config(**changed), quiet=True)


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04 half a zip"])
def test_another_file_is_no_checkpoint(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match="no readable checkpoint"):
        load_encoder(path)


def test_another_torch_file_is_no_checkpoint(tmp_path):
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(TrainingError, match="no checkpoint of aerofix-train"):
        load_encoder(tmp_path / "other.pt")


def test_a_loss_that_is_no_number_stops_the_run_and_saves_the_batch(tiny_config, monkeypatch):
    config = tiny_config(run={"checkpoint_every": 1})
    real = train.train_step

    def poisoned(state, batch, *args, **kwargs):
        if state.step == 2:
            batch = replace(batch, photo=batch.photo * float("nan"))
        return real(state, batch, *args, **kwargs)

    monkeypatch.setattr(train, "train_step", poisoned)
    with pytest.raises(TrainingError, match=r"loss became nan at step 3; the batch is in .*nan_batch_0\.pt"):
        fit(config, quiet=True)
    batch = torch.load(config.run.out / "nan_batch_0.pt", weights_only=True)
    assert batch["photo"].shape == (6, 3, 64, 64)
    content = torch.load(config.run.out / "checkpoint.pt", weights_only=True)
    assert content["step"] == 2
    assert all(v.isfinite().all() for v in content["encoder"].values())


def test_an_interrupted_save_leaves_the_old_checkpoint(tiny_config, monkeypatch):
    config = tiny_config(optim={"steps": 2}, run={"checkpoint_every": 1})
    real = torch.save

    def torn(content, path):
        if content["step"] == 2:
            path.write_bytes(b"half")
            raise Killed
        real(content, path)

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(Killed):
        fit(config, quiet=True)
    assert load_encoder(config.run.out / "checkpoint.pt")[1] == config


def test_the_learning_rate_warms_up_and_follows_half_a_cosine():
    optim = OptimConfig(lr=0.2, warmup_steps=10)
    assert [learning_rate(s, optim, 110) for s in range(10)] == pytest.approx([0.02 * (s + 1) for s in range(10)])
    assert learning_rate(10, optim, 110) == pytest.approx(0.2)
    assert learning_rate(35, optim, 110) == pytest.approx(0.2 * (2 + math.sqrt(2)) / 4)  # cos 45°
    assert learning_rate(60, optim, 110) == pytest.approx(0.1)
    assert learning_rate(110, optim, 110) == pytest.approx(0.0, abs=1e-12)
    assert learning_rate(0, OptimConfig(lr=0.2, warmup_steps=0), 110) == pytest.approx(0.2)


def test_the_learning_rate_is_applied_and_logged(tiny_config):
    config = tiny_config(optim={"lr": 0.01, "steps": 4, "warmup_steps": 2})
    fit(config, quiet=True)
    rates = [float(row[4]) for row in log_rows(config)]
    assert rates == pytest.approx([learning_rate(s, config.optim, 4) for s in range(4)], rel=1e-4)


def test_the_temperature_is_not_decayed(tiny_config):
    groups = make_state(tiny_config(), 8, ALONE).optimizer.param_groups
    assert [g["weight_decay"] for g in groups] == [0.01, 0.0]


def test_the_length_is_given_in_steps_or_epochs():
    assert total_steps(OptimConfig(batch_pairs=10, steps=7), 95) == 7
    assert total_steps(OptimConfig(batch_pairs=10, epochs=3), 95) == 27
    assert total_steps(OptimConfig(batch_pairs=10), 95) == 9
    with pytest.raises(TrainingError, match="give steps or epochs, not both"):
        parse_config({"optim": {"steps": 7, "epochs": 3}})


def test_epochs_see_every_pair_once(tiny_config, monkeypatch):
    """12 pictures in batches of 4, two epochs: each place comes twice."""
    config = tiny_config(optim={"batch_pairs": 4, "steps": None, "epochs": 2})
    seen = []
    real = train.train_step
    monkeypatch.setattr(
        train,
        "train_step",
        lambda state, batch, *a, **k: seen.append(batch.place.tolist()) or real(state, batch, *a, **k),
    )
    fit(config, quiet=True)
    assert len(seen) == 6
    for epoch in (seen[:3], seen[3:]):
        assert sorted(place for batch in epoch for place in batch) == list(range(12))


def test_similar_places_meet_in_a_batch(tiny_config, monkeypatch):
    """Dynamic similarity sampling: from the second epoch on the sampler gets the encoder's neighbours."""
    config = tiny_config(
        optim={"batch_pairs": 4, "steps": 9}, sampling={"then": "dss", "neighbours": 3, "refresh_epochs": 1}
    )
    given = []
    real = train.epoch_batches
    monkeypatch.setattr(
        train,
        "epoch_batches",
        lambda *a, neighbours, **k: given.append(neighbours) or real(*a, neighbours=neighbours, **k),
    )
    fit(config, quiet=True)
    assert given[0] is None
    assert len(given) == 3
    for neighbours in given[1:]:
        assert neighbours.shape == (12, 3)
        assert all(place not in row for place, row in enumerate(neighbours.tolist()))


def test_gps_sampling_needs_positions(tiny_config):
    with pytest.raises(TrainingError, match=r"sampling\.first=random"):
        fit(tiny_config(sampling={"first": "gps"}), quiet=True)


def test_a_missing_gpu_names_the_fix(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match=r"run\.device=cpu"):
        join_world("cuda")
    assert join_world("auto").device == join_world("cpu").device == torch.device("cpu")


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(TrainingError, match="at most 2"):
        join_world("auto")


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
