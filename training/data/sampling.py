"""Which pairs share a batch: place-unique, and with hard negatives when neighbours are known.

After Sample4Geo (Deuser et al., ICCV 2023): a place occurs once in a batch at most, a pair once in an epoch. With
neighbours, a drawn pair brings along pairs of places that lie near it (GPS) or look like it (Dynamic Similarity
Sampling, DSS). Everything is a function of the generator's state, so every process and every resumed run makes the same
batches.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from training.errors import TrainingError
from training.schema import STRICT, Probability

#: Clashes in a row after which an epoch ends: 512 without and 1,024 with neighbours in the authors' code. It bounds
#: the time, not the result: what is left by then is a few places with many pairs.
GIVE_UP = 1024
#: Cells of a distance or score matrix held at once: 32 MB of float64.
CHUNK_CELLS = 2**22

Ints = NDArray[np.int64]


@dataclass(frozen=True, config=STRICT)
class SamplingConfig:
    """Where hard negatives come from. Numbers are Sample4Geo's; its University-1652 recipe is random throughout."""

    first: Literal["random", "gps"] = "random"  # the first epochs
    first_epochs: Annotated[int, Field(ge=1)] = 1  # how many these are; Sample4Geo takes 4 by GPS
    then: Literal["random", "dss"] = "random"  # the others
    refresh_epochs: Annotated[int, Field(ge=1)] = 4  # epochs between two looks at all places for DSS
    neighbours: Annotated[int, Field(ge=1)] = 128  # of each place that are known
    quota: Annotated[int, Field(ge=1)] = 64  # of these that join a drawn pair
    nearest_share: Probability = 0.5  # of the quota: the very nearest; the others are drawn from the rest


def epoch_batches(
    place: Ints,
    batch_pairs: int,
    generator: Generator,
    *,
    sampling: SamplingConfig | None = None,
    neighbours: Ints | Tensor | None = None,
    also_shows: Sequence[Ints] | None = None,
) -> list[list[int]]:
    """Return the batches of one epoch, over all processes together.

    Pairs are drawn in random order. One that clashes with its batch goes back to the end of the queue; when nothing
    fits any more, the unfinished batch is dropped.

    Args:
        place: ``[M]`` place of each pair.
        batch_pairs: pairs in a batch.
        generator: the source of all randomness, on the CPU.
        sampling: quota and share of neighbours; the defaults when None.
        neighbours: ``[places, k]`` places near or like each place, the nearest first; None: batches at random.
        also_shows: per pair, other places that its photo shows in part: none of them may be in its batch.

    Returns:
        Indices of pairs, ``batch_pairs`` in each batch.

    Raises:
        TrainingError: there are too few places for a batch.
    """
    places = len(np.unique(place))
    if places < 2:
        raise TrainingError(f"Training tells places apart, and there are {places}: give at least two.")
    if places < batch_pairs:
        raise TrainingError(
            f"A batch holds each place once, and there are {places} places: set optim.batch_pairs to {places} or less."
        )
    sampling = sampling or SamplingConfig()
    queue = deque(torch.randperm(len(place), generator=generator).tolist())
    draft = _Draft(place.tolist(), None if also_shows is None else [shown.tolist() for shown in also_shows])
    waiting = _by_place(draft.place, queue)
    batches: list[list[int]] = []
    clashes = 0  # in a row
    while queue and clashes < (min(GIVE_UP, len(queue)) if batches else len(queue)):
        pair = queue.popleft()
        if pair in draft.used:  # came along with a neighbour
            continue
        if not draft.add(pair):
            queue.append(pair)
            clashes += 1
            continue
        clashes = 0
        if neighbours is not None:
            for other in _chosen(np.asarray(neighbours)[draft.place[pair]], sampling, generator):
                if len(draft.batch) < batch_pairs:
                    _add_one(draft, waiting[other])
        if len(draft.batch) == batch_pairs:
            batches.append(draft.close())
    if not batches:
        raise TrainingError(
            f"No {batch_pairs} pairs fit into one batch, because their places overlap: lower optim.batch_pairs."
        )
    return batches


