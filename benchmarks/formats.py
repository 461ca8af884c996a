"""The demo map in every form that maps come in, imported over the command line and over HTTP: what is found in it?

    python benchmarks/formats.py [FORM …]

Each form is imported as a user does it. Command line: ``aerofix map add`` on a new gallery file, ``aerofix localize``
for the six demo photos. HTTP: a POST to a running ``aerofix serve`` (of a zip, where a form consists of several files),
and a POST for each photo. The last column says whether both made the same map: windows, levels, bounds and warnings.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from _forms import forms, truths, zipped
from servers import aerofix

from service.geo import haversine_m
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
PHOTOS = sorted((EXAMPLES / "photos").glob("*.jpg"))
REACH_M = 15.0
"""An answer further from the truth than an eighth of what a photo shows is another place."""

COMPARED = ("windows", "levels", "bounds", "gsd_m", "minzoom", "maxzoom")

Result = tuple[list[dict[str, Any]], dict[str, Any]]
"""The answers for the photos, and what became of the map."""


def main() -> None:
    """Print one row a form."""
    known = forms()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("form", nargs="*", default=list(known), help="its name in the table; default: all")
    chosen = parser.parse_args().form
    if unknown := set(chosen) - set(known):
        parser.error(f"no such form: {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    row("form", ("command line", "found", "m"), ("HTTP", "found", "m"), "same map")
    with tempfile.TemporaryDirectory() as folder:
        server = aerofix(Path(folder) / "http.gallery", Settings().model, {"AEROFIX_DEADLINE_S": "60"})
        with server.running() as url, httpx.Client(base_url=url.removesuffix("/localize"), timeout=120) as http:
            for number, name in enumerate(chosen):
                out = Path(folder) / str(number) / "map"
                out.mkdir(parents=True)
                source = known[name](EXAMPLES / "town.tif", out)
                options = {"scheme": "tms"} if "scheme=tms" in name else {}
                by_hand, over_http = command_line(source, out, options), by_post(http, source, options)
                row(name, counted(by_hand), counted(over_http), difference(by_hand[1], over_http[1]))


def command_line(source: Path, folder: Path, options: dict[str, str]) -> Result:
    """Import and localize with ``aerofix`` on a gallery file."""
    where = ["--gallery", str(folder.parent / "cli.gallery")]
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    added = run("map", "add", str(source), *words, *where)
    if added.returncode:
        return [], {"error": _last_line(added.stderr).removeprefix("error: ")}
    told = [line.removeprefix("warning: ") for line in added.stderr.splitlines() if line.startswith("warning: ")]
    described = json.loads(run("map", "list", "--json", *where).stdout)
    lines = map(json.loads, run("localize", *map(str, PHOTOS), "--json", *where).stdout.splitlines())
    answers = {Path(answer["file"]).name: answer for answer in lines}
    return [answers[photo.name] for photo in PHOTOS], described | {"warnings": told}


def by_post(http: httpx.Client, source: Path, options: dict[str, str]) -> Result:
    """Import and localize over HTTP; the map is deleted afterwards."""
    single = source.is_file() and len(list(source.parent.iterdir())) == 1
    file = source if single or source.suffix == ".zip" else zipped(source)
    with file.open("rb") as data:
        reply = http.post("/gallery/imports", files={"file": (file.name, data)}, data=options)
    if reply.is_error:
        return [], {"error": reply.json()["detail"]}
    while (state := http.get(reply.headers["location"]).json())["state"] in ("queued", "running"):
        time.sleep(0.5)
    if state["state"] != "done":
        return [], {"error": state["problem"]["detail"]}
    described = http.get(f"/maps/{state['map']}").json()
    answers = [http.post("/localize", files={"image": (p.name, p.read_bytes())}).json() for p in PHOTOS]
    http.delete(f"/maps/{state['map']}").raise_for_status()
    return answers, described | {"warnings": state["warnings"]}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run ``aerofix``."""
    command = [sys.executable, "-m", "service.cli.main", *words]
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "1000", "AEROFIX_DEADLINE_S": "60"}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def counted(result: Result) -> tuple[str, str, str]:
    """Tell what the photos' answers are worth: how they went, photos found, and their median error in metres."""
    answers, described = result
    if "error" in described:
        return described["error"], "0", "-"
    errors_m = []
    for photo, answer in zip(PHOTOS, answers, strict=True):
        place, true = answer.get("position"), truths(EXAMPLES)[photo.name]
        errors_m.append(float(haversine_m(place["lat"], place["lon"], *true)) if place else np.inf)
    found = [error_m for error_m in errors_m if error_m <= REACH_M]
    located = sum(answer["status"] == "located" for answer in answers)
    return f"{located} located", f"{len(found)} of {len(PHOTOS)}", f"{np.median(found):.2f}" if found else "-"


def difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Tell what two ways disagree on."""
    if "error" in one or "error" in other:
        return "yes" if one == other else "not the same error"
    kept = [name for name in COMPARED if one[name] != other[name]]
    kept += ["warnings"] if sorted(one["warnings"]) != sorted(other["warnings"]) else []
    return "no: " + ", ".join(kept) if kept else "yes"


def row(name: str, first: Sequence[str], second: Sequence[str], same: str) -> None:
    """Print a row."""
    cells = [f"{name:<32}", *(f"{a:>13} {b:>7} {c:>5}" for a, b, c in (first, second)), same]
    print("  ".join(cells), flush=True)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


if __name__ == "__main__":
    main()
