"""How much of the encoder's speed is left when a map is imported: reading, warping, WebP, storing and all.

    python benchmarks/ingest.py [--rounds 4] [--threads 1] [--map FILE]

In turns: the encoder alone on batches of random images in this process, an import of a map (the demo's) by a running
service (``POST /gallery/imports``), and the same map by `aerofix gallery add --url` (less the time of a command that
adds nothing). Every window is new: each round makes a map of its own.

An encoder on a CPU takes all cores, and whatever else a window costs is taken from it. --threads 1 leaves it one: on
two cores the rest of the work then has the other, as it has them all beside an encoder on a GPU. Virtual cores may be
threads of one, and then slow each other down: so the encoder is also measured beside a process that compresses
pictures, as an import does.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from servers import ROOT, aerofix

sys.path.insert(0, str(ROOT))
from service.encoder.session import Encoder
from service.ground.pyramid import EFFORT, QUALITY
from service.settings import Settings

MAP = ROOT / "examples/town.tif"
ALONE, BESIDE = "encoder alone", "encoder beside a busy core"
POLL_S = 0.2  # every answer costs the service a millisecond or two


def encoder_rate(encoder: Encoder, batch: int, seconds: float) -> float:
    """Return images a second of the encoder alone."""
    side = encoder.contract.image_size
    images = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    started, done = time.perf_counter(), 0
    while time.perf_counter() < started + seconds:
        encoder.encode(images)
        done += batch
    return done / (time.perf_counter() - started)


@contextmanager
def busy_core() -> Iterator[None]:
    """Keep another core at work on what takes most of an import beside the encoder: WebP."""
    process = multiprocessing.get_context("spawn").Process(target=compress_for_ever, daemon=True)
    process.start()
    time.sleep(1)  # it loads its libraries
    yield
    process.terminate()
    process.join()


def compress_for_ever() -> None:
    """Compress a piece of the map again and again."""
    piece = Image.open(MAP).convert("RGB").crop((0, 0, 512, 512))
    while True:
        piece.save(BytesIO(), "WEBP", quality=QUALITY, method=EFFORT)


def import_rate(http: httpx.Client, raster: Path, name: str) -> float:
    """Return windows a second of an import, from the answer to its request until it is done."""
    form = {"map": name}
    job = http.post("/gallery/imports", files={"file": (raster.name, raster.read_bytes())}, data=form).json()
    started = time.perf_counter()
    while job["state"] in ("queued", "running"):
        time.sleep(POLL_S)
        job = http.get(f"/gallery/imports/{job['id']}").json()
    took = time.perf_counter() - started
    if job["state"] != "done" or not job["added"]:
        raise SystemExit(f"the import went wrong: {job}")
    return float(job["added"] / took)


def command_rate(url: str, raster: Path, name: str, windows: int) -> float:
    """Return windows a second of the command line."""
    command = [sys.executable, "-m", "service.cli.main", "gallery"]
    add = ["add", str(raster), "--map", name, "--url", url]

    def seconds(words: list[str]) -> float:
        started = time.perf_counter()
        subprocess.run([*command, *words], check=True, capture_output=True, cwd=ROOT)
        return time.perf_counter() - started

    return windows / (seconds(add) - seconds(["info", "--url", url]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4, help="of the encoder alone, each round")
    parser.add_argument("--threads", type=int, default=0, help="of the encoder; 0: all cores")
    parser.add_argument("--model", type=Path, default=Settings().model)
    parser.add_argument("--map", type=Path, default=MAP)
    chosen = parser.parse_args()
    load = os.getloadavg()[0]
    encoder = Encoder(chosen.model, "cpu", chosen.threads)
    batch = encoder.useful_batch(Settings().max_batch)
    rates: dict[str, list[float]] = {ALONE: [], BESIDE: [], "import": [], "gallery add": []}
    with tempfile.TemporaryDirectory() as folder:
        server = aerofix(Path(folder) / "g.gallery", chosen.model, {"AEROFIX_THREADS": str(chosen.threads)})
        with server.running() as url, httpx.Client(base_url=url.removesuffix(server.path), timeout=60) as http:
            import_rate(http, MAP, "warm-up")
            windows = http.get("/gallery").json()["count"]
            for i in range(chosen.rounds):
                rates[ALONE].append(encoder_rate(encoder, batch, chosen.seconds))
                with busy_core():
                    rates[BESIDE].append(encoder_rate(encoder, batch, chosen.seconds))
                before = http.get("/gallery").json()["count"]
                rates["import"].append(import_rate(http, chosen.map, f"import-{i}"))
                windows = http.get("/gallery").json()["count"] - before
                rates["gallery add"].append(command_rate(str(http.base_url), chosen.map, f"add-{i}", windows))
    machine = f"{os.cpu_count()} CPUs, threads of the encoder: {chosen.threads or 'all'}, load before: {load:.1f}"
    table = Table(title=f"{windows} windows a round; {machine} (goal: import at least 0.90)")
    for column in ("", "images/s", f"of the {ALONE}", f"of the {BESIDE}", "of each round"):
        table.add_column(column, justify="right" if column else "left")
    for name, each in rates.items():
        alone, beside = (np.divide(each, rates[kind]) for kind in (ALONE, BESIDE))
        rounds = " ".join(f"{share:.2f}" for share in beside)
        table.add_row(name, f"{np.median(each):.1f}", f"{np.median(alone):.2f}", f"{np.median(beside):.2f}", rounds)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
