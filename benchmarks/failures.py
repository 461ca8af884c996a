"""Draw ``docs/failures.jpg``: photos of the demo town that the shipped model does not place.

    python benchmarks/failures.py [--photos 120] [--seed 0]

The drone flies outside what the model is made for as well: 32 to 90° of pitch, a third to three times a tile's ground;
wide and slanted photos are rare, for they look over the map's edge. The model has never seen the town. The command
``aerofix`` answers, without EXIF; what it prints is drawn.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _needs  # noqa: F401 - before the others
import numpy as np
import rasterio
import rasterio.warp
import torch
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]
import make_examples as demo  # noqa: E402
from service.geo import haversine_m  # noqa: E402
from town.town import make_town  # noqa: E402
from training.data.simulator.render import Camera, render, surface_m  # noqa: E402
from training.data.simulator.scene import Scene  # noqa: E402
from training.export.rehearsal import run_aerofix  # noqa: E402

TILE_SIDE_M, PHOTO_PX, SHOWN, PANEL = 86.0, 640, 8, 210
PITCH_DEG, SCALE, HFOV_DEG = (32.0, 90.0), (1 / 3, 3.0), 60.0
PAPER, INK, FAINT, GAP = (255, 255, 255), (32, 36, 42), (110, 116, 124), 10


@dataclass(frozen=True)
class Shot:
    """A photo and the truth about it; ``scale`` is its ground side over a tile's."""

    path: Path
    pitch_deg: float
    scale: float
    lat: float
    lon: float


