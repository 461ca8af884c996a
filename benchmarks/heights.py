"""Photos from 40 to 400 m above ground over one map, no hints: how often is the right place first?

    python benchmarks/heights.py --data FOLDER

The map is a picture that the shipped model was not trained on (``fengyuan/map.jpg`` of the data folder, 0.163 m/px),
brought to 0.3 m/px and imported with no options, beside the demo town. Photos are cut from the picture at its full
resolution, turned at random, and changed as cameras change them: exposure, colour, blur, noise, JPEG. A photo counts as
found when the answer lies within a quarter of its short side of the truth.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import math
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import rasterio
from PIL import Image, ImageFilter
from rasterio.transform import from_bounds

from service.app import create_app
from service.geo import Bounds, haversine_m, offset, offset_m
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
HEIGHTS_M = (40, 60, 90, 120, 180, 250, 400)
HFOV_DEG = 60.0
PHOTO_PX = (1280, 960)
MAP_GSD_M = 0.3

DEADLINE_S = 600.0
"""Beyond what the slowest machine needs: what is measured here is where, not when."""


def main() -> None:
    """Print one row a height."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of real data; see the module's text")
    parser.add_argument("--count", type=int, default=20, help="photos a height")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--heights-m", type=float, nargs="+", default=HEIGHTS_M)
    parser.add_argument("--tile-size-m", default="", help="as the import takes it, to see what one size does")
    args = parser.parse_args()
    if not (args.data / "fengyuan" / "map.jpg").exists():
        print(f"{args.data} has no fengyuan/map.jpg; nothing to measure.")
        return
    asyncio.run(measure(args.data, args.heights_m, args.count, args.seed, args.tile_size_m))


async def measure(data: Path, heights_m: Sequence[float], count: int, seed: int, tile_size_m: str) -> None:
    """Import the maps, ask for the photos, print the table."""
    Image.MAX_IMAGE_PIXELS = None
    picture = Image.open(data / "fengyuan" / "map.jpg").convert("RGB")
    bounds = bounds_of(data / "fengyuan" / "map.json")
    async with served(picture, bounds, tile_size_m) as http:
        print(f"{(await http.get('/gallery')).json()['count']} windows")
        print(f"{'height m':>8} {'short side m':>12} {'found':>6} {'located':>8} {'median m':>9} {'levels':>12}")
        for height_m in heights_m:
            rng = np.random.default_rng([seed, round(height_m)])
            rows = [await ask(http, *photo_of(picture, bounds, height_m, rng)) for _ in range(count)]
            print(row_of(height_m, rows), flush=True)


