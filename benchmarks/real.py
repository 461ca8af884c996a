"""Accuracy on real photos over real maps of other dates, through the running service.

    python benchmarks/real.py --all DATA [--sets ariel-v17 …] [--hints none heading all wrong] [--out real.json]

Every map in DATA is imported with default options into one gallery, so that each is a distractor for the others, and
every photo is sent to ``POST /localize``: without hints and EXIF, with its heading alone, and with all that is known;
with ``--hints wrong`` also with all that is known and one hint wrong (``real_sets.WRONG``).
One table has a row for each set and kind of hints. Errors are measured to the first candidate, whatever the status
says; "camera" is the error of the camera's place against the drone's own GPS. Sets take minutes each: what is done is
kept in ``--out``, and done again only for another model. ``--gallery`` keeps the imported maps for the next time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from real_sets import HINTS, WRONG, RealSet, Shot, maps_of, sets_of
from rich.console import Console
from rich.table import Table
from servers import aerofix

sys.path.insert(0, str(Path(__file__).parents[1]))
from service.geo import haversine_m

SHIPPED = Path(__file__).parents[1] / "models" / "aerofix-lite2.onnx"
TIMEOUT_S = 60.0


def main() -> None:
    """Ask what was not asked yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", type=Path, required=True, metavar="DATA", help="folder with the sets")
    parser.add_argument("--sets", nargs="*", help="only these")
    parser.add_argument("--hints", nargs="*", default=list(HINTS), help="wrong stands for all wrong-…")
    parser.add_argument("--effort", default="normal")
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--gallery", type=Path, help="keep the imported maps in this file")
    parser.add_argument("--out", type=Path, help="keep the answers in this file, and ask only what it lacks")
    parser.add_argument(
        "--every", type=int, default=1, help="with wrong hints, and of strangers, take every n-th photo"
    )
    options = parser.parse_args()
    options.hints = [
        kind for each in options.hints for kind in ([f"wrong-{name}" for name in WRONG] if each == "wrong" else [each])
    ]
    done: dict[str, list[dict[str, Any]]] = {}
    if options.out is not None and options.out.exists():
        done = json.loads(options.out.read_text())
    sets = [each for each in sets_of(options.all) if not options.sets or each.name in options.sets]
    with tempfile.TemporaryDirectory() as folder:
        gallery = options.gallery or Path(folder) / "real.gallery"
        if not gallery.exists():
            add_maps(options.all, gallery, options.model, Path(folder))
        settings = {"AEROFIX_DEADLINE_S": str(TIMEOUT_S)}
        with aerofix(gallery, options.model, settings).running() as url, httpx.Client(timeout=TIMEOUT_S) as client:
            for each in sets:
                for kind in options.hints:
                    few = each.name == "strangers" or kind.startswith("wrong-")
                    shots = each.shots[:: options.every] if few else each.shots
                    key = f"{each.name} / {kind}"
                    if key not in done and any(kind in shot.hints for shot in shots):
                        done[key] = [ask(client, url, shot, kind, options.effort) for shot in shots]
                        if options.out is not None:
                            options.out.write_text(json.dumps(done))
    print_table(sets, options.hints, done)


def add_maps(root: Path, gallery: Path, model: Path, scratch: Path) -> None:
    """Import every map with default options."""
    for name, path, corners in maps_of(root, scratch):
        command = [sys.executable, "-m", "service.cli.main", "gallery", "add", path, "--map", name]
        command += ["--gallery", gallery, "--model", model, *(["--corners", corners] if corners else [])]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[1])