class _Draft:
    """The batch in the making."""

    def __init__(self, place: list[int], also_shows: list[list[int]] | None) -> None:
        self.place, self.also_shows = place, also_shows
        self.used: set[int] = set()  # pairs of the epoch
        self.batch: list[int] = []
        self.taken: set[int] = set()  # places in the batch
        self.barred: set[int] = set()  # places that a photo of the batch shows

    def add(self, pair: int) -> bool:
        """Take a pair, unless it is used or clashes with the batch."""
        place, shown = self.place[pair], () if self.also_shows is None else self.also_shows[pair]
        if pair in self.used or place in self.taken or place in self.barred or not self.taken.isdisjoint(shown):
            return False
        self.used.add(pair)
        self.batch.append(pair)
        self.taken.add(place)
        self.barred.update(shown)
        return True

    def close(self) -> list[int]:
        """The finished batch; the next one begins."""
        finished, self.batch, self.taken, self.barred = self.batch, [], set(), set()
        return finished


def _by_place(place: list[int], order: Sequence[int] | deque[int]) -> dict[int, list[int]]:
    """The pairs of each place, in reverse order."""
    waiting: dict[int, list[int]] = defaultdict(list)
    for pair in reversed(order):
        waiting[place[pair]].append(pair)
    return waiting


def _add_one(draft: _Draft, waiting: list[int]) -> None:
    """Add the next unused pair of a place, if it fits."""
    while waiting and waiting[-1] in draft.used:
        waiting.pop()
    if waiting and draft.add(waiting[-1]):
        waiting.pop()


def _chosen(near: NDArray[Any], sampling: SamplingConfig, generator: Generator) -> list[int]:
    """The very nearest places and, at random, some of the others, as many as the quota allows."""
    quota = min(sampling.quota, len(near))
    first = round(quota * sampling.nearest_share)
    rest = first + torch.randperm(len(near) - first, generator=generator)[: quota - first].numpy()
    return [int(i) for i in (*near[:first], *near[rest])]


def shard(batch: Sequence[int], rank: int, world: int) -> list[int]:
    """Return the part of a batch that one of ``world`` processes loads; the parts in order of rank are the batch.

    Raises:
        TrainingError: the batch cannot be divided evenly.
    """
    share, rest = divmod(len(batch), world)
    if rest:
        raise TrainingError(f"optim.batch_pairs={len(batch)} cannot be shared by {world} processes: use a multiple.")
    return list(batch[rank * share : (rank + 1) * share])


def gps_neighbours(position: NDArray[np.float64], k: int) -> Ints:
    """Find the ``k`` nearest other places on the sphere, nearest first: ``[P, min(k, P - 1)]``.

    Haversine, with sin((a - b) / 2) expanded so that the trigonometry is done once for each place. Memory is bounded
    by ``CHUNK_CELLS``.

    Args:
        position: ``[P, 2]`` lat, lon in degrees.
        k: how many.
    """
    half = torch.deg2rad(torch.from_numpy(np.asarray(position, np.float64))) / 2
    sin, cos = half.sin(), half.cos()
    cos_lat = (2 * half[:, 0]).cos()

    def closeness(rows: slice) -> Tensor:
        lat, lon = (torch.outer(sin[rows, i], cos[:, i]) - torch.outer(cos[rows, i], sin[:, i]) for i in (0, 1))
        return -(lat**2 + torch.outer(cos_lat[rows], cos_lat) * lon**2)

    return _nearest(closeness, len(half), k)


def similarity_neighbours(query: NDArray[np.float32], reference: NDArray[np.float32], k: int) -> Ints:
    """Find the ``k`` other places whose reference is most like a place's query, best first: ``[P, min(k, P - 1)]``.

    This is DSS: the true match is left out. Memory is bounded by ``CHUNK_CELLS``.

    Args:
        query: ``[P, D]`` unit embeddings of one photo of each place.
        reference: ``[P, D]`` unit embeddings of the places' tiles.
        k: how many.
    """
    queries, references = torch.from_numpy(np.asarray(query)), torch.from_numpy(np.asarray(reference))
    return _nearest(lambda rows: queries[rows] @ references.T, len(queries), k)


def _nearest(closeness: Callable[[slice], Tensor], places: int, k: int) -> Ints:
    """For each place the others of the greatest closeness; ``closeness`` gives some rows ``[n, P]`` of the matrix."""
    k, step = min(k, places - 1), max(1, CHUNK_CELLS // places)
    found = []
    for start in range(0, places, step):
        close = closeness(slice(start, start + step))
        close[torch.arange(len(close)), torch.arange(start, start + len(close))] = -torch.inf
        found.append(close.topk(k, dim=1).indices)
    result: Ints = torch.cat(found).numpy()
    return result
