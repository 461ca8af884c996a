import os
import signal

import numpy as np
import pytest
import torch

from training.batch import Batch
from training.data.loader import load_batches
from training.data.university1652 import University1652, University1652Config
from training.errors import TrainingError

SPECS = [(step, [step % 5, (step + 2) % 5]) for step in range(6)]


class Numbers:
    """Pixels are drawn from the generator; pair 99 is broken, 66 and 67 are bugs, 13 kills its process."""

    place, places, position, also_shows = np.arange(100), 100, None, None

    def load(self, pairs, generator, *, clean=False):
        if 99 in pairs:
            raise TrainingError("a/b.jpg is not a readable picture")
        if 66 in pairs:
            raise ZeroDivisionError("a bug")
        if 67 in pairs:
            raise RuntimeError("a bug")
        if 13 in pairs:
            os.kill(os.getpid(), signal.SIGKILL)
        draw = torch.rand(len(pairs), 3, 2, 2, generator=generator)
        nothing = torch.zeros(len(pairs))
        return Batch(draw * (not clean), draw, torch.tensor(pairs), torch.zeros(len(pairs), 2), nothing, nothing)


def same(batches, others):
    assert len(batches) == len(others)
    for a, b in zip(batches, others, strict=True):
        known = {name: tensor for name, tensor in vars(a).items() if tensor is not None}
        assert known.keys() == {name for name, tensor in vars(b).items() if tensor is not None}
        assert all(torch.equal(tensor, getattr(b, name)) for name, tensor in known.items())


def test_batches_come_in_order():
    batches = list(load_batches(Numbers(), SPECS, seed=5))
    assert [batch.place.tolist() for batch in batches] == [pairs for _, pairs in SPECS]
    expected = torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(5 + 3))
    torch.testing.assert_close(batches[3].tile, expected, atol=0.5 / 255 + 1e-6, rtol=0)
    assert torch.equal((batches[3].tile * 255).round() / 255, batches[3].tile)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers):
    same(list(load_batches(Numbers(), SPECS, seed=5)), list(load_batches(Numbers(), SPECS, seed=5, workers=workers)))


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_goes_on_from_any_step(workers):
    whole = list(load_batches(Numbers(), SPECS, seed=5))
    same(whole[4:], list(load_batches(Numbers(), SPECS[4:], seed=5, workers=workers)))


def test_what_was_before_is_not_loaded():
    broken_before = [(0, [99]), *SPECS[1:]]
    assert len(list(load_batches(Numbers(), broken_before[1:], seed=5))) == 5


def test_seeds_differ():
    first, second = (next(load_batches(Numbers(), SPECS, seed=seed)).tile for seed in (1, 2))
    assert not torch.equal(first, second)


def test_clean_is_passed_on():
    assert next(load_batches(Numbers(), SPECS, seed=1, clean=True)).photo.max() == 0


def test_torchs_own_randomness_is_left_alone():
    before = torch.get_rng_state()
    list(load_batches(Numbers(), SPECS, seed=5))
    assert torch.equal(before, torch.get_rng_state())


def test_no_specs_no_batches():
    assert list(load_batches(Numbers(), [], seed=0)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_come_as_one_sentence_after_the_batches_before_them(workers):
    batches = load_batches(Numbers(), [*SPECS[:2], (2, [1, 99]), *SPECS[3:]], seed=0, workers=workers)
    assert len([next(batches), next(batches)]) == 2
    with pytest.raises(TrainingError) as error:
        next(batches)
    assert str(error.value) == "a/b.jpg is not a readable picture"


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("pair", "kind"), [(66, ZeroDivisionError), (67, RuntimeError)])
def test_bugs_keep_their_kind(pair, kind, workers):
    with pytest.raises(kind, match="a bug"):
        list(load_batches(Numbers(), [(0, [pair])], seed=0, workers=workers))


def test_a_killed_worker_names_the_setting():
    with pytest.raises(TrainingError, match=r"killed.*lower run\.workers or optim\.batch_pairs"):
        list(load_batches(Numbers(), [(0, [13])], seed=0, workers=1))


def test_stopping_early_ends_the_workers():
    batches = load_batches(Numbers(), SPECS * 10, seed=0, workers=1)
    next(batches)
    batches.close()
    with pytest.raises(StopIteration):
        next(batches)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named(university, size, workers):
    pairs = University1652(University1652Config(university), size).train()
    pairs.photos[3].write_bytes(pairs.photos[3].read_bytes()[:200])
    with pytest.raises(TrainingError, match=r"train/drone/0005/image-01\.jpeg is not a readable picture"):
        list(load_batches(pairs, [(0, [0, 3])], seed=0, workers=workers))
