"""What following a flight is worth: a simulated flight over a map, localized photo by photo through the service.

    python benchmarks/tracks.py [--tiles-only] [--pixels-only] [--weather 3] [--photos 170] [--seed 0] ...

The drone flies rounds of a square with rounded corners at a constant speed and looks nearly straight down; the
simulator of training/ renders what it sees. Every photo goes through ``POST /tracks/{id}/localize`` of a service in
this process, whose gallery holds the map in 86 m tiles, with the heading and height that a drone knows (none of it with
--pixels-only). In the middle ten photos are lost: five are blank, five show another place. With --tiles-only photos are
not laid on the ground; with --weather light, season, haze and blur change from photo to photo, at 3 three times as much
as in training. Printed are the errors of the single photos' positions and of the
track's, those of the camera's place, and what became of the lost.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _needs  # noqa: F401 - before the others
import httpx
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]
from service.app import create_app  # noqa: E402
from service.geo import haversine_m  # noqa: E402
from service.settings import Settings  # noqa: E402
from town.town import make_town  # noqa: E402
from training.data.simulator.render import Camera, render  # noqa: E402
from training.data.simulator.scene import Scene, load_scene  # noqa: E402
from training.data.transforms import augment  # noqa: E402

LOST = 10
PHOTO_PX = (640, 480)  # twice and a half the model's input: more costs time and changes nothing
HFOV_DEG, ABOVE_ROOFS_M = 69.4, 85.0
CORNER_RADIUS_M = 40.0  # 2.5 m/s² at 10 m/s, a brisk turn of a camera drone
TURNED_DEG = 30.0  # of the square against the raster of tiles: nobody flies along it
EDGE_SHARE = 0.31  # half a side of the square over the map's size; its photos then stay on the map
PITCH_DEG = (87.0, 1.0)  # mean and sway of a camera on a gimbal
HEADING_ERROR_DEG, HEIGHT_ERROR = 2.0, 0.03  # what compass and barometer err by, from photo to photo


@dataclass(frozen=True)
class Shot:
    """A photo: when, the JPEG, what the drone knows of its pose, the ground at its centre, and the camera's place."""

    time_s: float
    jpeg: bytes
    pose: dict[str, float]
    truth: tuple[float, float]
    camera: tuple[float, float]
    lost: bool


def flight_path(half_m: float, count: int, step_m: float) -> NDArray[np.float64]:
    """Return ``[count, 3]`` east, north, heading every ``step_m`` along rounds of a turned square, corners round."""
    line_m, turn_m = 2 * (half_m - CORNER_RADIUS_M), math.pi / 2 * CORNER_RADIUS_M
    poses = []
    for at_m in np.arange(count) * step_m:
        side, along_m = divmod(at_m, line_m + turn_m)
        turned = max(0.0, along_m - line_m) / CORNER_RADIUS_M  # radians of the corner at this side's end
        forward = min(along_m, line_m) - line_m / 2 + CORNER_RADIUS_M * math.sin(turned)
        sideways = -half_m + CORNER_RADIUS_M * (1 - math.cos(turned))  # of a side that leads north, in the west
        course = math.radians(TURNED_DEG) + math.pi / 2 * (side % 4)
        east_m = sideways * math.cos(course) + forward * math.sin(course)
        north_m = forward * math.cos(course) - sideways * math.sin(course)
        poses.append((east_m, north_m, math.degrees(course + turned)))
    return np.array(poses)


