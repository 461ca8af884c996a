"""What a photo's looks cost, and what another version of aerofix takes for the same photos in the same run.

    python benchmarks/first_look.py [--against DIR] [--rounds 12] [--photos FILE …] [--gallery FILE]

The demo area's photos are sent one at a time to ``POST /localize`` of a running service, and as many pictures of towns
that are on no map: on those every look is spent, and most where there are hints that can be left out. They are asked
with every effort, in turns, so that all see the same machine. ``--against`` names a checkout of another version, for
which the demo area is imported by its own code; its service runs beside this one and is asked the same photos between.

Tables: milliseconds of each step (medians of what the service itself notes), how many looks the photos were given, and
the ratio of the other version's time for photos that one look answers, whose goal is 1.1; for ``thorough`` with all
looks, it is 6.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from rich.console import Console
from rich.table import Table
from servers import ROOT, aerofix

sys.path.insert(0, str(ROOT / "examples"))
from town.town import make_town

HERE, AWAY = "of the map", "of no map"
TOWNS, SHOWN_M, PHOTO_PX = 900, 140.0, (1280, 960)  # first seed, ground that a photo's width shows, and its pixels
HINTS = {"heading_deg": "10", "pitch_deg": "-90", "altitude_m": "100", "hfov_deg": "70"}
ASKED: dict[str, dict[str, str]] = {
    "fast": {"effort": "fast"},
    "normal": {},
    "thorough": {"effort": "thorough"},
    "thorough, hints": {"effort": "thorough"} | HINTS,
}
STEPS = ("decode", "queue", "encode", "search", "rerank", "refine", "total")
DEADLINE_S = "60"
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Asked:
    """One answer: how long it took the client, the service's own steps, and how many looks it was given."""

    client_ms: float
    steps_ms: dict[str, float]
    looks: int


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="checkout of another version")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--photos", type=Path, nargs="+", help="others than the demo area's; with --gallery")
    parser.add_argument("--gallery", type=Path, help="another gallery than the demo area's, for this version alone")
    options = parser.parse_args()
    photos = {path.stem: path.read_bytes() for path in options.photos or sorted((ROOT / "examples/photos").glob("*"))}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        gallery = options.gallery or imported(ROOT, Path(folder) / "this.gallery")
        client = stack.enter_context(httpx.Client(timeout=TIMEOUT_S))
        ours, theirs = stack.enter_context(served(ROOT, gallery)), None
        if options.against is not None:
            other = options.against.resolve()
            theirs = stack.enter_context(served(other, imported(other, Path(folder) / "other.gallery")))
        answers = measure(client, ours, theirs, photos, options.rounds)
    report(answers)


def imported(version: Path, gallery: Path) -> Path:
    """Import the demo area by a version's own code with default options."""
    command = ["-m", "service.cli.main", "gallery", "add", str(ROOT / "examples/town.tif"), "--gallery", str(gallery)]
    env = os.environ | {"PYTHONPATH": str(version)}
    subprocess.run([sys.executable, *command], cwd=version, env=env, check=True, capture_output=True)
    return gallery


def served(version: Path, gallery: Path) -> Any:
    """Start a version's service as a user does."""
    server = aerofix(gallery, version / "models/aerofix-lite2.onnx", {"AEROFIX_DEADLINE_S": DEADLINE_S})
    return replace(server, cwd=version, env=server.env | {"PYTHONPATH": str(version)}).running()


def measure(
    client: httpx.Client, ours: str, theirs: str | None, photos: dict[str, bytes], rounds: int
) -> dict[tuple[str, str], list[Asked]]:
    """Collect answers by kind of photo, and by effort or ``other``; the first round is not counted."""
    kinds = {HERE: photos, AWAY: elsewhere(len(photos))}
    answers = defaultdict[tuple[str, str], list[Asked]](list)
    for number in range(rounds + 1):
        for kind, files in kinds.items():
            for data in files.values():
                asked = {name: ask(client, ours, data, form) for name, form in ASKED.items()}
                if theirs is not None:
                    asked["other"] = ask(client, theirs, data, {})
                for name, answer in asked.items():
                    if number:
                        answers[kind, name].append(answer)
    return answers


def ask(client: httpx.Client, url: str, data: bytes, form: dict[str, str]) -> Asked:
    """Return one photo's answer."""
    started = time.perf_counter()
    told = client.post(url, files={"image": ("photo.jpg", data)}, data=form).raise_for_status().json()
    took_ms = (time.perf_counter() - started) * 1e3
    return Asked(took_ms, told["timing_ms"], told["query"].get("looks", 1))


def elsewhere(count: int) -> dict[str, bytes]:
    """Make photos of towns that are on no map, without metadata."""
    photos = {}
    for seed in range(TOWNS, TOWNS + count):
        town = Image.fromarray(make_town(seed, SHOWN_M, SHOWN_M / PHOTO_PX[0]).rgb)
        out = BytesIO()
        town.crop((0, 0, *PHOTO_PX)).save(out, "JPEG", quality=90)
        photos[f"town {seed}"] = out.getvalue()
    return photos


def report(answers: dict[tuple[str, str], list[Asked]]) -> None:
    """Print the tables."""
    table = Table(title="milliseconds of a photo, medians; one client")
    for column in ("photos", "asked", *STEPS, "at the client", "looks: photos"):
        table.add_column(column)
    for (kind, name), asked in answers.items():
        steps = [statistics.median(each.steps_ms.get(step, 0.0) for each in asked) for step in STEPS]
        looks = Counter(each.looks for each in asked)
        counted = ", ".join(f"{count}: {100 * looks[count] / len(asked):.0f} %" for count in sorted(looks))
        client_ms = statistics.median(each.client_ms for each in asked)
        table.add_row(kind, name, *(f"{ms:.1f}" for ms in steps), f"{client_ms:.1f}", counted)
    console = Console(width=150)
    console.print(table)

    def median_ms(kind: str, name: str, looks: int = 0) -> float:
        return statistics.median(each.client_ms for each in answers[kind, name] if each.looks >= looks)

    one = statistics.median(each.client_ms for each in answers[HERE, "normal"] if each.looks == 1)
    most = {name: max(each.looks for each in answers[AWAY, name]) for name in ("thorough", "thorough, hints")}
    spent = {name: median_ms(AWAY, name, looks) for name, looks in most.items()}
    for name, looks in most.items():
        console.print(f"{name}, {looks} looks, over a photo that its first look answers: {spent[name] / one:.2f}")
    if (HERE, "other") in answers:
        other = median_ms(HERE, "other")
        console.print(f"a photo that its first look answers over the other version: {one / other:.2f} (goal: 1.1)")
        for name, looks in most.items():
            console.print(f"{name}, {looks} looks, over the other version: {spent[name] / other:.2f} (goal: 6)")


if __name__ == "__main__":
    main()
