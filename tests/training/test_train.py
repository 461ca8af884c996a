import csv
import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from training import train
from training.checkpoint import load_encoder
from training.config import OptimConfig, dump_config, parse_config
from training.data.datasets import open_dataset
from training.data.simulator.pairs import PairSimulator
from training.distributed import World, join_world
from training.errors import TrainingError
from training.evaluation.embed import load_embedder
from training.evaluation.evaluate import evaluate
from training.evaluation.validate import Validation
from training.train import evaluate_every, fit, learning_rate, make_state, total_steps, warmup_steps

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
    def make(name):
        """With all that a run remembers: neighbours, progress of the method, the best evaluation."""
        return tiny_config(
            optim={"steps": 6},
            dphr={"window": 2},
            data={"held_out_share": 0.3},
            sampling={"then": "dss", "neighbours": 3},
            run={"out": str(tmp_path / name), "checkpoint_every": 2, "evaluate_every": 2},
        )

    straight, broken = make("straight"), make("broken")
    fit(straight, quiet=True)
    with monkeypatch.context() as patch:
        killed_at(patch, 3)
        with pytest.raises(Killed):
            fit(broken, quiet=True)
    assert torch.load(broken.run.out / "checkpoint.pt", weights_only=True)["step"] == 2
    with (broken.run.out / "log.csv").open("a") as log:
        log.write("4,0.1")  # a row that the kill tore
    fit(broken, quiet=True)

    assert timeless(log_rows(broken)) == timeless(log_rows(straight))
    for name in ("checkpoint.pt", "best.pt"):
        one, other = (torch.load(c.run.out / name, weights_only=True) for c in (straight, broken))
        for part in ("encoder", "method"):
            assert all(torch.equal(one[part][k], other[part][k]) for k in one[part])
    lines = [(c.run.out / "metrics.jsonl").read_text() for c in (straight, broken)]
    assert lines[0] == lines[1] != ""


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
    optim = OptimConfig(lr=0.2, warmup_steps=10, batch_pairs=10)
    assert warmup_steps(optim, 95) == 10
    assert warmup_steps(replace(optim, warmup_epochs=0.5), 95) == 4  # of 9 full batches; banker's rounding
    assert [learning_rate(s, optim, 110, 10) for s in range(10)] == pytest.approx([0.02 * (s + 1) for s in range(10)])
    assert learning_rate(10, optim, 110, 10) == pytest.approx(0.2)
    assert learning_rate(35, optim, 110, 10) == pytest.approx(0.2 * (2 + math.sqrt(2)) / 4)  # cos 45°
    assert learning_rate(60, optim, 110, 10) == pytest.approx(0.1)
    assert learning_rate(110, optim, 110, 10) == pytest.approx(0.0, abs=1e-12)
    assert learning_rate(0, optim, 110, 0) == pytest.approx(0.2)


def test_the_learning_rate_is_applied_and_logged(tiny_config):
    config = tiny_config(optim={"lr": 0.01, "steps": 4, "warmup_steps": 2})
    fit(config, quiet=True)
    rates = [float(row[4]) for row in log_rows(config)]
    assert rates == pytest.approx([learning_rate(s, config.optim, 4, 2) for s in range(4)], rel=1e-4)


def test_the_temperature_is_not_decayed(tiny_config):
    groups = make_state(tiny_config(), 8, ALONE).optimizer.param_groups
    assert [g["weight_decay"] for g in groups] == [0.01, 0.0]


def test_the_length_is_given_in_steps_or_epochs():
    assert total_steps(OptimConfig(batch_pairs=10, steps=7), 95) == 7
    assert total_steps(OptimConfig(batch_pairs=10, epochs=3), 95) == 27
    assert total_steps(OptimConfig(batch_pairs=10), 95) == 9
    with pytest.raises(TrainingError, match="give steps or epochs, not both"):
        parse_config({"optim": {"steps": 7, "epochs": 3}})


@pytest.mark.parametrize(("run", "steps"), [({}, None), ({"evaluate_every": 7}, 7), ({"evaluate_epochs": 1.5}, 15)])
def test_evaluations_come_by_steps_or_epochs(tiny_config, run, steps):
    """An epoch of 43 pairs in batches of 4 has ten full ones."""
    assert evaluate_every(tiny_config(optim={"batch_pairs": 4}, run=run), 43) == steps


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


def test_neighbours_are_found_in_half_precision_too(tiny_config):
    optim, sampling = {"batch_pairs": 4, "steps": 4}, {"then": "dss", "neighbours": 3, "refresh_epochs": 1}
    path = fit(tiny_config(optim=optim | {"precision": "bf16"}, sampling=sampling), quiet=True)
    assert torch.load(path, weights_only=True)["neighbours"].shape == (12, 3)