def fly(scene: Scene, other: Scene, options: argparse.Namespace) -> list[Shot]:
    """Take the photos."""
    rng = np.random.default_rng(options.seed)
    half_m = EDGE_SHARE * min(scene.width_m, scene.depth_m)
    path = flight_path(half_m, options.photos, options.speed * options.interval)
    up_m = float(scene.height_m.max()) + ABOVE_ROOFS_M
    first_lost = (options.photos - LOST) // 2
    shots = []
    for i, (east_m, north_m, heading_deg) in enumerate(path):
        pose = (east_m, north_m, up_m, heading_deg + rng.normal(0, 3), min(90.0, rng.normal(*PITCH_DEG)), HFOV_DEG)
        camera = Camera.single(*map(float, pose))
        views = render(scene, camera, *PHOTO_PX)
        truth = scene.latlon(float(views.centre[0, 0]), float(views.centre[0, 1]))
        lost = i - first_lost if 0 <= i - first_lost < LOST else None
        if lost is None:
            picture = picture_of(weather(views.image, options), rng)
        elif lost < LOST // 2:
            picture = Image.new("RGB", PHOTO_PX, (120, 125, 130))
        else:
            elsewhere = Camera.single(*rng.uniform(-40, 40, 2), float(other.height_m.max()) + ABOVE_ROOFS_M, *pose[3:])
            picture = picture_of(render(other, elsewhere, *PHOTO_PX).image[0], rng)
        height_m = up_m - float(views.centre[0, 2]) if lost is None else up_m
        known = {
            "heading_deg": (pose[3] + rng.normal(0, HEADING_ERROR_DEG)) % 360,
            "altitude_m": height_m * (1 + rng.normal(0, HEIGHT_ERROR)),
            "hfov_deg": HFOV_DEG,
        }
        shots.append(
            Shot(i * options.interval, jpeg(picture), known, truth, scene.latlon(east_m, north_m), lost is not None)
        )
    return shots


def weather(images: torch.Tensor, options: argparse.Namespace) -> torch.Tensor:
    """Show the first of ``[N, 3, H, W]`` views as on another day, another for each photo."""
    drawn = torch.Generator().manual_seed(int(1e6 * float(images.mean())) + options.seed)
    return augment(images, drawn, strength=options.weather)[0] if options.weather else images[0]


def picture_of(image: Any, rng: np.random.Generator) -> Image.Image:
    """Show a rendered ``[3, H, W]`` view as a small camera does: another exposure each time, and noise."""
    light = image.permute(1, 2, 0).numpy() * rng.uniform(0.9, 1.1) + rng.normal(0, 0.012, (*image.shape[1:], 1))
    return Image.fromarray((np.clip(light, 0, 1) * 255).astype(np.uint8))


def jpeg(picture: Image.Image) -> bytes:
    """Return the picture as a file."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()


def another_place() -> Scene:
    """Make a town that is not on the map."""
    town = make_town(99, 300.0, 0.3)
    texture = torch.from_numpy(town.rgb.copy()).permute(2, 0, 1)[None].float() / 255
    return Scene(texture, torch.zeros(1, 2, 2), town.gsd_m)


async def follow(geotiff: bytes, shots: list[Shot], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the service's answers to the photos of one track."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(gallery=Path(folder) / "g.gallery", device="cpu", model=options.model))
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://aerofix", timeout=60)
        async with app.router.lifespan_context(app), http:
            await add_map(http, geotiff)
            form = {"max_speed_m_s": 2 * options.speed}
            if options.acceleration is not None:
                form["acceleration_m_s2"] = options.acceleration
            url = (await http.post("/tracks", data=form)).headers["Location"]
            answers = []
            for shot in shots:
                files = {"image": ("photo.jpg", shot.jpeg)}
                known = {} if options.pixels_only else shot.pose
                said = known | {"timestamp": shot.time_s, "refine": not options.tiles_only}
                answer = await http.post(f"{url}/localize", files=files, data=said)
                answer.raise_for_status()
                answers.append(answer.json())
            return answers


async def add_map(http: httpx.AsyncClient, geotiff: bytes) -> None:
    """Import a map, and wait until it is in the gallery."""
    begun = await http.post("/gallery/imports", files={"file": ("map.tif", geotiff)})
    begun.raise_for_status()
    job = begun.json()
    while job["state"] in ("queued", "running"):
        await asyncio.sleep(0.2)
        job = (await http.get(begun.headers["Location"])).json()
    if job["failed"] or not job["done"]:
        raise SystemExit(f"the map could not be added: {job}")


def error_m(position: dict[str, Any] | None, truth: tuple[float, float]) -> float:
    """Return metres between an answer and the truth; NaN where there is no position."""
    return math.nan if position is None else float(haversine_m(position["lat"], position["lon"], *truth))


def main() -> None:
    """Fly, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--map", type=Path, default=ROOT / "examples" / "town.tif")
    parser.add_argument("--model", type=Path, default=Settings().model)
    parser.add_argument("--photos", type=int, default=170)
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between photos")
    parser.add_argument("--speed", type=float, default=10.0, help="metres a second")
    parser.add_argument("--acceleration", type=float, help="the track's acceleration_m_s2; default: the service's")
    parser.add_argument("--pixels-only", action="store_true", help="do not tell heading, height and field of view")
    parser.add_argument("--weather", type=float, default=0.0, help="strength of what training does to photos")
    parser.add_argument("--tiles-only", action="store_true", help="do not refine: positions are those of whole tiles")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    shots = fly(load_scene(options.map), another_place(), options)
    answers = asyncio.run(follow(options.map.read_bytes(), shots, options))
    report(shots, answers)


