"""What a search with a prior of a kilometre costs, from a hundred thousand windows to ten million.

    python benchmarks/priors.py [--sizes 100000 1000000 10000000] [--searches 200] [--vectors FILE]

Vectors have the structure of real ones (``made_vectors.py``; --vectors keeps them). Beyond the first million the same
maps lie elsewhere again: a search with a prior looks at no other ground. All galleries are in memory at once (ten
million windows take 12 GB) and are searched in turns, each time at a place of their own, anywhere in the gallery, of
which as many windows lie within the prior. Times are those of a thread on a CPU, so whatever else the machine does
counts for all sizes alike. A small gallery stays in a processor's large cache; so the second table is made of searches
before each of which other memory was read, as much as no cache holds.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from made_vectors import LEVELS, SIDE_STEPS, MadeGround, stored

sys.path.insert(0, str(Path(__file__).parents[1]))
from service.geo import Circle
from service.ground.index.tiered import TieredIndex
from service.ground.vectors import unit

DIM, K = 512, 128
BATCH = 16_384
PRIOR_M = 1000.0
MAP_WINDOWS = sum((SIDE_STEPS >> level) ** 2 for level in range(LEVELS))
DIFFERENT = 1_000_000
"""So many windows are drawn; more are these again, at other longitudes."""

APART_DEG = 7.0

OTHER_BYTES = 1 << 30
"""So much is read to empty the processor's caches; those of large servers hold half of it."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--searches", type=int, default=200, help="of each size")
    parser.add_argument("--vectors", type=Path, help="keep the vectors in FILE.npy, or use those that are there")
    chosen = parser.parse_args()
    print(f"{DIM} dimensions, {os.cpu_count()} CPUs, load before: {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        drawn = stored(chosen.vectors or Path(folder) / "vectors.npy", min(DIFFERENT, max(chosen.sizes)))
        filled = {size: gallery(*drawn, size) for size in chosen.sizes}
        tell("as they come", in_turns(filled, *drawn, chosen.searches))
        tell("after other memory was read", in_turns(filled, *drawn, chosen.searches // 4, np.ones(OTHER_BYTES // 8)))


def tell(what: str, times: dict[int, Any]) -> None:
    """Print a line for each size."""
    first = next(iter(times.values()))
    print(f"searches {what}:")
    for size, each in times.items():
        ratio = np.median(each) / np.median(first)
        quarters = np.percentile(each / first, [25, 50, 75])
        of_turns = ", ".join(f"{quarter:.2f}" for quarter in quarters)
        print(f"{size:>10,} windows: p50 {np.median(each):.2f} ms, {ratio:.2f} of the first; of each turn {of_turns}")
    sys.stdout.flush()


def gallery(vectors: Any, centres: Any, size: int) -> TieredIndex:
    """Make an index of so many windows, as a gallery that is opened does; without codes, which areas ignore."""
    index, maps, started = TieredIndex(DIM, codes_from=2 * size), len(vectors) // MAP_WINDOWS, time.process_time()
    for start in range(0, size, BATCH):
        windows = np.arange(start, min(start + BATCH, size))
        again, at = np.divmod(windows, maps * MAP_WINDOWS)
        index.upsert(windows, vectors[at], moved(centres[at], again))
    print(f"{size:>10,} windows written in {time.process_time() - started:.0f} s of a CPU", flush=True)
    return index


def moved(centres: Any, again: Any) -> Any:
    """Return centres of the same ground elsewhere, so many times on."""
    lons = (centres[:, 1] + APART_DEG * again + 180) % 360 - 180
    return np.column_stack([centres[:, 0], lons])


def in_turns(
    filled: dict[int, TieredIndex], vectors: Any, centres: Any, searches: int, other: Any = None
) -> dict[int, Any]:
    """Return milliseconds of searches, one of each size in turn: at the same place of any of its maps.

    Args:
        filled: galleries, by size.
        vectors: of the windows that were drawn.
        centres: of these windows.
        searches: of each size.
        other: memory that is read before each search, if given.
    """
    rng, ground, maps = np.random.default_rng(0), MadeGround(DIM), len(vectors) // MAP_WINDOWS
    times: dict[int, list[float]] = {size: [] for size in filled}
    for _ in range(searches):
        place = rng.integers(MAP_WINDOWS)
        for size, index in filled.items():
            again, of = divmod(int(rng.integers(size // MAP_WINDOWS)), maps)
            at = of * MAP_WINDOWS + place
            ((lat, lon),) = moved(centres[at : at + 1], again)
            query, area = ground.photos(unit(vectors[at : at + 1])), Circle(lat, lon, PRIOR_M)
            if other is not None:
                other.sum()
            started = time.thread_time()
            index.search(query, K, area)
            times[size].append(1000 * (time.thread_time() - started))
    return {size: np.array(each) for size, each in times.items()}


if __name__ == "__main__":
    main()
