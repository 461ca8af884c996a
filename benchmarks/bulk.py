"""A map in shards: one worker is killed and replaced, the result is that of a single run, and what a window costs.

    python benchmarks/bulk.py [--windows 100000] [--model FILE] [--keep FOLDER]

A drawn map is embedded three times by commands: in 16 shards by two workers, of which one is killed (SIGKILL) after
the first shard is whole; in one shard by one worker; and by the plain import, `aerofix gallery add`. The first two are
compared row by row. Costs are CPU seconds of all processes of a command. The model, unless one is given, is made up
and costs next to nothing, so that what is measured is the work round it; the shipped one takes 20 ms or so a window,
whoever asks. --keep goes on where it was stopped; costs are then those of the rest.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import _needs  # noqa: F401 - before the others
import numpy as np
import rasterio
from made_model import write_model
from pool import workers_of
from rasterio.windows import Window

sys.path.insert(0, str(Path(__file__).parents[1]))
from service.bulk.table import Marker, Row, pieces_in
from service.encoder.contract import check_contract

AEROFIX = [sys.executable, "-m", "service.cli.main"]
SHARDS, WORKERS = 16, 2
ZOOM, LEFT, TOP = 17, 16 * 1_750_000, 16 * 896_000
BLOCK = 512
T = TypeVar("T")
PATCH = 8  # pixels of one colour, so that no window is flat


def main() -> None:
    """Embed, kill, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=100_000, help="at least so many, on all levels")
    parser.add_argument("--model", type=Path, help="ONNX model file; default: one that is made up")
    parser.add_argument("--keep", type=Path, help="folder of what is made; default: a temporary one")
    chosen = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, load before {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        work = chosen.keep or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        measure(work, chosen.model or write_model(work / "made.onnx"), chosen.windows)


def measure(work: Path, model: Path, windows: int) -> None:
    """Try all three ways, and compare them."""
    step = check_contract(model).image_size // 2
    area = work / "area.tif"
    if not area.exists():
        draw(area, step * int(np.ceil(np.sqrt(0.75 * windows))))  # each level has a quarter of the finer one's windows
    common = ["--model", str(model), "--device", "cpu"]
    sharded, single = work / "sharded", work / "single"
    embed = ["embed", str(area), *common]
    killed, many_s = spent(lambda: run_and_kill([*embed, "--out", str(sharded)], sharded))
    _, one_s = spent(lambda: run([*embed, "--out", str(single), "--of", "1", "--workers", "1"]))
    ours, theirs = rows_of(sharded), rows_of(single)
    count = sum(marker.windows for _, marker in shards_of(sharded))
    same = ours.keys() == theirs.keys() and all(ours[piece] == theirs[piece] for piece in ours)
    print(f"{count} windows, {SHARDS} shards, {WORKERS} workers; killed after {killed} of them were whole")
    print(f"the same as a single run, row by row: {same}", flush=True)
    if not same:
        sys.exit(1)
    plain = work / "plain.gallery"
    plain.unlink(missing_ok=True)
    _, plain_s = spent(lambda: run(["gallery", "add", str(area), "--gallery", str(plain), *common]))
    for name, cost_s in (("sharded, one worker killed", many_s), ("one shard", one_s), ("plain import", plain_s)):
        print(f"{name:28} {count / cost_s:8.0f} windows a core-second  {plain_s / cost_s:5.2f} of the plain import")


def draw(path: Path, side: int) -> None:
    """Draw patches of random colours, each unlike its neighbours: nothing is left out for being flat."""
    pixel_m = 40_075_016.685578488 / (256 * 2**ZOOM)
    origin = (LEFT * pixel_m - 20_037_508.342789244, 20_037_508.342789244 - TOP * pixel_m)
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": "EPSG:3857", "width": side, "height": side}
    profile |= {"transform": rasterio.Affine(pixel_m, 0, origin[0], 0, -pixel_m, origin[1])}
    part, rng = path.with_suffix(".part.tif"), np.random.default_rng(0)
    with rasterio.open(part, "w", tiled=True, blockxsize=BLOCK, blockysize=BLOCK, **profile) as out:
        for top in range(0, side, BLOCK):
            for left in range(0, side, BLOCK):
                height, width = min(BLOCK, side - top), min(BLOCK, side - left)
                colours = rng.integers(0, 256, (3, BLOCK // PATCH, BLOCK // PATCH), dtype=np.uint8)
                pixels = colours.repeat(PATCH, axis=1).repeat(PATCH, axis=2)[:, :height, :width]
                out.write(pixels, window=Window(left, top, width, height))
    part.rename(path)


def run(words: list[str]) -> None:
    """Run a command to its end."""
    subprocess.run([*AEROFIX, *words], check=True)


def run_and_kill(words: list[str], out: Path) -> int:
    """Run the command in shards and kill a worker when the first is whole; returns how many were whole then."""
    command = [*AEROFIX, *words, "--of", str(SHARDS), "--workers", str(WORKERS)]
    with subprocess.Popen(command) as process:
        while not (whole := len(list(out.glob("*.json")))) and process.poll() is None:
            time.sleep(0.05)
        workers = workers_of(process.pid)
        if process.poll() is None and workers:
            os.kill(workers[0], signal.SIGKILL)
        if process.wait():
            raise SystemExit(process.returncode)
    return whole


def shards_of(folder: Path) -> list[tuple[Path, Marker]]:
    """List shards that are whole, with what their markers say."""
    found = [(path, Marker.of(path)) for path in sorted(folder.glob("*.parquet"))]
    return [(path, marker) for path, marker in found if marker is not None]


def rows_of(folder: Path) -> dict[int, list[Row]]:
    """Return all rows of all shards, by the piece of the plan that they belong to."""
    return {done.piece: rows for path, marker in shards_of(folder) for done, rows in pieces_in(path, marker)}


def spent(work: Callable[[], T]) -> tuple[T, float]:
    """Return what work gives, and the CPU seconds of the processes that it started and saw end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    given = work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return given, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
