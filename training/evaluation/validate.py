"""Judging the encoder while it trains: the data set's tasks, or an even part of their queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from training.config import Config
from training.data.base import Dataset, Images, Task
from training.distributed import World, sum_over_processes
from training.evaluation.embed import TorchEmbedder, embed
from training.evaluation.protocol import Subset, judge
from training.evaluation.search import Embeddings
from training.models.encoder import Encoder

#: What goes into ``metrics.jsonl``, where the task has it; ``aerofix-train evaluate`` prints everything.
METRICS = ("recall@1", "recall@5", "ap", "within_25m", "error_median_m")


#: Images of a task that stay in memory between evaluations, as bytes: rendering or decoding them takes longest.
KEEP_BYTES = 2**29


class Validation:
    """The tasks of a run, and when they are due.

    Args:
        dataset: has the tasks.
        config: ``run.evaluate_queries``.
        steps: of the whole run; the last one is always due, unless nothing ever is.
        every: steps from one evaluation to the next; None: never.
    """

    def __init__(self, dataset: Dataset, config: Config, steps: int, every: int | None) -> None:
        self.config, self.steps, self.every = config, steps, every
        queries = config.run.evaluate_queries
        self.tasks = [_kept(_some(task, queries)) for task in dataset.tasks()] if self.every else []

    def due(self, step: int) -> bool:
        """Tell whether this step ends with an evaluation."""
        return self.every is not None and (step % self.every == 0 or step == self.steps)

    def measure(self, encoder: Encoder, world: World) -> dict[str, float] | None:
        """Measure by ``task/metric``, in the full gallery; leaves the encoder in evaluation mode.

        Every process embeds its share of the images, so that none waits for another, and the leading one ranks them;
        the others get None.
        """
        model = self.config.model
        embedder = TorchEmbedder(
            encoder.eval(), self.config.name, model.image_size, model.resize, self.config.optim.precision
        )
        found: dict[str, float] = {}
        for task in self.tasks:
            asked, held = (_embed_together(embedder, side, world) for side in (task.queries, task.gallery))
            if world.leads:
                metrics = judge(task, asked, held, "full").metrics
                found |= {f"{task.name}/{name}": metrics[name] for name in METRICS if name in metrics}
        return found if world.leads else None


def _embed_together(embedder: TorchEmbedder, images: Images, world: World) -> Embeddings:
    """Embeddings ``[N, D]`` of all images, in every process."""
    rows = np.arange(world.rank, len(images), world.size)
    together = torch.zeros(len(images), embedder.encoder.embedding_dim, device=world.device)
    if len(rows):
        together[rows] = torch.from_numpy(embed(embedder, Subset(images, rows), quiet=True)).to(world.device)
    embeddings: Embeddings = sum_over_processes(together, world).cpu().numpy()
    return embeddings


def _some(task: Task, count: int | None) -> Task:
    """The task with at most ``count`` queries, evenly drawn."""
    if count is None or count >= len(task.queries):
        return task
    rows = np.linspace(0, len(task.queries) - 1, count).round().astype(np.int64)
    semis = None if task.semi_positives is None else [task.semi_positives[i] for i in rows]
    return Task(task.name, Subset(task.queries, rows), task.gallery, [task.positives[i] for i in rows], semis)


def _kept(task: Task) -> Task:
    return replace(task, queries=_Kept(task.queries), gallery=_Kept(task.gallery))


class _Kept:
    """Images that are loaded once, as long as they fit ``KEEP_BYTES``."""

    def __init__(self, images: Images) -> None:
        self.images = images
        self.name, self.place, self.position = images.name, images.place, images.position
        self._bytes: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.name)

    def load(self, index: Sequence[int]) -> Tensor:
        """Images ``[n, 3, S, S]``, 0 to 1; what is kept comes in steps of 1/255."""
        missing = [i for i in index if i not in self._bytes]
        if missing:
            loaded = self.images.load(missing)
            if loaded[0].numel() * len(self) > KEEP_BYTES:  # then none is kept, and all were missing
                return loaded
            self._bytes.update(zip(missing, loaded.mul(255).round().byte(), strict=True))
        return torch.stack([self._bytes[i] for i in index]).float() / 255