def report(shots: list[Shot], answers: list[dict[str, Any]]) -> None:
    """Print the tables."""
    single = np.array([error_m(a["photo"]["position"], s.truth) for s, a in zip(shots, answers, strict=True)])
    track = np.array([error_m(a["ground"], s.truth) for s, a in zip(shots, answers, strict=True)])
    lost = np.array([shot.lost for shot in shots])
    both = ~lost & np.isfinite(single) & np.isfinite(track)
    alone_lost = ~lost & ~np.isfinite(single) & np.isfinite(track)
    table = Table(title=f"{len(shots)} photos, {int(lost.sum())} of them lost")
    for column in ("error", "photos", "single photo", "track", "track / single"):
        table.add_column(column)
    for kind, average in (("RMSE", rmse), ("median", np.median)):
        alone, fused = float(average(single[both])), float(average(track[both]))
        row = (str(int(both.sum())), f"{alone:.2f} m", f"{fused:.2f} m", f"{fused / alone:.2f}")
        table.add_row(f"{kind}, both have a position", *row)
    if alone_lost.any():
        count, fused = str(int(alone_lost.sum())), float(np.median(track[alone_lost]))
        table.add_row("median, the photo alone has none", count, "", f"{fused:.2f} m", "")
    console = Console(width=120)
    console.print(table)
    report_cameras(shots, answers, console)
    uses = [answer["use"] for answer in answers]
    within = [t < a["ground"]["accuracy_m"] for t, a in zip(track, answers, strict=True) if a["ground"] is not None]
    end = int(np.flatnonzero(lost)[-1])
    good = np.flatnonzero(track[end + 1 :] < 2 * np.nanmedian(track[~lost]))
    after = "no position" if math.isnan(track[end]) else f"{track[end]:.1f} m"
    seen = {use: uses.count(use) for use in ("fused", "gated", "lost")}
    console.print(f"uses: {seen}; of the lost photos: {uses[end - LOST + 1 : end + 1]}")
    console.print(
        f"a photo alone has a position: {np.isfinite(single[~lost]).mean():.2f}; the track: "
        f"{np.isfinite(track[~lost]).mean():.2f} of the photos that are not lost"
    )
    console.print(f"track within its accuracy_m: {np.mean(within):.2f} (0.68 is exact)")
    console.print(
        f"error after {LOST} lost photos: {after}; photos until it is below twice its median: "
        f"{int(good[0]) + 1 if len(good) else 'never'}"
    )


def report_cameras(shots: list[Shot], answers: list[dict[str, Any]], console: Console) -> None:
    """Print how far the camera is off, of single photos and of the track."""
    pairs = [(s, a, a["position"]) for s, a in zip(shots, answers, strict=True) if a["photo"]["camera"] and not s.lost]
    pairs = [each for each in pairs if each[2] is not None and each[2]["reference"].startswith("camera")]
    if not pairs:
        return
    alone = [error_m(answer["photo"]["camera"], shot.camera) for shot, answer, _ in pairs]
    track = [error_m(position, shot.camera) for shot, _, position in pairs]
    within = [off < position["accuracy_m"] for off, (_, _, position) in zip(track, pairs, strict=True)]
    console.print(
        f"camera, of {len(pairs)} photos: median {np.median(alone):.2f} m alone, {np.median(track):.2f} m in "
        f"the track, {np.mean(within):.2f} of these within accuracy_m"
    )


def rmse(errors: NDArray[np.float64]) -> float:
    """Return the root mean square."""
    return math.sqrt(float(np.mean(errors**2)))


if __name__ == "__main__":
    main()
