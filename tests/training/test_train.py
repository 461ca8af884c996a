import csv
import math

import pytest
import torch

from training import train
from training.config import parse_config
from training.errors import TrainingError
from training.train import fit, learning_rate, load_encoder, make_state, pick_device, step_generator, train_step


def log_rows(config):
    with (config.run.out / "log.csv").open() as file:
        return list(csv.reader(file))


def timeless(rows):
    """Without the last column, pairs/s."""
    return [row[:-1] for row in rows]


class Killed(BaseException):
    """What no handler catches."""


def killed_at(monkeypatch, step):
    """Let ``fit`` die when it begins this step."""
    real = train.train_step

    def dying(state, *args):
        if state.step == step:
            raise Killed
        return real(state, *args)

    monkeypatch.setattr(train, "train_step", dying)


def test_a_tiny_set_is_learnt_by_heart(tiny_config):
    """Six pairs that have nothing in common: only memory can match them."""
    config = tiny_config(optim={"lr": 2e-3, "steps": 60, "warmup_steps": 5})
    torch.manual_seed(0)
    state = make_state(config, torch.device("cpu"))
    coarse = torch.rand(12, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    photo, tile = torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear").chunk(2)
    results = [train_step(state, photo, tile, config) for _ in range(60)]
    assert results[0][1] < 0.5
    assert results[-1][1] == 1.0
    assert results[-1][0] < 0.6 * results[0][0]
    assert state.step == 60


def test_fit_writes_config_log_and_checkpoint(tiny_config):
    config = tiny_config(optim={"steps": 3})
    checkpoint = fit(config, quiet=True)
    assert checkpoint == config.run.out / "checkpoint.pt"
    rows = log_rows(config)
    assert [int(row[0]) for row in rows] == [1, 2, 3]
    assert all(math.isfinite(float(row[1])) and 0 <= float(row[2]) <= 1 for row in rows)
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
    with pytest.raises(TrainingError, match="no readable checkpoint"):
        load_encoder(tmp_path / "other.pt")


def test_a_loss_that_is_no_number_stops_the_run_and_saves_the_batch(tiny_config, monkeypatch):
    config = tiny_config(run={"checkpoint_every": 1})
    real = train.train_step

    def poisoned(state, photo, tile, config):
        if state.step == 2:
            photo = photo * float("nan")
        return real(state, photo, tile, config)

    monkeypatch.setattr(train, "train_step", poisoned)
    with pytest.raises(TrainingError, match=r"loss became nan at step 3; the batch is in .*nan_batch\.pt"):
        fit(config, quiet=True)
    batch = torch.load(config.run.out / "nan_batch.pt", weights_only=False)
    assert batch.photo.shape == (6, 3, 64, 64)
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


def test_the_learning_rate_warms_up_and_follows_half_a_cosine(tiny_config):
    config = tiny_config(optim={"lr": 0.2, "steps": 110, "warmup_steps": 10})
    assert [learning_rate(s, config) for s in range(10)] == pytest.approx([0.02 * (s + 1) for s in range(10)])
    assert learning_rate(10, config) == pytest.approx(0.2)
    assert learning_rate(35, config) == pytest.approx(0.2 * (2 + math.sqrt(2)) / 4)  # cos 45°
    assert learning_rate(60, config) == pytest.approx(0.1)
    assert learning_rate(110, config) == pytest.approx(0.0, abs=1e-12)
    assert learning_rate(0, tiny_config(optim={"lr": 0.2, "warmup_steps": 0})) == pytest.approx(0.2)


def test_the_learning_rate_is_applied(tiny_config):
    config = tiny_config(optim={"lr": 0.01, "steps": 4, "warmup_steps": 2})
    state = make_state(config, torch.device("cpu"))
    for step in range(3):
        train_step(state, *torch.rand(2, 3, 3, 64, 64), config)
        assert {g["lr"] for g in state.optimizer.param_groups} == {learning_rate(step, config)}


def test_the_temperature_is_not_decayed(tiny_config):
    groups = make_state(tiny_config(), torch.device("cpu")).optimizer.param_groups
    assert [g["weight_decay"] for g in groups] == [0.01, 0.0]


def test_every_step_has_its_own_randomness():
    draws = [torch.rand(3, generator=step_generator(seed, step)) for seed in (1, 2) for step in range(5)]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])
    assert torch.equal(draws[3], torch.rand(3, generator=step_generator(1, 3)))


def test_a_missing_gpu_names_the_fix(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match=r"run\.device=cpu"):
        pick_device("cuda")
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cuda")
