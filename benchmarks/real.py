"""Accuracy on real drone photos over a real map, through the commands that a user would type.

    python benchmarks/real.py --data FOLDER [--heading] [--other FOLDER …] [--distractors FOLDER …]

FOLDER holds ``map.jpg`` (or a GeoTIFF ``map.tif``), ``map.json`` with its corners, and ``meta.csv`` with the columns
``file, reg_ok, reg_center_lat, reg_center_lon, flight_yaw_deg``: the registered ground point at each photo's centre.
Each model adds the map with ``aerofix gallery add`` (86 m tiles, half overlapping) and localizes the photos with
``aerofix localize --no-exif``. The untrained ImageNet backbone runs beside the shipped model as the floor. Photos of
other places (``--other``) must not be called located. ``--distractors`` adds every picture of these folders to the
gallery, cut into tiles as if it had 0.3 m/px and lay in the ocean. Position errors are measured to the first candidate,
whatever the status says. AUROC: how well confidence tells photos whose place was found from those of other places.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import _needs  # noqa: F401 - before the others
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from survey import RIGHT_WITHIN_M, TILE_SIDE_M, Photo, map_of, read_photos

sys.path.insert(0, str(Path(__file__).parents[1]))
from service.geo import haversine_m
from training.config import Config, ModelConfig
from training.export.calibrate import untrained_calibration
from training.export.onnx_file import write_onnx
from training.models.encoder import Encoder

AEROFIX = Path(sys.executable).with_name("aerofix")
SHIPPED = Path(__file__).parents[1] / "models" / "aerofix-lite2.onnx"
OCEAN_GSD_M = 0.3
PICTURES = {".jpg", ".jpeg", ".png"}


def main() -> None:
    """Print one row for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with map.jpg, map.json, meta.csv and photos")
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--other", type=Path, nargs="*", default=[], help="folders with photos of other places")
    parser.add_argument("--distractors", type=Path, nargs="*", default=[], help="folders with other aerial pictures")
    parser.add_argument("--heading", action="store_true", help="give the flight yaw of meta.csv as heading")
    options = parser.parse_args()
    photos = read_photos(options.data)
    others = [p for folder in options.other for p in sorted(folder.rglob("*")) if p.suffix.lower() in PICTURES]
    map_path = map_of(options.data)

    table = Table(title=f"{len(photos)} photos of {options.data.name}, {len(others)} of other places")
    columns = ("model", "< 43 m", "< 25 m", "median", "located", "right of these", "within accuracy_m", "p50")
    for column in (*columns, "others located", "AUROC"):
        table.add_column(column)
    with tempfile.TemporaryDirectory() as folder:
        floor = Path(folder) / "untrained.onnx"
        settings = ModelConfig(embedding_dim=None, frozen_stages=0)
        write_onnx(Encoder(settings), Config(name="untrained", model=settings), floor, untrained_calibration())
        ocean = [write_ocean(options.distractors, Path(folder) / "ocean")] if options.distractors else []
        for model in (floor, options.model):
            gallery = Path(folder) / f"{model.stem}.gallery"
            aerofix("gallery", "add", map_path, *ocean, "--gallery", gallery, "--model", model)
            if options.heading:  # the command line takes one heading for all its photos
                answers = [answer for p in photos for answer in locate(gallery, model, [p], p.heading_deg)]
            else:
                answers = locate(gallery, model, photos)
            strangers = locate(gallery, model, [Photo(p, (0, 0), 0) for p in others]) if others else []
            others_located = share([a["status"] == "located" for a in strangers])
            table.add_row(model.stem, *summary(photos, answers), others_located, auroc(photos, answers, strangers))
    Console(width=160).print(table)


def locate(gallery: Path, model: Path, photos: list[Photo], heading_deg: float | None = None) -> list[dict[str, Any]]:
    """``aerofix localize`` for photos, without their EXIF."""
    heading = [] if heading_deg is None else ["--heading", str(heading_deg % 360)]
    paths = [photo.path for photo in photos]
    text = aerofix("localize", *paths, "--json", "--no-exif", *heading, "--gallery", gallery, "--model", model)
    answers = json.loads(text)
    return answers if isinstance(answers, list) else [answers]


def aerofix(*arguments: object) -> str:
    """Run the command line; an exit code other than 0 (located) and 3 (not located) is an error."""
    done = subprocess.run([AEROFIX, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    if done.returncode not in {0, 3}:
        sys.exit(f"aerofix {arguments[0]} failed with exit code {done.returncode}")
    return done.stdout


def write_ocean(folders: list[Path], out: Path) -> Path:
    """Cut pictures into half-overlapping tiles, scatter them over the ocean; returns their CSV."""
    out.mkdir()
    side, rows = round(TILE_SIDE_M / OCEAN_GSD_M), ["file,lat,lon,gsd_m"]
    for path in (p for folder in folders for p in sorted(folder.rglob("*")) if p.suffix.lower() in PICTURES):
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        corners = ((x, y) for y in range(0, picture.height, side // 2) for x in range(0, picture.width, side // 2))
        for x, y in corners:
            if x + side <= picture.width and y + side <= picture.height:
                name, i = f"ocean{len(rows)}.jpg", len(rows)
                picture.crop((x, y, x + side, y + side)).save(out / name, quality=95)
                rows.append(f"{name},{-40 + i % 100 * 0.01:.4f},{-120 + i // 100 * 0.01:.4f},{OCEAN_GSD_M}")
    (out / "ocean.csv").write_text("\n".join(rows))
    return out / "ocean.csv"


def auroc(photos: list[Photo], answers: list[dict[str, Any]], strangers: list[dict[str, Any]]) -> str:
    """Share of pairs of a found photo and a stranger in which the former has the higher confidence."""
    inside = [a["candidates"][0] for a in answers]
    found = [c["confidence"] for p, c in zip(photos, inside, strict=True) if error_m(p, c) < RIGHT_WITHIN_M]
    other = [a["candidates"][0]["confidence"] for a in strangers]
    if not found or not other:
        return "-"
    above = np.subtract.outer(found, other)
    return f"{((above > 0).mean() + (above == 0).mean() / 2):.3f}"


def error_m(photo: Photo, candidate: dict[str, Any]) -> float:
    """Metres from the true centre to the candidate's position."""
    return float(haversine_m(*photo.truth, candidate["lat"], candidate["lon"]))


def summary(photos: list[Photo], answers: list[dict[str, Any]]) -> list[str]:
    """The cells of one row."""
    best = [answer["candidates"][0] for answer in answers]
    errors = [error_m(photo, candidate) for photo, candidate in zip(photos, best, strict=True)]
    located = [
        (error, answer["position"]["accuracy_m"])
        for error, answer in zip(errors, answers, strict=True)
        if answer["status"] == "located"
    ]
    return [
        share([e < RIGHT_WITHIN_M for e in errors]),
        share([e < 25 for e in errors]),
        f"{statistics.median(errors):.1f} m",
        share([a["status"] == "located" for a in answers]),
        share([e < RIGHT_WITHIN_M for e, _ in located]),
        share([e < radius for e, radius in located]),
        f"{statistics.median(answer['timing_ms']['total'] for answer in answers):.0f} ms",
    ]


def share(hits: list[bool]) -> str:
    """``0.83 (25/30)``, or a dash for none."""
    return f"{sum(hits) / len(hits):.2f} ({sum(hits)}/{len(hits)})" if hits else "-"


if __name__ == "__main__":
    main()