def ask(client: httpx.Client, url: str, shot: Shot, kind: str, effort: str) -> dict[str, Any]:
    """Return one photo's answer, and how far off it is."""
    form = {"use_exif": "false", "effort": effort} | shot.hints.get(kind, {})
    answer = client.post(url, files={"image": (shot.path.name, shot.path.read_bytes())}, data=form)
    answer.raise_for_status()
    told = answer.json()
    first = told["candidates"][0] if told["candidates"] else None
    position, camera = told["position"], told["camera"]
    return {
        "file": shot.path.name,
        "status": told["status"],
        "confidence": None if first is None else first["confidence"],
        "error_m": None if first is None or shot.centre is None else off_m(first, shot.centre),
        "accuracy_m": None if position is None else position["accuracy_m"],
        "camera_error_m": None if camera is None or shot.camera is None else off_m(camera, shot.camera),
        "camera_accuracy_m": None if camera is None else camera["accuracy_m"],
        "camera": camera,
        "disputed": told["query"]["disputed"],
        "looks": told["query"]["looks"],
        "inliers": None if first is None else first["inliers"],
        "score": None if first is None else first["score"],
        "supports": [each["support"] for each in told["candidates"]],
        "map": None if first is None else first["tile_id"].rsplit("/", 3)[0],
        "total_ms": told["timing_ms"]["total"],
    }


def off_m(place: dict[str, float], truth: tuple[float, float]) -> float:
    """Return metres between a place of an answer and the truth."""
    return float(haversine_m(*truth, place["lat"], place["lon"]))


def print_table(sets: Sequence[RealSet], hints: Sequence[str], done: dict[str, list[dict[str, Any]]]) -> None:
    """Print one row for each set and kind of hints."""
    table = Table(title="real photos (right: see real_sets.py; located of those right; right of those located)")
    columns = ("set", "hints", "photos", "right", "< 10 m", "median", "located", "right of located", "in accuracy_m")
    for column in (*columns, "camera median, in accuracy_m", "disputed", "looks", "p50"):
        table.add_column(column)
    for each in sets:
        for kind in hints:
            answers = done.get(f"{each.name} / {kind}")
            if answers:
                table.add_row(each.name, kind, str(len(answers)), *cells(each, kind, answers))
    Console(width=170).print(table)


def cells(each: RealSet, kind: str, answers: list[dict[str, Any]]) -> list[str]:
    """Return a row's numbers; disputed: of the located, which dispute the wrong hint, or any if none is wrong."""
    looks = looks_of(answers)
    p50 = f"{statistics.median(answer['total_ms'] for answer in answers):.0f} ms"
    located = [answer for answer in answers if answer["status"] == "located"]
    field = WRONG.get(kind.removeprefix("wrong-")) if kind.startswith("wrong-") else None
    if each.right_m == 0:
        return ["-", "-", "-", share([answer in located for answer in answers]), "-", "-", "-", "-", looks, p50]
    errors = [answer["error_m"] if answer["error_m"] is not None else float("inf") for answer in answers]
    right = [answer for answer, error in zip(answers, errors, strict=True) if error < each.right_m]
    cameras = [answer for answer in right if answer["camera_error_m"] is not None]
    camera = "-"
    if cameras:
        median = statistics.median(answer["camera_error_m"] for answer in cameras)
        inside = share([answer["camera_error_m"] < answer["camera_accuracy_m"] for answer in cameras])
        camera = f"{median:.1f} m, {inside}"
    return [
        share([error < each.right_m for error in errors]),
        share([error < 10 for error in errors]),
        f"{statistics.median(errors):.1f} m",
        share([answer in located for answer in right]),
        share([answer["error_m"] < each.right_m for answer in located]),
        share([answer["error_m"] < answer["accuracy_m"] for answer in located]),
        camera,
        share([field in answer["disputed"] if field else bool(answer["disputed"]) for answer in located]),
        looks,
        p50,
    ]


def looks_of(answers: list[dict[str, Any]]) -> str:
    """Tell how many photos needed how many looks, as ``1 x 18, 3 x 2``."""
    counts = Counter(answer["looks"] for answer in answers)
    return ", ".join(f"{looks} x {count}" for looks, count in sorted(counts.items()))


def share(hits: list[bool]) -> str:
    """Write ``0.83 (25/30)``, or a dash for none."""
    return f"{sum(hits) / len(hits):.2f} ({sum(hits)}/{len(hits)})" if hits else "-"


if __name__ == "__main__":
    main()
