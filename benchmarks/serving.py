"""What the service costs over its own work, and what other servers make of the same work.

    python benchmarks/serving.py [latency] [throughput] [peers] [--peers-python PYTHON]

In one run, on the demo area's gallery and photos and one of 4000 x 2250 pixels, in turns: all see the same machine.

* latency: one client asks the service over HTTP; a bare loop in one process does the same work for the same photos;
* throughput: sixteen clients ask the service; the loop that was fastest in a trial, of several batch sizes and numbers
  of decoding threads, does the same work;
* peers: sixteen clients ask the service, LitServe and BentoML, each with its batching on and batches as large as ours.
  They get the service's own code for the work (``bare.py``), so that only the serving differs. A batch is decoded photo
  by photo, as their examples do, or by a pool of threads, as one may write by hand. They live in an environment of
  their own, made by `make bench`: `pip install '.[cpu,bench]'` into .venv-bench.

The clients run in a process of their own. With another model: --model.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import cycle
from pathlib import Path

from bare import Bare, Loop  # before NumPy, see there

# isort: split
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from servers import ROOT, Server, aerofix, bentoml, litserve

from service.settings import Settings

CLIENTS = 16
LARGE_PX = (4000, 2250)
LOOPS = [Loop(1, 0), *(Loop(batch, decoders) for batch in (4, 8, 16) for decoders in (0, 1, 2))]
PEERS_PYTHON = ROOT / ".venv-bench/bin/python"
PARTS = ("latency", "throughput", "peers")
console = Console(width=130)


@dataclass(frozen=True)
class Load:
    """What clients saw: answers a second, photo number and milliseconds of each, and the CPU that they took."""

    rate: float
    took_ms: np.ndarray
    cpu_s: float
    wall_s: float

    def of(self, photo: int | None) -> np.ndarray:
        """Return milliseconds of the answers to one photo, or to all."""
        number, ms = self.took_ms.T
        return ms if photo is None else ms[number == photo]


def ask(url: str, clients: int, seconds: float, photos: list[Path]) -> Load:
    """Let clients ask in another process."""
    command = [sys.executable, ROOT / "benchmarks/http_load.py", url, "image", clients, seconds, *photos]
    outcome = json.loads(subprocess.run(map(str, command), check=True, capture_output=True, text=True).stdout)
    if set(outcome["statuses"]) != {"200"}:
        raise SystemExit(f"{url} did not answer every photo: {outcome['statuses']}")
    took = np.array(outcome["took_ms"])
    return Load(len(took) / outcome["wall_s"], took, outcome["cpu_s"], outcome["wall_s"])


def for_seconds(seconds: float) -> Callable[[], bool]:
    """Tell whether so many seconds have not passed since this call."""
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() < end


def latency(bare: Bare, server: Server, photos: list[Path], seconds: float, rounds: int) -> Table:
    """Measure one at a time, in turns."""
    data = [path.read_bytes() for path in photos]
    over_http, in_loop = [], []
    with server.running() as url:
        ask(url, 1, 1, photos)
        for _ in range(rounds):
            over_http.append(ask(url, 1, seconds, photos).took_ms)
            in_loop.append(timed(bare, data, seconds))
    every = [Load(0, np.concatenate(runs), 0, 0) for runs in (over_http, in_loop)]
    table = Table(title="one client: end to end over HTTP against the bare loop (goal: p50 ratio at most 1.15)")
    for column in ("photos", "service p50 ms", "loop p50 ms", "ratio", "ratio of each round"):
        table.add_column(column, justify="left" if column == "photos" else "right")
    large = len(photos) - 1
    for name, photo in (("all in turn", None), ("4000 x 2250", large)):
        service_ms, loop_ms = (float(np.median(load.of(photo))) for load in every)
        pairs = zip(over_http, in_loop, strict=True)
        each = [np.divide(*(np.median(Load(0, run, 0, 0).of(photo)) for run in pair)) for pair in pairs]
        ratios = " ".join(f"{ratio:.2f}" for ratio in each)
        table.add_row(name, f"{service_ms:.1f}", f"{loop_ms:.1f}", f"{service_ms / loop_ms:.2f}", ratios)
    return table


def timed(bare: Bare, photos: list[bytes], seconds: float) -> np.ndarray:
    """Return photo numbers and milliseconds of the bare loop."""
    took, go_on = [], for_seconds(seconds)
    for number in cycle(range(len(photos))):
        if not go_on():
            return np.array(took)
        started = time.perf_counter()
        bare.localize([photos[number]])
        took.append((number, (time.perf_counter() - started) * 1e3))
    raise AssertionError


def rate_of(loop: Loop, bare: Bare, photos: Iterator[bytes], seconds: float) -> float:
    """Return photos a second of a loop."""
    started = time.perf_counter()
    return loop.run(bare, photos, for_seconds(seconds)) / (time.perf_counter() - started)


def throughput(bare: Bare, server: Server, photos: list[Path], seconds: float, rounds: int) -> Table:
    """Measure many at a time, in turns."""
    data = cycle([path.read_bytes() for path in photos])
    trial = {loop: rate_of(loop, bare, data, seconds / 2) for loop in LOOPS}
    best = max(trial, key=lambda loop: trial[loop])
    console.print("loops, photos/s: " + "; ".join(f"{loop}: {rate:.1f}" for loop, rate in trial.items()))
    loads, loops = [], []
    with server.running() as url:
        ask(url, CLIENTS, 1, photos)
        for _ in range(rounds):
            loads.append(ask(url, CLIENTS, seconds, photos))
            loops.append(rate_of(best, bare, data, seconds))
    table = Table(title=f"{CLIENTS} clients: over HTTP against the best batched loop (goal: ratio at least 0.90)")
    for column in (
        "service photos/s",
        "loop photos/s",
        "ratio",
        "ratio of each round",
        "clients' CPU s of wall s",
        "loop",
    ):
        table.add_column(column, justify="right")
    each = [load.rate / rate for load, rate in zip(loads, loops, strict=True)]
    table.add_row(
        f"{np.median([load.rate for load in loads]):.1f}",
        f"{np.median(loops):.1f}",
        f"{np.median(each):.2f}",
        " ".join(f"{ratio:.2f}" for ratio in each),
        cpu(loads),
        str(best),
    )
    return table


def peers(servers: list[Server], photos: list[Path], seconds: float, rounds: int) -> Table:
    """Measure server after server, each alone on the machine, several times round."""
    loads: dict[str, list[Load]] = {server.name: [] for server in servers}
    for _ in range(rounds):
        for server in servers:
            with server.running() as url:
                ask(url, CLIENTS, 2, photos)
                loads[server.name].append(ask(url, CLIENTS, seconds, photos))
    title = f"{CLIENTS} clients: the same work behind other servers (goal: 1.2 of the better one, p99 not above its)"
    table = Table(title=title)
    for column in ("server", "photos/s", "p50 ms", "p99 ms", "aerofix / it", "clients' CPU s of wall s"):
        table.add_column(column, justify="left" if column == "server" else "right")
    rates = {name: float(np.median([load.rate for load in runs])) for name, runs in loads.items()}
    for name, runs in loads.items():
        p50, p99 = np.percentile(np.concatenate([load.of(None) for load in runs]), (50, 99))
        ratio = rates["aerofix"] / rates[name]
        table.add_row(name, f"{rates[name]:.1f}", f"{p50:.0f}", f"{p99:.0f}", f"{ratio:.2f}", cpu(runs))
    return table


def cpu(loads: list[Load]) -> str:
    """Tell what the clients themselves took."""
    return f"{sum(load.cpu_s for load in loads):.1f} of {sum(load.wall_s for load in loads):.1f}"


def has_peers(python: Path) -> bool:
    """Tell whether this Python has the servers that ours is compared with."""
    find = "from importlib.util import find_spec; raise SystemExit(None in map(find_spec, ('litserve', 'bentoml')))"
    return python.is_file() and subprocess.run([python, "-c", find]).returncode == 0


def versions(python: Path | None) -> str:
    """Name versions of what is compared, and of what does the work."""
    ours = [f"{name} {version(name)}" for name in ("aerofix", "onnxruntime", "faiss-cpu", "pillow", "uvicorn")]
    if python is None:
        return ", ".join(ours)
    code = 'from importlib.metadata import version as v; print(f\'litserve {v("litserve")}, bentoml {v("bentoml")}\')'
    theirs = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout
    return ", ".join(ours) + ", " + theirs.strip()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--model", type=Path, default=Settings().model)
    parser.add_argument("--peers-python", type=Path, default=PEERS_PYTHON, help="that has litserve and bentoml")
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=4)
    chosen = parser.parse_args()
    parts = chosen.parts or PARTS
    if not set(parts) <= set(PARTS):
        parser.error(f"parts are {', '.join(PARTS)}")
    python = (
        chosen.peers_python.absolute() if "peers" in parts else None
    )  # a link: resolved, it would lose its packages
    if python is not None and not has_peers(python):
        fix = "`make bench` installs them; or leave them out: benchmarks/serving.py latency throughput"
        parser.error(f"{python} has no litserve and bentoml; {fix}")
    console.print(f"{versions(python)}; {os.cpu_count()} CPUs, load before: {os.getloadavg()[0]:.1f}", highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        galleries, photos = prepare(Path(folder), chosen.model)
        server, bare = aerofix(galleries[0], chosen.model), None
        if set(parts) & {"latency", "throughput"}:
            bare = Bare(galleries[1], chosen.model)
        if "latency" in parts:
            console.print(latency(bare, server, photos, chosen.seconds, chosen.rounds))
        if "throughput" in parts:
            console.print(throughput(bare, server, photos, chosen.seconds, chosen.rounds))
        if python is not None:
            others = [
                make(python, galleries[2], chosen.model, threads)
                for make in (litserve, bentoml)
                for threads in (1, os.cpu_count() or 1)
            ]
            console.print(peers([server, *others], photos, chosen.seconds, max(1, chosen.rounds // 2)))


def prepare(folder: Path, model: Path) -> tuple[list[Path], list[Path]]:
    """Make galleries, one for each process that wants one, and the photos."""
    first = folder / "first.gallery"
    add = [sys.executable, "-m", "service.cli.main", "gallery", "add", ROOT / "examples/town.tif", "--gallery", first]
    subprocess.run([*map(str, add), "--model", str(model)], check=True, capture_output=True, cwd=ROOT)
    galleries = [first, *(Path(shutil.copy(first, folder / f"{name}.gallery")) for name in ("bare", "peer"))]
    photos = sorted((ROOT / "examples/photos").glob("*.jpg"))
    large = folder / "large.jpg"
    Image.open(photos[0]).resize(LARGE_PX, Image.Resampling.BICUBIC).save(large, quality=90)
    return galleries, [*photos, large]


if __name__ == "__main__":
    main()
