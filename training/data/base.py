"""What a data set offers: pairs to train on, and tasks (queries against a gallery) to be judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Generator, Tensor

from training.batch import Batch

#: IUGG mean radius, the usual sphere for haversine distances.
EARTH_RADIUS_M = 6_371_008.8


class PairData(Protocol):
    """Pairs to train on.

    Attributes:
        place: ``[M]`` int64 place of each pair, 0 to ``places`` - 1.
        places: number of places.
        position: ``[places, 2]`` lat, lon in degrees; None when the data set has none.
        also_shows: per pair, other places that its photo shows in part, and that are no negatives of it; None when
            places do not overlap.
    """

    place: NDArray[np.int64]
    places: int
    position: NDArray[np.float64] | None
    also_shows: list[NDArray[np.int64]] | None

    def load(self, pairs: Sequence[int], generator: Generator, *, clean: bool = False) -> Batch:
        """Read or render these pairs; the same generator state gives the same batch.

        Args:
            pairs: which.
            generator: the source of all randomness, on the CPU.
            clean: leave out the augmentation, to embed rather than to train.

        Raises:
            TrainingError: a file cannot be read; the message names it.
        """


class Images(Protocol):
    """Images of one side of a task.

    Attributes:
        name: ``[N]`` file names or ids, for reports.
        place: ``[N]`` int64 place of each image.
        position: ``[N, 2]`` lat, lon in degrees of what the image shows; None when the data set has none.
    """

    name: list[str]
    place: NDArray[np.int64]
    position: NDArray[np.float64] | None

    def __len__(self) -> int: ...

    def load(self, index: Sequence[int]) -> Tensor:
        """Load images ``[n, 3, S, S]``, 0 to 1, as the model wants them; never augmented."""


@dataclass(frozen=True)
class Task:
    """Queries to find in a gallery.

    Attributes:
        name: for example ``drone_to_satellite``.
        queries: what is asked.
        gallery: where it is looked for.
        positives: per query, the gallery rows that are right; may be empty.
        semi_positives: per query, rows that show part of the place (VIGOR, GTA-UAV); None when there are none.
        tile_side_m: ``[G]`` ground side of each gallery image, where these are north-up tiles of known scale; or None.
    """

    name: str
    queries: Images
    gallery: Images
    positives: list[NDArray[np.int64]]
    semi_positives: list[NDArray[np.int64]] | None = None
    tile_side_m: NDArray[np.float64] | None = None


class Dataset(Protocol):
    """A data set whose folder has been looked at and found in order."""

    def train(self) -> PairData:
        """Return the pairs to train on."""

    def tasks(self) -> list[Task]:
        """Return what to judge a model by, on places that are not trained on."""


def same_place(queries: Images, gallery: Images) -> list[NDArray[np.int64]]:
    """Return the positives of a task in which equal places match."""
    order = np.argsort(gallery.place, kind="stable")
    ordered = gallery.place[order]
    first = np.searchsorted(ordered, queries.place, side="left")
    last = np.searchsorted(ordered, queries.place, side="right")
    return [np.sort(order[a:b]) for a, b in zip(first, last, strict=True)]


def on_the_equator(east_m: NDArray[np.float64], north_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return positions for a plane that is nowhere on Earth: lat, lon in degrees ``[N, 2]`` around 0°, 0°.

    East-west distances come out exact there, others to a part in a million within 10 km of the equator.
    """
    return np.rad2deg(np.stack((north_m, east_m), axis=1) / EARTH_RADIUS_M)
