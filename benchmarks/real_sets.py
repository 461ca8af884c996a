"""The real photos and maps that ``real.py`` goes through: folders below one data folder, each left out when absent.

    python benchmarks/real_sets.py DATA [--every 6] > photos.csv

writes the table that ``aerofix-train calibrate --photos`` takes, with every n-th photo of places that no map shows.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PICTURES = {".jpg", ".jpeg", ".png"}
HINTS = ("none", "heading", "all")
WRONG = {
    "heading": "heading_deg",
    "compass": "heading_deg",
    "height": "altitude_m",
    "pitch": "pitch_deg",
    "lens": "hfov_deg",
}
"""Kinds of wrong hints, all others right, and the field that is wrong: half a turn off, a compass that says 0, feet for
metres, a pitch that is 45° off, and a field of view that is half as wide."""


@dataclass(frozen=True)
class Shot:
    """A photo, where its centre and its camera truly were (None: not told), and what is known of it.

    Attributes:
        hints: form fields by the kind of hints; all of them ignore EXIF unless they say otherwise.
    """

    path: Path
    centre: tuple[float, float] | None = None
    camera: tuple[float, float] | None = None
    hints: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class RealSet:
    """Photos of one flight or place; ``right_m`` is how far off a right position may be."""

    name: str
    right_m: float
    shots: list[Shot]


def maps_of(root: Path, scratch: Path) -> Iterator[tuple[str, Path, Path | None]]:
    """List name, file and corners' file of each map; corners that a data set writes its own way go to ``scratch``."""
    for name, folder in (
        ("ariel", "ariel"),
        ("fengyuan", "fengyuan"),
        ("traffic", "traffic"),
        ("traffic-2", "traffic"),
    ):
        stem = {"traffic": "207_map", "traffic-2": "207_map_2"}.get(name, "map")
        told = root / folder / f"{stem}.json"
        if told.exists():
            corners = scratch / f"{name}.json"
            corners.write_text(json.dumps({"corners": _corners(json.loads(told.read_text()))}))
            yield name, told.with_suffix(".jpg"), corners
    table = root / "wildnav" / "map.csv"
    if table.exists():
        yield "wildnav", table, None


def sets_of(root: Path) -> Iterator[RealSet]:
    """Return every set whose folder is there; the last one is of places that no map shows."""
    if (root / "ariel").exists():
        rows = [row for row in _rows(root / "ariel/meta.csv") if row["reg_ok"] == "1"]
        for flight in ("v17", "v19"):
            yield RealSet(f"ariel-{flight}", 50.0, [ariel_shot(root, row) for row in rows if row["flight"] == flight])
    if (root / "fengyuan").exists():
        rows = [row for row in _rows(root / "fengyuan/meta.csv") if row["reg_ok"] == "1"]
        yield RealSet("fengyuan", 43.0, [_fengyuan(root, row) for row in rows])
    if (root / "traffic").exists():
        row = _rows(root / "traffic/meta.csv")[0]
        centre = float(row["center_lat"]), float(row["center_lon"])
        yield RealSet("traffic", 43.0, [Shot(root / "traffic/photos/207.jpg", centre, None, {"none": {}, "all": {}})])
    yield RealSet(
        "strangers", 0.0, [Shot(path, hints={"none": {}, "all": {"use_exif": "true"}}) for path in _strangers(root)]
    )


def wrong(known: dict[str, str], *, heading_deg: str, altitude_m: str, hfov_deg: str) -> dict[str, dict[str, str]]:
    """Return all hints with one that is wrong, by its kind (``WRONG``); the pitch is the caller's."""
    half = math.degrees(2 * math.atan(math.tan(math.radians(float(hfov_deg)) / 2) / 2))
    return {
        "wrong-heading": known | {"heading_deg": f"{(float(heading_deg) + 180) % 360:.1f}"},
        "wrong-compass": known | {"heading_deg": "0"},
        "wrong-height": known | {"altitude_m": f"{3.28 * float(altitude_m):.1f}"},
        "wrong-lens": known | {"hfov_deg": f"{half:.1f}"},
    }


def ariel_shot(root: Path, row: dict[str, str]) -> Shot:
    """Return a frame of the Ariel flights, from its row of ``meta.csv``."""
    heading = {"heading_deg": row["reg_heading_deg"] or "0"}  # flight.py leaves out one that is unknown
    known = heading | {"altitude_m": row["rel_alt_m"], "pitch_deg": row["pitch_deg"], "hfov_deg": row["hfov_deg"]}
    hints = {"none": {}, "heading": heading, "all": known, "all-67": known | {"hfov_deg": "67"}}
    hints |= wrong(known, **heading, altitude_m=row["rel_alt_m"], hfov_deg=row["hfov_deg"])
    hints["wrong-pitch"] = known | {"pitch_deg": "-90"}
    centre = (float(row["reg_center_lat"]), float(row["reg_center_lon"])) if row["reg_ok"] == "1" else None
    return Shot(root / "ariel" / row["file"], centre, (float(row["drone_lat"]), float(row["drone_lon"])), hints)


def _fengyuan(root: Path, row: dict[str, str]) -> Shot:
    exif = {"use_exif": "true"}
    hints = {"none": {}, "heading": {"heading_deg": row["flight_yaw_deg"]}, "all": exif}
    hints |= wrong(exif, heading_deg=row["flight_yaw_deg"], altitude_m=row["rel_alt_m"], hfov_deg="71.6")
    hints["wrong-pitch"] = exif | {"pitch_deg": "-45"}
    centre = float(row["reg_center_lat"]), float(row["reg_center_lon"])
    return Shot(root / "fengyuan" / row["file"], centre, (float(row["lat"]), float(row["lon"])), hints)


def _strangers(root: Path) -> list[Path]:
    folders = (root / "drone_photos", root / "ortholoc/drone", root / "dnipro/photos")
    found = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix.lower() in PICTURES]
    return found + [path for path in sorted((root / "traffic/photos").glob("*.jpg")) if path.stem != "207"]


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open() as file:
        return list(csv.DictReader(file))


def _corners(told: dict[str, dict[str, float] | dict[str, list[float]]]) -> list[list[float]]:
    """``[lat, lon]`` clockwise from the top left."""
    if "corners_lonlat" in told:
        return [[told["corners_lonlat"][name][1], told["corners_lonlat"][name][0]] for name in ("TL", "TR", "BR", "BL")]  # type: ignore[index]
    west, south, east, north = (float(told["bounds"][name]) for name in ("west", "south", "east", "north"))  # type: ignore[arg-type]
    return [[north, west], [north, east], [south, east], [south, west]]


def main() -> None:
    """Write where each photo's centre was."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--every", type=int, default=6)
    options = parser.parse_args()
    rows = csv.writer(sys.stdout)
    rows.writerow(("file", "lat", "lon"))
    for each in sets_of(options.data.resolve()):
        for shot in each.shots[:: 1 if each.right_m else options.every]:
            rows.writerow((shot.path, *(shot.centre or ("", ""))))


if __name__ == "__main__":
    main()
