"""A real flight, followed photo by photo through the running service.

    python benchmarks/flight.py DATA [--flight v17] [--hints all] [--gallery FILE] [--out flight.json]

The photos of a flight in DATA/ariel go to ``POST /tracks/{id}/localize`` in their order with their times, from a start
without prior, over a gallery that holds every map of DATA (as in ``real.py``, which makes the file that ``--gallery``
names). Hints are those of ``real.py``: with ``all`` the field of view is the maker's nominal one, which is not the
video's. Printed is, after each photo, how far the track's position is from the drone's own GPS, and how far the single
photo's camera is; then the same of the history, where later photos tell of those that left it open, and what the flight
says of its lens.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import httpx
from real import SHIPPED, TIMEOUT_S, add_maps, off_m
from real_sets import Shot, ariel_shot
from rich.console import Console
from rich.table import Table
from servers import aerofix


def main() -> None:
    """Fly, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--flight", default="v17", help="v17 (120 m) or v19 (50 m, high buildings)")
    parser.add_argument("--hints", default="all", help="none, heading, all or all-67")
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--gallery", type=Path, help="keep the imported maps in this file")
    parser.add_argument("--out", type=Path, help="keep the answers in this file")
    options = parser.parse_args()
    with (options.data / "ariel/meta.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["flight"] == options.flight]
    with tempfile.TemporaryDirectory() as folder:
        gallery = options.gallery or Path(folder) / "real.gallery"
        if not gallery.exists():
            add_maps(options.data, gallery, options.model, Path(folder))
        settings = {"AEROFIX_DEADLINE_S": str(TIMEOUT_S)}
        with aerofix(gallery, options.model, settings).running() as url, httpx.Client(timeout=TIMEOUT_S) as client:
            answers, history = follow(client, url.removesuffix("/localize"), options, rows)
    if options.out is not None:
        options.out.write_text(json.dumps({"answers": answers, "history": history}))
    report(rows, answers, options)
    look_back(rows, history)


def follow(
    client: httpx.Client, base: str, options: argparse.Namespace, rows: list[dict[str, str]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the answers to the photos of one track, and its history after the last."""
    track = base + client.post(f"{base}/tracks").raise_for_status().headers["location"]
    answers = []
    for row in rows:
        shot: Shot = ariel_shot(options.data, row)
        form = {"use_exif": "false", "timestamp": row["t_s"]} | shot.hints[options.hints]
        if row["reg_ok"] != "1":
            form.pop("heading_deg", None)
        files = {"image": (shot.path.name, shot.path.read_bytes())}
        answers.append(client.post(f"{track}/localize", files=files, data=form).raise_for_status().json())
    return answers, client.get(f"{track}/history").raise_for_status().json()["entries"]


def report(rows: list[dict[str, str]], answers: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print the table."""
    table = Table(title=f"flight {options.flight}, hints: {options.hints}")
    for column in ("photo", "alone", "use", "camera alone", "track", "accuracy_m", "of", "field of view"):
        table.add_column(column)
    errors, alone, inside = [], [], []
    for row, answer in zip(rows, answers, strict=True):
        truth = float(row["drone_lat"]), float(row["drone_lon"])
        position, camera, lens = answer["position"], answer["photo"]["camera"], answer["lens"]
        errors.append(math.inf if position is None else off_m(position, truth))
        alone.append(math.inf if camera is None else off_m(camera, truth))
        if position is not None:
            inside.append(errors[-1] < position["accuracy_m"])
        table.add_row(
            Path(row["file"]).stem,
            answer["photo"]["status"],
            answer["use"],
            f"{alone[-1]:.1f} m",
            f"{errors[-1]:.1f} m",
            "-" if position is None else f"{position['accuracy_m']:.1f} m",
            "-" if position is None else position["reference"].split(",")[0],
            "-" if lens is None else f"{lens['hfov_deg']:.1f} ± {lens['sigma_deg']:.1f}°",
        )
    console = Console(width=130)
    console.print(table)
    has = [error for error in errors if math.isfinite(error)]
    console.print(f"a position after {len(has)} of {len(rows)} photos; median of all {statistics.median(errors):.1f} m")
    console.print(f"camera of the single photos, median: {statistics.median(alone):.1f} m")
    if has:
        console.print(f"worst with a position: {max(has):.1f} m; inside accuracy_m: {statistics.mean(inside):.2f}")
    if answers[-1]["lens"] is not None:
        console.print(answers[-1]["lens"]["text"])


def look_back(rows: list[dict[str, str]], history: list[dict[str, Any]]) -> None:
    """Print what the history says after the last photo."""
    known = [(row, entry) for row, entry in zip(rows, history, strict=True) if entry["position"] is not None]
    errors = [off_m(entry["position"], (float(row["drone_lat"]), float(row["drone_lon"]))) for row, entry in known]
    inside = [error < entry["position"]["accuracy_m"] for error, (_, entry) in zip(errors, known, strict=True)]
    print(
        f"in the history: a position at {len(known)} of {len(rows)} photos, {sum(e['hindsight'] for e in history)} of "
        f"them in hindsight; median {statistics.median(errors):.1f} m, worst {max(errors):.1f} m, inside accuracy_m "
        f"{statistics.mean(inside):.2f}"
    )


if __name__ == "__main__":
    main()
