"""What re-ranking costs: the photo's map against those of the best tiles, and the position from their matches.

The maps are made-up ground (smooth random fields) that nine half-overlapping tiles show in part and one does not. Also
how many matches agree by chance, and between maps of the same ground: what ``min_inliers`` has to lie between.

    OMP_NUM_THREADS=1 python benchmarks/refine.py [--rounds 30]
"""

import argparse
import cmath
import time
from collections.abc import Callable

import service  # noqa: F401 - before NumPy: says how many threads a matrix product may have

import numpy as np  # isort: skip
from numpy.typing import NDArray

from service.camera.look import Look
from service.encoder.calibration import Calibration, Logistic
from service.geo import offset, offset_m
from service.ground.local_maps import LocalMap, to_int8
from service.ground.records import Hit
from service.ground.tile import Footprint, Tile
from service.localization.glance import GLANCED
from service.localization.matching import cell_centres
from service.localization.refine import matched_position
from service.localization.rerank import Ranking, Seen, ground_grid, rerank

ORIGIN, SIDE_M, CHANNELS = (24.26, 120.72), 86.0, 64
CALIBRATION = Calibration(Logistic(0, 0, 0), Logistic(0, 0, 0), 0.2, 0.2, 0.75, 0.5, 0.05)
Floats = NDArray[np.float64]


class Ground:
    """A descriptor for every point, from sums of random waves of about ``grain_m``."""

    def __init__(self, rng: np.random.Generator, grain_m: float = 6.0) -> None:
        shape = (CHANNELS, 8, 1)
        self._waves = rng.normal(0, 1 / grain_m, shape) - 1j * rng.normal(0, 1 / grain_m, shape)
        self._phases = rng.uniform(0, 2 * np.pi, shape)

    def __call__(self, points_m: NDArray[np.complex128]) -> Floats:
        """Unit descriptors ``[C, h, h]`` at h² points."""
        values = np.cos((self._waves * points_m).real + self._phases).sum(axis=1)
        side = round(len(points_m) ** 0.5)
        unit: Floats = (values / np.linalg.norm(values, axis=0)).reshape(CHANNELS, side, side)
        return unit


def tile(number: int, east_m: float, north_m: float) -> Hit:
    """Return a candidate so far from the origin."""
    lat, lon = offset(*ORIGIN, east_m, north_m)
    footprint = Footprint.from_centre(float(lat), float(lon), SIDE_M / 256, 256, 256)
    return Hit(Tile(f"t{number}", footprint), 0.9 - number / 100)


def seen(ground: Ground, hit: Hit, side: int) -> LocalMap:
    """Return the stored map of a candidate's tile."""
    points, _ = ground_grid(hit.tile.footprint, side, side, "squash")
    return to_int8(ground(points + complex(*offset_m(*ORIGIN, *hit.tile.footprint.centre))))


def photo(ground: Ground, side: int, a: complex, b: complex, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the map of a photo, with noise."""
    noise = rng.normal(size=(CHANNELS, side, side))
    noisy = ground(a * cell_centres(side, side) + b) + 0.5 * noise / np.linalg.norm(noise, axis=0)
    return (noisy / np.linalg.norm(noisy, axis=0)).astype(np.float32)


def matched(hits: list[Hit], query: NDArray[np.float32], maps: dict[str, LocalMap]) -> Ranking:
    """Re-rank the candidates by what a photo, as wide as high and seen straight down, shows in its turns."""
    seen_from_above = Seen(Look(np.eye(3), 1.0), query)
    return rerank(hits, seen_from_above, lambda some: [maps[hit.tile.id] for hit in some], CALIBRATION, "squash")


def milliseconds(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Return the median and 95 % of the times that a call takes."""
    took = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        took.append((time.perf_counter() - started) * 1e3)
    return float(np.median(took)), float(np.quantile(took, 0.95))


def times(side: int, turns: int, tiles: int, rounds: int) -> str:
    """Return one line of the first table."""
    rng = np.random.default_rng(0)
    ground = Ground(rng)
    steps = (0.0, 0.5, -0.5)
    hits = [tile(3 * i + j, SIDE_M * x, SIDE_M * y) for i, x in enumerate(steps) for j, y in enumerate(steps)]
    hits += [tile(9 + i, 5000.0 + 1000.0 * i, 0.0) for i in range(tiles - len(hits))]
    level = photo(ground, side, cmath.rect(1.2 * SIDE_M, 2.0), 15 + 20j, rng)
    query = np.stack([np.rot90(level, k, axes=(1, 2)) for k in range(turns)])
    maps = {hit.tile.id: seen(ground, hit, side) for hit in hits}
    ranking = matched(hits, query, maps)
    fix = matched_position(ranking, CALIBRATION.local.min_inliers)
    if fix is None:
        raise SystemExit("the photo was not laid on the ground")
    off_m = abs(complex(*offset_m(*ORIGIN, fix.lat, fix.lon)) - (15 + 20j))
    match = milliseconds(lambda: matched(hits, query, maps), rounds)
    refine = milliseconds(lambda: matched_position(ranking, CALIBRATION.local.min_inliers), rounds)
    kilobytes = maps[hits[0].tile.id].nbytes / 1e3
    return (
        f"{side:4}{turns:7}{tiles:7}{kilobytes:11.1f}{match[0]:10.1f}{match[1]:7.1f}{refine[0]:10.1f}{refine[1]:7.1f}"
        f"{fix.inliers:9}{off_m:9.2f}"
    )


def counts(side: int, grain_m: float, rounds: int) -> str:
    """Return one line of the second table."""
    rng = np.random.default_rng(1)
    chance, right = [], []
    hit = tile(0, 0.0, 0.0)
    for _ in range(rounds):
        ground, other = Ground(rng, grain_m), Ground(rng, grain_m)
        a = cmath.rect(SIDE_M * rng.uniform(0.6, 1.8), rng.uniform(0, 7))
        query = photo(ground, side, a, cmath.rect(SIDE_M / 2, rng.uniform(0, 7)), rng)
        for shown, into in ((other, chance), (ground, right)):
            into.append(matched([hit], query[None], {hit.tile.id: seen(shown, hit, side)}).hits[0].inliers or 0)
    return f"{side:4}{grain_m:9.1f}{np.median(chance):9.0f}{max(chance):6}{min(right):12}{np.median(right):9.0f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    print("                         stored     match, ms     refine, ms    agreeing      off")
    print("side  turns  tiles  kB a tile     p50    p95       p50    p95  positions   metres")
    for side, turns, tiles in ((24, 1, 10), (28, 1, 10), (28, 4, 10), (28, 1, GLANCED), (28, 4, GLANCED)):
        print(times(side, turns, tiles, arguments.rounds))
    print("\n         grain    by chance       same ground, half a side off")
    print("side    metres   median   max     fewest   median")
    for side in (24, 28, 32):
        for grain_m in (3.0, 6.0, 12.0):
            print(counts(side, grain_m, arguments.rounds))
