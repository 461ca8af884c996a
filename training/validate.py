"""Judging the encoder while it trains: the data set's tasks, or an even part of their queries."""

from __future__ import annotations

import numpy as np

from training.config import Config
from training.data.base import Dataset, Task
from training.evaluate import evaluate
from training.evaluation.embed import TorchEmbedder
from training.evaluation.protocol import Subset
from training.models.encoder import Encoder

#: What goes into ``metrics.jsonl``, where the task has it; ``aerofix-train evaluate`` prints everything.
METRICS = ("recall@1", "recall@5", "ap", "within_25m", "error_median_m")


class Validation:
    """The tasks of a run, and when they are due.

    Args:
        dataset: has the tasks.
        config: ``run.evaluate_every`` and ``run.evaluate_queries``.
        steps: of the whole run; the last one is always due, unless nothing ever is.
    """

    def __init__(self, dataset: Dataset, config: Config, steps: int) -> None:
        self.config, self.steps = config, steps
        self.every = config.run.evaluate_every
        queries = config.run.evaluate_queries
        self.tasks = [_some(task, queries) for task in dataset.tasks()] if self.every else []

    def due(self, step: int) -> bool:
        """Whether this step ends with an evaluation."""
        return self.every is not None and (step % self.every == 0 or step == self.steps)

    def measure(self, encoder: Encoder) -> dict[str, float]:
        """Metrics by ``task/metric``, in the full gallery; leaves the encoder in evaluation mode."""
        model = self.config.model
        embedder = TorchEmbedder(encoder.eval(), self.config.name, model.image_size, model.resize)
        result = evaluate(embedder, self.tasks, dataset=self.config.data.dataset, gallery="full", quiet=True)
        return {
            f"{task}/{name}": outcome["full"]["metrics"][name]
            for task, outcome in result["tasks"].items()
            for name in METRICS
            if name in outcome["full"]["metrics"]
        }


def _some(task: Task, count: int | None) -> Task:
    """The task with at most ``count`` queries, evenly drawn."""
    if count is None or count >= len(task.queries):
        return task
    rows = np.linspace(0, len(task.queries) - 1, count).round().astype(np.int64)
    semis = None if task.semi_positives is None else [task.semi_positives[i] for i in rows]
    return Task(task.name, Subset(task.queries, rows), task.gallery, [task.positives[i] for i in rows], semis)