def main() -> None:
    """Fly, ask, count, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, default=ROOT / "models/aerofix-lite2.onnx")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/failures.jpg")
    given = parser.parse_args()
    town_map = ROOT / "examples/town.tif"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shots = fly(given.photos, np.random.default_rng(given.seed), folder)
        use = ("--gallery", folder / "town.gallery", "--model", given.model)
        run_aerofix("gallery", "add", town_map, *use)
        lines = run_aerofix("localize", *(shot.path for shot in shots), "--json", "--no-exif", *use).splitlines()
        answers = [json.loads(line) for line in lines]
        failed = [(s, a) for s, a in zip(shots, answers, strict=True) if a["status"] != "located" or is_wrong(s, a)]
        wrong = sum(a["status"] == "located" for _, a in failed)
        print(f"{len(shots)} photos; located rightly: {len(shots) - len(failed)}, wrongly: {wrong}")
        for text, chosen in GROUPS.items():
            group = [shot for shot in shots if chosen(shot)]
            lost = sum(chosen(shot) for shot, _ in failed)
            print(f"  {text}: {len(group) - lost} of {len(group)} located rightly")
        failed.sort(key=lambda each: each[1]["status"] != "located")  # the wrong ones first
        draw(failed[:SHOWN], town_map).save(given.out, quality=58, optimize=True)


GROUPS = {
    "within what the model is made for (pitch 40° or more, 0.6 to 1.8 tiles wide)": lambda s: (
        s.pitch_deg >= 40 and 0.6 <= s.scale <= 1.8
    ),
    "pitch under 40°": lambda s: s.pitch_deg < 40,
    "under 0.6 tiles wide, pitch 40° or more": lambda s: s.pitch_deg >= 40 and s.scale < 0.6,
    "over 1.8 tiles wide, pitch 40° or more": lambda s: s.pitch_deg >= 40 and s.scale > 1.8,
}


def fly(count: int, rng: np.random.Generator, folder: Path) -> list[Shot]:
    """Take photos from random poses, as the demo's own camera develops them; those over the map's edge are left out."""
    scene = demo.to_scene(make_town(demo.SEED, demo.SIZE_M, demo.DRAWN_GSD_M))
    shots = list[Shot]()
    while len(shots) < count:
        pitch_deg, scale = rng.uniform(*PITCH_DEG), math.exp(rng.uniform(*np.log(SCALE)))
        reach_m = demo.SIZE_M / 2 - TILE_SIDE_M
        camera = aim(scene, rng.uniform(-reach_m, reach_m, 2), rng.uniform(0, 360), pitch_deg, scale * TILE_SIDE_M)
        views = render(scene, camera, PHOTO_PX, PHOTO_PX)
        if bool(views.valid.all()):
            pixels = views.image[0].permute(1, 2, 0).numpy() * rng.uniform(0.85, 1.15) + rng.normal(0, 0.01, (1, 1, 3))
            path = folder / f"{len(shots)}.jpg"
            Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8)).save(path, quality=88)
            lat, lon = demo.place(*(float(v) for v in views.centre[0, :2]))
            shots.append(Shot(path, pitch_deg, scale, lat, lon))
    return shots


def aim(scene: Scene, point_m: Any, heading_deg: float, pitch_deg: float, side_m: float) -> Camera:
    """Return the camera whose square covers ``side_m`` across at a ground point, east and north."""
    east_m, north_m = map(float, point_m)
    away, pitch, heading = (
        side_m / 2 / math.tan(math.radians(HFOV_DEG) / 2),
        math.radians(pitch_deg),
        math.radians(heading_deg),
    )
    ground = float(surface_m(scene, torch.tensor([[[east_m, north_m]]]))[0, 0])
    back = away * math.cos(pitch)
    east_m, north_m = east_m - back * math.sin(heading), north_m - back * math.cos(heading)
    return Camera.single(east_m, north_m, ground + away * math.sin(pitch), heading_deg, pitch_deg, HFOV_DEG)


def off_m(shot: Shot, answer: dict[str, Any]) -> float:
    """Return metres from the truth to the answered position, or to the first candidate where there is none."""
    found = answer["position"] or answer["candidates"][0]
    return float(haversine_m(shot.lat, shot.lon, found["lat"], found["lon"]))


def is_wrong(shot: Shot, answer: dict[str, Any]) -> bool:
    """Tell whether it is further off than half a tile."""
    return off_m(shot, answer) > TILE_SIDE_M / 2


def draw(failed: list[tuple[Shot, dict[str, Any]]], town_map: Path) -> Image.Image:
    """Draw photo, true place and answered place below each other, a column for each."""
    rows, caption = ("photo", "where it was taken", "best candidate"), 44
    sheet = Image.new("RGB", (len(failed) * (PANEL + GAP) + GAP, 3 * (PANEL + GAP + 16) + GAP + caption), PAPER)
    pen = ImageDraw.Draw(sheet)
    small, bold = ImageFont.load_default(size=12), ImageFont.load_default(size=14)
    for column, (shot, answer) in enumerate(failed):
        left, best = GAP + column * (PANEL + GAP), answer["candidates"][0]
        pictures = [Image.open(shot.path), cut(town_map, shot.lat, shot.lon), cut(town_map, best["lat"], best["lon"])]
        for row, (label, picture) in enumerate(zip(rows, pictures, strict=True)):
            top = GAP + row * (PANEL + GAP + 16)
            pen.text((left, top), label, FAINT, small)
            sheet.paste(picture.resize((PANEL, PANEL), Image.Resampling.LANCZOS), (left, top + 16))
        text = f"pitch {shot.pitch_deg:.0f}°, {shot.scale:.1f} tiles wide"
        pen.text((left, sheet.height - caption), f"{answer['status']}, {off_m(shot, answer):.0f} m off", INK, bold)
        pen.text((left, sheet.height - caption + 20), text, FAINT, small)
    return sheet


def cut(town_map: Path, lat: float, lon: float) -> Image.Image:
    """Cut out a tile's ground round a position."""
    with rasterio.open(town_map) as source:
        xs, ys = rasterio.warp.transform("EPSG:4326", source.crs, [lon], [lat])
        half = TILE_SIDE_M / 2
        window = source.window(xs[0] - half, ys[0] - half, xs[0] + half, ys[0] + half)
        return Image.fromarray(source.read([1, 2, 3], window=window, boundless=True).transpose(1, 2, 0))


if __name__ == "__main__":
    main()