def test_neighbours_come_by_gps_for_the_first_epochs_and_then_by_likeness(tiny_config, monkeypatch):
    """Sample4Geo: GPS for four epochs, then DSS, looked up anew every so many epochs."""
    config = tiny_config(
        optim={"batch_pairs": 4, "steps": 18},
        sampling={"first": "gps", "first_epochs": 4, "then": "dss", "neighbours": 3, "refresh_epochs": 2},
    )
    real_init = PairSimulator.__init__

    def placed(self, *args, **kwargs):
        real_init(self, *args, **kwargs)
        self.position = np.stack([np.arange(12) / 1e3, np.zeros(12)], 1)

    monkeypatch.setattr(PairSimulator, "__init__", placed)
    given, looks = [], []
    real, real_look = train.epoch_batches, train._look_at_places
    monkeypatch.setattr(
        train,
        "epoch_batches",
        lambda *a, neighbours, **k: given.append(neighbours) or real(*a, neighbours=neighbours, **k),
    )
    monkeypatch.setattr(train, "_look_at_places", lambda *a, **k: looks.append(len(given)) or real_look(*a, **k))
    fit(config, quiet=True)
    by_gps = [1, 2, 3]  # places lie in a row: the nearest of the first are the next
    assert [neighbours[0].tolist() for neighbours in given[:4]] == [by_gps] * 4
    assert looks == [4]  # the fifth epoch looks, the sixth keeps what it saw
    assert torch.equal(given[4], given[5])


def test_gps_sampling_needs_positions(tiny_config):
    with pytest.raises(TrainingError, match=r"sampling\.first=random"):
        fit(tiny_config(sampling={"first": "gps"}), quiet=True)


def test_fp16_begins_with_a_loss_scale_that_does_not_overflow(tiny_config):
    assert make_state(tiny_config(optim={"precision": "fp16"}), 8, ALONE).scaler.get_scale() == 2**10


def test_checkpointing_changes_memory_and_no_gradient(tiny_config, monkeypatch):
    """Every stage of the backbone runs a second time going backward, and the gradient is the same."""
    model = {"backbone": "test_convnext", "aggregation": "avg"}
    images = torch.rand(4, 64, 64, 3, generator=torch.Generator().manual_seed(0)) * 255
    found = {}
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = make_state(tiny_config(model=model, optim={"checkpointing": checkpointing}), 8, ALONE).encoder.train()
        runs = []
        for block in encoder.backbone.stages[2].blocks:
            block.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        encoder(images).square()[:, 0].sum().backward()
        found[checkpointing] = (len(runs), [p.grad for p in encoder.parameters()])
    (once, plain), (twice, saved) = found[False], found[True]
    assert twice == 2 * once
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(plain, saved, strict=True))


def test_a_backbone_without_checkpointing_names_the_fix(tiny_config):
    encoder = make_state(tiny_config(), 8, ALONE).encoder
    encoder.backbone = torch.nn.Identity()
    with pytest.raises(TrainingError, match=r"optim\.checkpointing=false"):
        encoder.forget_activations()


def test_the_best_model_is_kept_beside_the_last(tiny_config, monkeypatch):
    scores = iter([0.2, 0.7, 0.4])
    encoders = []

    def judged(self, encoder, world):
        encoders.append({k: v.clone() for k, v in encoder.state_dict().items()})
        return {"a/recall@1": (score := next(scores)), "a/recall@5": 1.0, "b/recall@1": score}

    monkeypatch.setattr(Validation, "measure", judged)
    config = tiny_config(optim={"steps": 3}, data={"held_out_share": 0.3}, run={"evaluate_every": 1})
    fit(config, quiet=True)
    best, _ = load_encoder(config.run.out / "best.pt")
    assert all(torch.equal(v, encoders[1][k]) for k, v in best.state_dict().items())
    assert torch.load(config.run.out / "best.pt", weights_only=True)["step"] == 2
    assert torch.load(config.run.out / "checkpoint.pt", weights_only=True)["best"] == 0.7
    last, _ = load_encoder(config.run.out / "checkpoint.pt")
    assert any(not torch.equal(v, encoders[1][k]) for k, v in last.state_dict().items())


def test_validation_runs_in_the_precision_of_training(tiny_config, monkeypatch):
    config = tiny_config(optim={"precision": "bf16"}, data={"held_out_share": 0.3})
    state, seen = make_state(config, 8, ALONE), []
    dataset = open_dataset(config.data, config.model, seed=1)
    state.encoder.project.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    Validation(dataset, config, 1, 1).measure(state.encoder, ALONE)
    assert set(seen) == {torch.bfloat16}


def test_two_processes_train_and_judge_as_one_does(tiny_config, tmp_path):
    """torchrun on the CPU, both through the command line: the same weights, the same validation, written once."""
    sections = {
        "data": {"held_out_share": 0.3},
        "optim": {"steps": 2, "lr": 1e-3, "warmup_steps": 0},
        "sampling": {"then": "dss", "neighbours": 3},
    }
    run = {"evaluate_every": 1, "device": "cpu", "checkpoint_every": 1}
    tree = dump_config(tiny_config(**sections, run={"out": str(tmp_path / "two"), **run}))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    subprocess.run(
        [*launcher, "-m", "training.cli", "fit", "--config", str(tmp_path / "config.yaml")],
        check=True,
        capture_output=True,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    measured = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert [point["step"] for point in measured] == [1, 2]
    embedder = load_embedder(tmp_path / "two" / "checkpoint.pt")
    config = parse_config(tree)
    tasks = open_dataset(config.data, config.model, seed=config.run.seed).tasks()
    alone = evaluate(embedder, tasks, dataset="simulated", gallery="full", quiet=True)["tasks"]
    for task, outcome in alone.items():
        assert measured[-1][f"{task}/ap"] == pytest.approx(outcome["full"]["metrics"]["ap"], abs=1e-6)
    assert (tmp_path / "two" / "best.pt").exists()


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
