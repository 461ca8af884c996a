"""Batches, loaded ahead of the training step in worker processes, in order, from any step on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from training.batch import Batch
from training.data.base import PairData
from training.errors import TrainingError

#: What to load: a number that fixes the randomness, usually the step, and the pairs.
Spec = tuple[int, Sequence[int]]


def load_batches(
    data: PairData, specs: Sequence[Spec], *, seed: int, workers: int = 0, clean: bool = False
) -> Iterator[Batch]:
    """Load one batch for each spec.

    A batch depends on its spec, the seed and nothing else: start with the spec of any step, with any number of workers,
    and it is the same. Pixels travel as bytes, a quarter of their floats, as the model will get them.

    Args:
        data: where pairs come from.
        specs: what to load; the generator of a batch is seeded with ``seed`` + its number.
        seed: of the run and the process.
        workers: processes that load ahead, two batches each; 0 loads when asked.
        clean: leave out the augmentation.

    Raises:
        TrainingError: a file cannot be read (the message names it), or a worker was killed.
    """
    loader = DataLoader(
        _Loads(data, seed, clean),
        sampler=specs,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        generator=Generator(),  # leaves torch's global state alone
    )
    batches = iter(loader)
    try:
        while (loaded := next(batches, None)) is not None:
            if isinstance(loaded, TrainingError):
                raise loaded
            yield replace(loaded, photo=loaded.photo.float() / 255, tile=loaded.tile.float() / 255)
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):  # a bug, raised in a worker
            raise
        raise TrainingError(
            "A process that loads data was killed, most often for want of memory: "
            "lower run.workers or optim.batch_pairs."
        ) from error
    finally:
        del batches  # ends the workers now; the garbage collector would wait for each of them


class _Loads(Dataset[Batch | TrainingError]):
    """``PairData`` as torch's loader wants it. Errors travel as values: raised, they would come with a stack trace."""

    def __init__(self, data: PairData, seed: int, clean: bool) -> None:
        self.data, self.seed, self.clean = data, seed, clean

    def __getitem__(self, spec: Spec) -> Batch | TrainingError:
        number, pairs = spec
        try:
            batch = self.data.load(pairs, torch.Generator().manual_seed(self.seed + number), clean=self.clean)
            return replace(batch, photo=_bytes(batch.photo), tile=_bytes(batch.tile))
        except TrainingError as error:
            return error


def _bytes(images: Tensor) -> Tensor:
    return images.mul(255).round().to(torch.uint8)


def _as_it_is(loaded: Any) -> Any:
    return loaded
