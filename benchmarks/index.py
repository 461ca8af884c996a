"""What each tier of the index costs at each size: time, memory and recall. ``priors.py`` has searches with a prior.

    python benchmarks/index.py [--sizes 10000 100000 1000000] [--queries 40] [--vectors FILE]

Vectors have the structure of real ones (``made_vectors.py``), and queries are as near to a window's as photos are.
"Flat float32" is what 0.1.0 searched with. Each search has one thread, and its time is that thread's on a CPU, so that
others on the machine count little; times are medians. --vectors keeps the vectors for the next run.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from made_vectors import MadeGround, stored
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
from service.ground.index.exact import FaissIndex, load_faiss
from service.ground.index.tiered import CODES_FROM, TieredIndex
from service.ground.vectors import unit

DIM = 512
BATCH = 16_384
FLAT_ROWS = 200_000
"""Of more, 0.1.0's search is taken to cost in proportion: it goes through all of them."""

COLUMNS = ("windows", "tier", "build s", "bytes each", "p50 @10", "p50 @128", "times flat", "recall")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--vectors", type=Path, help="keep the vectors in FILE.npy, or use those that are there")
    chosen = parser.parse_args()
    load = os.getloadavg()[0]
    table = Table(title=f"{DIM} dimensions, {os.cpu_count()} CPUs, load before: {load:.1f}; codes from {CODES_FROM:,}")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "tier" else "right")
    with tempfile.TemporaryDirectory() as folder:
        file = chosen.vectors or Path(folder) / "vectors.npy"
        vectors, centres = stored(file, max(chosen.sizes))
        for size in chosen.sizes:
            measured(vectors[:size], centres[:size], chosen.queries, table)
        ties = one_colour(vectors[: min(len(vectors), CODES_FROM)])
    Console(width=130).print(table)
    print(f"an exact search among equal vectors, as of sea or sand, takes {ties:.1f} times that among different ones")


def measured(vectors: Any, centres: Any, count: int, table: Table) -> None:
    """Add the rows of one size."""
    size = len(vectors)
    rng = np.random.default_rng(size)
    windows = np.sort(rng.choice(size, count, replace=False))
    queries = MadeGround(DIM).photos(unit(vectors[windows]))

    before, started = resident(), time.perf_counter()
    flat = load_faiss().IndexFlatIP(DIM)
    flat_rows = min(size, FLAT_ROWS)
    for start in range(0, flat_rows, BATCH):
        flat.add(unit(vectors[start : min(start + BATCH, flat_rows)]))
    took, each = time.perf_counter() - started, (resident() - before) / flat_rows
    more = size / flat_rows
    flat_ms = {k: more * timed(lambda query, k=k: flat.search(query, k), queries) for k in (10, 128)}
    row(table, size, "flat float32", took * more, each, flat_ms, flat_ms, (1.0, 1.0))
    flat.reset()
    gc.collect()

    before, started = resident(), time.perf_counter()
    index = TieredIndex(DIM, codes_from=min(CODES_FROM, size))
    for start in range(0, size, BATCH):
        rows = np.arange(start, min(start + BATCH, size))
        index.upsert(rows, vectors[rows[0] : rows[-1] + 1], centres[rows])
    exact = index._exact
    took, each = time.perf_counter() - started, (resident() - before) / size
    exact_ms = {k: timed(lambda query, k=k: exact.search(query, k), queries) for k in (10, 128)}
    answers = [exact.search(query[None], 128)[1][0] for query in queries]
    row(table, size, "exact", took, each, exact_ms, flat_ms, (1.0, 1.0))
    while index._coding:
        time.sleep(0.1)
    took, each = time.perf_counter() - started, (resident() - before) / size
    codes_ms = {k: timed(lambda query, k=k: index.search(query, k), queries) for k in (10, 128)}
    recall = tuple(
        float(
            np.mean([np.isin(a[:k], index.search(q[None], k)[1]).mean() for a, q in zip(answers, queries, strict=True)])
        )
        for k in (10, 128)
    )
    row(table, size, "codes", took, each, codes_ms, flat_ms, recall)
    print(f"{size}: {index.describe()}", flush=True)


def one_colour(vectors: Any) -> float:
    """Tell how many times as long a search for 10 takes when all vectors are the same."""
    query = unit(vectors[:1])[0]
    took = []
    for each in (vectors, np.repeat(vectors[:1], len(vectors), axis=0)):
        index = FaissIndex(DIM)
        index.upsert(np.arange(len(each)), each, np.zeros((len(each), 2)))
        took.append(timed(lambda query, index=index: index.search(query, 10), [query] * 9))
    return took[1] / took[0]


def timed(search: Callable[[Any], Any], queries: Iterable[Any]) -> float:
    """Return median milliseconds of a CPU, of searches one by one."""
    times = []
    for query in queries:
        started = time.thread_time()
        search(query[None])
        times.append(1000 * (time.thread_time() - started))
    return float(np.median(times))


def row(
    table: Table,
    size: int,
    tier: str,
    took: float,
    each: float,
    times: dict[int, float],
    flat: dict[int, float],
    recall: tuple[float, ...],
) -> None:
    """Add one line."""
    ratios = f"{flat[10] / times[10]:.1f}, {flat[128] / times[128]:.1f}"
    cells = [f"{size:,}", tier, f"{took:.1f}", f"{each:.0f}", f"{times[10]:.1f} ms", f"{times[128]:.1f} ms", ratios]
    table.add_row(*cells, ", ".join(f"{share:.4f}" for share in recall))


def resident() -> int:
    """Return bytes of this process in memory that no file holds."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) * 1024


if __name__ == "__main__":
    main()
