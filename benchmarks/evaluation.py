"""Seconds and memory of ranking a large gallery.

    python benchmarks/evaluation.py [--queries 50000] [--gallery 50000] [--dim 512] [--positives 54]

Embeddings are random unit vectors, and every class has 54 of them, as a University-1652 building has drone images: the
positives lie all over the ranking, which is the worst case but for a collapsed model. "Added" is the peak of resident
memory over what the embeddings and positives take; the whole matrix of scores would take the last column.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import _needs  # noqa: F401 - before the others
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
from training.data.base import Task, same_place
from training.evaluation.metrics import metrics
from training.evaluation.search import Embeddings, search


class NoImages:
    """One side of a task whose embeddings are known."""

    def __init__(self, place: np.ndarray) -> None:
        self.place, self.position = place, None
        self.name = [str(i) for i in range(len(place))]

    def __len__(self) -> int:
        return len(self.place)


def unit_vectors(rng: np.random.Generator, n: int, dim: int) -> Embeddings:
    """Draw ``[n, dim]`` float32, uniform on the sphere."""
    vectors = rng.standard_normal((n, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def memory_mb(line: str) -> float:
    """Return this process's resident memory: ``VmRSS`` now, ``VmHWM`` at its peak (Linux)."""
    status = dict(row.split(":") for row in Path("/proc/self/status").read_text().splitlines())
    return int(status[line].split()[0]) / 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=50_000)
    parser.add_argument("--gallery", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--positives", type=int, default=54, help="gallery images of each class")
    arguments = parser.parse_args()

    rng = np.random.default_rng(0)
    queries = unit_vectors(rng, arguments.queries, arguments.dim)
    gallery = unit_vectors(rng, arguments.gallery, arguments.dim)
    held = np.arange(arguments.gallery) // arguments.positives
    asked, images = NoImages(np.arange(arguments.queries) % (held[-1] + 1)), NoImages(held)
    task = Task("benchmark", asked, images, same_place(asked, images))

    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making the vectors
    before, began = memory_mb("VmRSS"), time.perf_counter()
    ranking = search(queries, gallery, task.positives)
    searched = time.perf_counter() - began
    found = metrics(ranking, task, full_gallery=arguments.gallery)
    seconds = time.perf_counter() - began
    table = Table(title=f"{torch.get_num_threads()} threads, R@1 {found['recall@1']:.5f}, AP {found['ap']:.5f}")
    for column in ("queries", "gallery", "dim", "search", "metrics", "memory before", "added", "all scores"):
        table.add_column(column, justify="right")
    sizes = (f"{n:,}" for n in (arguments.queries, arguments.gallery, arguments.dim))
    times = (f"{searched:.1f} s", f"{seconds - searched:.1f} s")
    scores_mb = arguments.queries * arguments.gallery * 8 / 1e6
    table.add_row(*sizes, *times, *(f"{mb:,.0f} MB" for mb in (before, memory_mb("VmHWM") - before, scores_mb)))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
