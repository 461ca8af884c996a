"""What knowing the ground's heights is worth: cameras over simulated hills, placed with and without an elevation.

    python benchmarks/elevation.py [--map examples/town.tif] [--photos 24] [--relief 40] [--pitch -45] [--height 100]

The simulator of training/ lays the map over hills and renders oblique photos, which go to ``POST /localize`` with all
that a drone knows of its camera: first over the map alone, then with the hills as its elevation. Printed is how far the
camera is off, and how often that is within its ``accuracy_m``.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any

import _needs  # noqa: F401 - before the others
import httpx
import numpy as np
import rasterio
import torch
from rasterio.transform import Affine
from rich.console import Console
from rich.table import Table
from tracks import PHOTO_PX, add_map, error_m, jpeg, picture_of

from service.app import create_app
from service.settings import Settings
from training.data.simulator.render import Camera, render
from training.data.simulator.scene import Scene, load_scene

ROOT = Path(__file__).resolve().parents[1]
HFOV_DEG = 69.4
HILL_M = (90.0, 220.0)  # wave lengths of the hills: a photo at 45° from 100 m up shows some 150 m


def main() -> None:
    """Render, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--map", type=Path, default=ROOT / "examples" / "town.tif")
    parser.add_argument("--model", type=Path, default=Settings().model)
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument(
        "--relief", type=float, default=40.0, help="metres from the lowest to the highest ground, about"
    )
    parser.add_argument("--pitch", type=float, default=-45.0)
    parser.add_argument("--height", type=float, default=100.0, help="metres above the ground below")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    flat = load_scene(options.map)
    rng = np.random.default_rng(options.seed)
    scene = Scene(flat.texture, torch.from_numpy(hills(flat, options.relief, rng))[None], flat.gsd_m, flat.origin)
    shots = [shoot(scene, options, rng) for _ in range(options.photos)]
    with tempfile.TemporaryDirectory() as folder:
        dem = write_dem(scene, Path(folder) / "hills.tif")
        answers = asyncio.run(ask(options, shots, dem.read_bytes(), Path(folder) / "g.gallery"))
    report(shots, answers, options)


def hills(scene: Scene, relief_m: float, rng: np.random.Generator) -> np.ndarray:
    """Make smooth hills under a scene, ``[h, w]`` metres."""
    rows, columns = round(scene.depth_m / 2), round(scene.width_m / 2)
    north, east = np.mgrid[0:rows, 0:columns] * 2.0
    height = np.zeros((rows, columns))
    for _ in range(6):
        course, phase, length_m = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi), rng.uniform(*HILL_M) * 2
        height += length_m * np.sin((east * np.cos(course) + north * np.sin(course)) * 2 * np.pi / length_m + phase)
    height -= height.min()
    return (height / height.max() * relief_m).astype(np.float32)


def shoot(scene: Scene, options: argparse.Namespace, rng: np.random.Generator) -> dict[str, Any]:
    """Take one photo from somewhere over the middle of the map, and tell where its camera was."""
    east_m, north_m = rng.uniform(-0.22, 0.22, 2) * (scene.width_m, scene.depth_m)
    heading = float(rng.uniform(0, 360))
    heights = scene.height_m[0].numpy()
    row = int((0.5 - north_m / scene.depth_m) * len(heights))
    column = int((0.5 + east_m / scene.width_m) * heights.shape[1])
    up_m = float(heights[row, column]) + options.height
    views = render(scene, Camera.single(east_m, north_m, up_m, heading, -options.pitch, HFOV_DEG), *PHOTO_PX)
    known = {
        "heading_deg": (heading + rng.normal(0, 2)) % 360,
        "pitch_deg": options.pitch + rng.normal(0, 0.3),
        "altitude_m": options.height * (1 + rng.normal(0, 0.03)),
        "hfov_deg": HFOV_DEG,
    }
    return {"jpeg": jpeg(picture_of(views.image[0], rng)), "known": known, "truth": scene.latlon(east_m, north_m)}


def write_dem(scene: Scene, path: Path) -> Path:
    """Write the hills as a raster in degrees."""
    heights = scene.height_m[0].numpy() + 250.0
    rows, columns = heights.shape
    (north, west), (south, east) = (
        scene.latlon(side * scene.width_m / 2, -side * scene.depth_m / 2) for side in (-1, 1)
    )
    transform = Affine((east - west) / columns, 0, west, 0, -(north - south) / rows, north)
    profile = {"driver": "GTiff", "count": 1, "width": columns, "height": rows, "dtype": "float32", "crs": "EPSG:4326"}
    with rasterio.open(path, "w", **profile, transform=transform) as out:
        out.write(heights[None])
    return path


async def ask(
    options: argparse.Namespace, shots: list[dict[str, Any]], dem: bytes, gallery: Path
) -> dict[str, list[dict[str, Any]]]:
    """Return the answers, over a plane and over the hills."""
    app = create_app(Settings(gallery=gallery, device="cpu", model=options.model, deadline_s=60))
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://aerofix", timeout=60)
    answers: dict[str, list[dict[str, Any]]] = {}
    async with app.router.lifespan_context(app), http:
        await add_map(http, options.map.read_bytes())
        for kind in ("a plane", "its elevation"):
            if kind == "its elevation":
                (known,) = (await http.get("/maps")).json()["maps"]
                files = {"file": ("hills.tif", dem)}
                (await http.post(f"/maps/{known['name']}/elevation", files=files)).raise_for_status()
            answers[kind] = []
            for shot in shots:
                files = {"image": ("photo.jpg", shot["jpeg"])}
                answer = await http.post("/localize", files=files, data=shot["known"])
                answers[kind].append(answer.raise_for_status().json())
    return answers


def report(shots: list[dict[str, Any]], answers: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    """Print the table."""
    table = Table(title=f"{options.relief:.0f} m of relief, pitch {options.pitch:.0f}°, {options.height:.0f} m up")
    for column in ("the ground is", "located", "camera, median", "90 %", "within accuracy_m", "accuracy_m, median"):
        table.add_column(column)
    right = [
        all(each[i]["status"] == "located" and each[i]["camera"] is not None for each in answers.values())
        for i in range(len(shots))
    ]
    for kind, each in answers.items():
        pairs = [(shot, answer["camera"]) for shot, answer, both in zip(shots, each, right, strict=True) if both]
        errors = [error_m(camera, shot["truth"]) for shot, camera in pairs]
        within = [error < camera["accuracy_m"] for error, (_, camera) in zip(errors, pairs, strict=True)]
        table.add_row(
            kind,
            f"{sum(right)} of {len(shots)}",
            f"{np.median(errors):.1f} m",
            f"{np.quantile(errors, 0.9):.1f} m",
            f"{np.mean(within):.2f}",
            f"{np.median([camera['accuracy_m'] for _, camera in pairs]):.1f} m",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
