"""The two galleries that published figures rank, side by side.

*full*: every gallery image, as the evaluators of the data sets' authors do. *filtered*: only images that are right for
at least one query, as the evaluators that descend from Sample4Geo's do: they drop every image of a place that nobody
asks for (University-1652 drone → satellite: 701 instead of 951; SUES-200: 80 instead of 200). The same model scores
higher in the filtered one, so a figure is worth little without the name of its gallery.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from training.data.base import Images, Task
from training.evaluation.metrics import SDM, Sdm, metrics
from training.evaluation.search import Embeddings, Ints, Ranking, search

Protocol = Literal["full", "filtered"]
#: Data sets of which figures in the filtered gallery are published; for others it would be a figure of ours alone.
FILTERED_TOO = frozenset({"university1652", "sues200"})


class Subset:
    """Some rows of other images."""

    def __init__(self, images: Images, rows: Ints) -> None:
        self.images, self.rows = images, rows
        self.name = [images.name[i] for i in rows]
        self.place: NDArray[np.int64] = images.place[rows]
        self.position = None if images.position is None else images.position[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, index: Sequence[int]) -> Tensor:
        """Load images ``[n, 3, S, S]``, 0 to 1."""
        return self.images.load([int(self.rows[i]) for i in index])


@dataclass(frozen=True)
class Outcome:
    """A task judged in one protocol.

    Attributes:
        protocol: the gallery that was ranked.
        task: what was asked, in that gallery.
        ranking: what was found; its rows are rows of ``task.gallery``.
        counts: queries, gallery images, queries without a positive.
        metrics: see ``training.evaluation.metrics.metrics``.
    """

    protocol: Protocol
    task: Task
    ranking: Ranking
    counts: dict[str, int]
    metrics: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return counts and metrics."""
        return {"counts": self.counts, "metrics": self.metrics}


def judge(
    task: Task,
    queries: Embeddings,
    gallery: Embeddings,
    protocol: Protocol,
    sdm: Mapping[str, Sdm] = SDM,
    again: Callable[[Ranking, Task], Ranking] | None = None,
) -> Outcome:
    """Search and measure.

    Args:
        task: with its full gallery.
        queries: embeddings ``[Q, D]``.
        gallery: embeddings ``[G, D]`` of the full gallery.
        protocol: which gallery to rank.
        sdm: variants of SDM, by name.
        again: a second look at the ranking, such as re-ranking.

    Raises:
        TrainingError: embeddings or positions cannot be used, or the filter leaves nothing.
    """
    full_gallery = len(task.gallery)
    if protocol == "filtered":
        task, rows = filtered(task)
        gallery = gallery[rows]
    ranking = search(queries, gallery, task.positives, task.semi_positives)
    ranking = ranking if again is None else again(ranking, task)
    counts = {
        "queries": len(task.queries),
        "gallery": len(task.gallery),
        "queries_without_positive": sum(not len(own) for own in task.positives),
    }
    return Outcome(protocol, task, ranking, counts, metrics(ranking, task, full_gallery=full_gallery, sdm=sdm))


def filtered(task: Task) -> tuple[Task, Ints]:
    """Return the task without distractors, and the gallery rows that stay: right, or partly right, for some query."""
    asked = np.zeros(len(task.gallery), np.bool_)
    for own in (*task.positives, *(task.semi_positives or ())):
        asked[own] = True
    rows = np.flatnonzero(asked).astype(np.int64)
    new_row = np.cumsum(asked) - 1
    positives = [new_row[own] for own in task.positives]
    semis = None if task.semi_positives is None else [new_row[own] for own in task.semi_positives]
    return Task(task.name, task.queries, Subset(task.gallery, rows), positives, semis), rows
