"""One update: against plain autograd, with cached gradients, in two processes, and when the loss is no number."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training.batch import Batch
from training.config import dump_config
from training.distributed import World
from training.step import backward, train_step
from training.train import make_state

ALONE = World(0, 1, torch.device("cpu"))
PLACES = 12


@pytest.fixture
def pairs():
    """``pairs(count)``: pairs of pictures that have nothing in common; only memory can match them."""

    def make(count=6):
        coarse = torch.rand(2 * count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
        photo, tile = torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear").chunk(2)
        offset = torch.rand(count, 2, generator=torch.Generator().manual_seed(1)) * 10 - 5
        return Batch(photo, tile, torch.arange(count), offset, torch.full((count,), 30.0), torch.ones(count))

    return make


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def fresh(config):
    torch.manual_seed(0)
    state = make_state(config, PLACES, ALONE)
    state.encoder.train()  # which keeps the batch norms' statistics
    return state


@pytest.fixture(scope="module")
def spread():
    """Weights of each method, made once."""
    return {}


@pytest.fixture
def awake(tiny_config, pairs, spread):
    """``awake(name)``: a state of a method whose embeddings have spread. Those of a new network are all alike, and
    gradients of their differences are mostly rounding."""

    def make(name):
        config = tiny_config(**METHODS[name])
        state = fresh(config)
        if name not in spread:
            for _ in range(20):
                train_step(state, pairs(), config.optim, ALONE, dice(), progress=0.0, lr=2e-3)
            spread[name] = {k: v.clone() for k, v in state.encoder.state_dict().items()}
            state = fresh(config)
        state.encoder.load_state_dict(spread[name])
        return state

    return make


def in_float64(state):
    """The state in double precision: orders of summation agree to nine digits there, in single not always to five."""
    state.encoder.double()
    state.method.double()
    return state


def gradients(state):
    """All gradients as one vector, float64."""
    weights = [*state.encoder.parameters(), *state.method.parameters()]
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten().double() for p in weights])


#: No turns and crops: every process draws its own, and two would see other views than one.
STILL = {"crop_area": [1, 1], "centre_jitter": 0, "photo_rotation_deg": 0, "tile_turn_probability": [0, 0]}
METHODS = {
    "sample4geo": {"method": {"name": "sample4geo"}},
    "sample4geo+dphr": {"method": {"name": "sample4geo"}, "dphr": {"window": 1}},
    "csp_hd": {"method": {"name": "csp_hd"}},
    "singeo": {"method": {"name": "singeo", **STILL}},
    "unifygeo+dphr": {
        "method": {"name": "unifygeo"},
        "model": {"local_dim": 16, "local_stride": 16},
        "dphr": {"window": 1},
    },
}


each_method = pytest.mark.parametrize("method", METHODS)


@each_method
def test_a_tiny_set_is_learnt_by_heart(tiny_config, pairs, method):
    config = tiny_config(**METHODS[method])
    state, batch = fresh(config), pairs()
    still = replace(config.optim, clip_norm=None)
    reports = []
    while not reports or (reports[-1]["recall_at_1"] < 1.0 and state.step < 80):
        reports.append(train_step(state, batch, still, ALONE, dice(), progress=0.0, lr=2e-3))
    assert reports[0]["recall_at_1"] < 0.6
    assert reports[-1]["recall_at_1"] == 1.0
    assert reports[-1]["loss"] < reports[0]["loss"]
    assert state.step == len(reports)


def test_gradients_are_those_of_plain_autograd(tiny_config, pairs):
    config = tiny_config()
    state, batch = in_float64(fresh(config)), pairs()
    backward(state, batch, config.optim, ALONE, dice(), progress=0.0)
    ours = gradients(state)

    state.encoder.zero_grad()
    state.method.zero_grad()
    features = {
        name: state.encoder.features(images.mul(255).permute(0, 2, 3, 1))
        for name, images in (("photo", batch.photo), ("tile", batch.tile))
    }
    state.method(features, batch)["loss"].backward()
    plain = gradients(state)
    assert (ours - plain).norm() <= 1e-9 * plain.norm()
    assert plain.norm() > 0


@pytest.mark.parametrize("chunk", [1, 4, 5])
@each_method
def test_cached_gradients_are_the_whole_batchs(tiny_config, pairs, method, awake, chunk):
    config = tiny_config(**METHODS[method])
    batch = pairs()
    state = in_float64(awake(method))
    whole, _ = backward(state, batch, config.optim, ALONE, dice(), progress=0.3)
    expected = gradients(state)

    state = in_float64(awake(method))
    cached, _ = backward(state, batch, replace(config.optim, chunk_images=chunk), ALONE, dice(), progress=0.3)
    assert (gradients(state) - expected).norm() <= 1e-9 * expected.norm()
    assert {k: float(v.detach()) for k, v in cached.items()} == pytest.approx(
        {k: float(v.detach()) for k, v in whole.items()}, rel=1e-4, abs=1e-5
    )


@pytest.mark.parametrize("chunk", [None, 4])
def test_panoramas_wider_than_tiles_have_the_gradient_of_plain_autograd(tiny_config, pairs, chunk):
    config = tiny_config()
    batch = pairs()
    batch = replace(batch, photo=torch.cat((batch.photo, batch.photo.flip(3)), 3))
    state = in_float64(fresh(config))
    backward(state, batch, replace(config.optim, chunk_images=chunk), ALONE, dice(), progress=0.0)
    ours = gradients(state)
    state.encoder.zero_grad()
    state.method.zero_grad()
    views = {"photo": batch.photo, "tile": batch.tile}
    features = {k: state.encoder.features(v.mul(255).permute(0, 2, 3, 1)) for k, v in views.items()}
    state.method(features, batch)["loss"].backward()
    plain = gradients(state)
    assert (ours - plain).norm() <= 1e-9 * plain.norm()


def test_cached_gradients_drop_the_same_paths_twice(tiny_config, pairs, monkeypatch):
    """With random layers the second pass must see the network of the first: a gradient of zero noise proves it."""
    config = tiny_config()
    state = fresh(config)
    state.encoder.project = torch.nn.Sequential(torch.nn.Dropout(0.5), state.encoder.project)
    seen = []
    real = state.encoder.features
    monkeypatch.setattr(state.encoder, "features", lambda *a, **k: seen.append(real(*a, **k)) or seen[-1])
    backward(state, pairs(), replace(config.optim, chunk_images=6), ALONE, dice(), progress=0.0)
    first, second = seen[:2], seen[2:]
    assert len(first) == len(second) == 2
    assert all(torch.equal(a.embedding, b.embedding) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0].embedding, real(pairs().photo.mul(255).permute(0, 2, 3, 1)).embedding)


def test_two_processes_have_the_gradient_of_one(tiny_config, pairs, awake, tmp_path):
    """gloo on the CPU, each process with half of the batch; all methods after one start, which takes longest."""
    batch, expected = pairs(8), {}
    for name, method in METHODS.items():
        config, state = tiny_config(**method), awake(name)
        weights = {k: v.clone() for k, v in state.encoder.state_dict().items()}
        work = {"config": dump_config(config), "batch": vars(batch), "encoder": weights}
        torch.save(work, tmp_path / f"{name}.work.pt")
        losses, _ = backward(state, batch, config.optim, ALONE, dice(), progress=0.3)
        expected[name] = gradients(state), {k: float(v.detach()) for k, v in losses.items()}

    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *(str(Path(__file__).with_name("two_processes.py")), str(tmp_path)),
        ],
        check=True,
        capture_output=True,
        timeout=500,
    )
    for name, (gradient, losses) in expected.items():
        for rank in (0, 1):
            theirs = torch.load(tmp_path / f"{name}.rank{rank}.pt", weights_only=True)
            assert (theirs["gradient"] - gradient).norm() <= 1e-5 * gradient.norm(), name
            assert theirs["losses"] == pytest.approx(losses, rel=1e-4, abs=1e-5), name


def test_a_loss_that_is_no_number_changes_no_weight(tiny_config, pairs):
    config = tiny_config()
    state, batch = fresh(config), pairs()
    before = {k: v.clone() for k, v in state.encoder.state_dict().items()}
    broken = replace(batch, photo=batch.photo * float("nan"))
    report = train_step(state, broken, config.optim, ALONE, dice(), progress=0.0, lr=1.0)
    assert math.isnan(report["loss"])
    assert all(torch.equal(v, before[k]) for k, v in state.encoder.state_dict().items())


def test_bf16_follows_fp32(tiny_config, pairs):
    config = tiny_config()
    batch = pairs()
    full, half = fresh(config), fresh(config)
    backward(full, batch, config.optim, ALONE, dice(), progress=0.0)
    backward(half, batch, replace(config.optim, precision="bf16"), ALONE, dice(), progress=0.0)
    a, b = gradients(full), gradients(half)
    assert not torch.equal(a, b)
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.98


def test_clipping_bounds_the_move(tiny_config, pairs):
    config = tiny_config()
    state, batch = fresh(config), pairs()
    tight = replace(config.optim, clip_norm=1e-3, clip_value=None)
    train_step(state, batch, tight, ALONE, dice(), progress=0.0, lr=1e-3)
    assert gradients(state).norm() == pytest.approx(1e-3, rel=1e-3)
    by_value = replace(config.optim, clip_norm=None, clip_value=1e-4)
    train_step(state, batch, by_value, ALONE, dice(), progress=0.0, lr=1e-3)
    assert gradients(state).abs().max() == pytest.approx(1e-4, rel=1e-3)