@asynccontextmanager
async def served(
    picture: Image.Image, bounds: Bounds, tile_size_m: str = "", **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve, in this process, a gallery that has the picture as a map, and the demo town beside it."""

    def maps(folder: Path) -> list[Path]:
        return [write_map(folder / "fengyuan.tif", picture, bounds), ROOT / "examples" / "town.tif"]

    async with served_maps(maps, tile_size_m, **settings) as http:
        yield http


@asynccontextmanager
async def served_maps(
    maps: Callable[[Path], Sequence[Path]], tile_size_m: str = "", **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve, in this process, a gallery with the maps that ``maps`` names, or writes to the folder it is given."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(gallery=Path(folder) / "g.gallery", deadline_s=DEADLINE_S, **settings))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://t", timeout=DEADLINE_S) as http,
        ):
            for path in maps(Path(folder)):
                await add(http, path, tile_size_m)
            yield http


def row_of(height_m: float, rows: list[tuple[float, str, str]]) -> str:
    """Return one line of the table."""
    short_m = 2 * height_m * math.tan(math.radians(HFOV_DEG / 2)) * PHOTO_PX[1] / PHOTO_PX[0]
    errors_m = np.array([error_m for error_m, _, _ in rows])
    found = errors_m <= short_m / 4
    located = np.mean([status == "located" for _, status, _ in rows])
    zooms = sorted({zoom for _, _, zoom in rows})
    median_m = np.median(errors_m[found]) if found.any() else math.nan
    return (
        f"{height_m:>8g} {short_m:>12.0f} {found.mean():>6.2f} {located:>8.2f} {median_m:>9.1f} {','.join(zooms):>12}"
    )


async def add(http: httpx.AsyncClient, path: Path, tile_size_m: str) -> None:
    """Import a map and wait for its end."""
    form = {"tile_size_m": tile_size_m} if tile_size_m else {}
    content = await asyncio.to_thread(path.read_bytes)
    answer = await http.post("/gallery/imports", files={"file": (path.name, content)}, data=form)
    answer.raise_for_status()
    where = answer.headers["location"]
    while (state := (await http.get(where)).json())["state"] in ("queued", "running"):  # noqa: ASYNC110 - HTTP
        await asyncio.sleep(0.5)
    print(f"{path.name}: {state['state']}, {state['added']} windows", *state["warnings"])


async def ask(http: httpx.AsyncClient, photo: bytes, truth: tuple[float, float]) -> tuple[float, str, str]:
    """Return error in metres, status, and the zoom of the best window."""
    reply = await http.post("/localize", files={"image": ("photo.jpg", photo)}, timeout=2 * DEADLINE_S)
    answer = reply.raise_for_status().json()
    best = answer["candidates"][0]
    place = answer["position"] or best
    return float(haversine_m(place["lat"], place["lon"], *truth)), answer["status"], best["tile_id"].split("/")[-3]


def photo_of(
    picture: Image.Image,
    bounds: tuple[float, float, float, float],
    height_m: float,
    rng: np.random.Generator,
    place_m: tuple[float, float] | None = None,
) -> tuple[bytes, tuple[float, float]]:
    """Take a photo straight down, and tell its centre: random, or metres east and north of the middle."""
    west, south, east, north = bounds
    lat0, lon0 = (south + north) / 2, (west + east) / 2
    width_m, depth_m = (float(abs(v)) for v in offset_m(south, west, north, east))
    across_m = 2 * height_m * math.tan(math.radians(HFOV_DEG / 2))
    reach_m = math.hypot(1, PHOTO_PX[1] / PHOTO_PX[0]) * across_m / 2
    room = [max(0.0, side_m / 2 - reach_m) for side_m in (width_m, depth_m)]
    east_m, north_m = place_m or (float(rng.uniform(-side, side)) for side in room)
    angle = rng.uniform(0, 2 * math.pi)
    px_per_m = (picture.width / width_m, picture.height / depth_m)
    scale = across_m / PHOTO_PX[0]
    cx, cy = picture.width / 2 + east_m * px_per_m[0], picture.height / 2 - north_m * px_per_m[1]
    a, b = scale * math.cos(angle), -scale * math.sin(angle)
    # from pixels of the photo to those of the picture
    matrix = [a * px_per_m[0], b * px_per_m[0], 0.0, -b * px_per_m[1], a * px_per_m[1], 0.0]
    matrix[2] = cx - matrix[0] * PHOTO_PX[0] / 2 - matrix[1] * PHOTO_PX[1] / 2
    matrix[5] = cy - matrix[3] * PHOTO_PX[0] / 2 - matrix[4] * PHOTO_PX[1] / 2
    shrink = scale * px_per_m[0]  # pixels of the picture for one of the photo: blurred first, or it would alias
    source = picture if shrink <= 1 else picture.filter(ImageFilter.GaussianBlur(0.5 * shrink))
    photo = source.transform(PHOTO_PX, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    lat, lon = offset(lat0, lon0, east_m, north_m)
    return camera(photo, rng), (float(lat), float(lon))


def camera(photo: Image.Image, rng: np.random.Generator) -> bytes:
    """Return what a camera makes of it: another exposure and colour, a little blur, noise, and a JPEG."""
    blurred = photo.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5)))
    pixels = (np.asarray(blurred, np.float32) / 255) ** rng.uniform(0.7, 1.4) * rng.uniform(0.85, 1.15, 3)
    pixels += rng.normal(0, 0.02, pixels.shape)
    out = io.BytesIO()
    Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8)).save(out, "JPEG", quality=88)
    return out.getvalue()


def write_map(path: Path, picture: Image.Image, bounds: tuple[float, float, float, float]) -> Path:
    """Write the picture at 0.3 m/px as a GeoTIFF in degrees."""
    west, south, east, north = bounds
    width_m, depth_m = (float(abs(v)) for v in offset_m(south, west, north, east))
    size = (round(width_m / MAP_GSD_M), round(depth_m / MAP_GSD_M))
    small = np.asarray(picture.resize(size, Image.Resampling.LANCZOS)).transpose(2, 0, 1)
    profile: dict[str, Any] = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": "EPSG:4326"}
    with rasterio.open(
        path, "w", width=size[0], height=size[1], transform=from_bounds(*bounds, *size), **profile
    ) as out:
        out.write(small)
    return path


def bounds_of(path: Path) -> tuple[float, float, float, float]:
    """Return west, south, east, north of the corners in a JSON file."""
    corners = json.loads(path.read_text())["corners_lonlat"]
    lons, lats = zip(*corners.values(), strict=True)
    return min(lons), min(lats), max(lons), max(lats)


if __name__ == "__main__":
    main()
