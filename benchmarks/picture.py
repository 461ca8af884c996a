"""Draw ``docs/how-it-looks.jpg``: a photo, and the place on the map that a running service finds for it.

    aerofix serve &
    aerofix gallery add examples/town.tif
    python benchmarks/picture.py

The numbers in the picture are the service's answer, nothing is drawn by hand.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import httpx
import rasterio
import rasterio.warp
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
FINE = 2  # drawn at twice the size, for smooth lines
HEIGHT, GAP, CAPTION = 640 * FINE, 20 * FINE, 64 * FINE
PAPER, INK, FAINT = (255, 255, 255), (32, 36, 42), (110, 116, 124)
FOUND, ANSWER, TRUTH = (255, 196, 0), (64, 150, 255), (255, 60, 60)
CLOSE_UP_M, CLOSE_UP_SHARE = 130.0, 0.36  # ground size of the close-up, and its share of the map's width
MAX_BYTES = 250_000


class MapView:
    """A north-up GeoTIFF, or a piece of it, as a square picture of ``side`` pixels that knows where things are."""

    def __init__(self, path: Path, side: int, around: tuple[float, float] | None = None) -> None:
        with rasterio.open(path) as source:
            self.crs, gsd_m = source.crs, source.res[0]
            self.west, self.north, self.width_m = source.bounds.left, source.bounds.top, source.width * gsd_m
            image = Image.fromarray(source.read([1, 2, 3]).transpose(1, 2, 0))
        if around is not None:
            x, y = self._metres(*around)
            left, top = (x - CLOSE_UP_M / 2 - self.west) / gsd_m, (self.north - y - CLOSE_UP_M / 2) / gsd_m
            image = image.crop(
                tuple(round(v) for v in (left, top, left + CLOSE_UP_M / gsd_m, top + CLOSE_UP_M / gsd_m))
            )
            self.west, self.north, self.width_m = x - CLOSE_UP_M / 2, y + CLOSE_UP_M / 2, CLOSE_UP_M
        self.image = image.resize((side, side), Image.Resampling.LANCZOS)
        self.draw = ImageDraw.Draw(self.image, "RGBA")
        self.px_per_m = side / self.width_m

    def _metres(self, lat: float, lon: float) -> tuple[float, float]:
        xs, ys = rasterio.warp.transform("EPSG:4326", self.crs, [lon], [lat])
        return float(xs[0]), float(ys[0])

    def pixel(self, lat: float, lon: float) -> tuple[float, float]:
        """Tell where a position lies in the picture."""
        x, y = self._metres(lat, lon)
        return (x - self.west) * self.px_per_m, (self.north - y) * self.px_per_m

    def tile(self, bounds: list[float]) -> None:
        """Outline the found tile."""
        west, south, east, north = bounds
        self.draw.rectangle((*self.pixel(north, west), *self.pixel(south, east)), outline=FOUND, width=3 * FINE)

    def grid(self, candidates: list[dict[str, Any]]) -> None:
        """Draw faint lines where tiles begin and end."""
        side, lines = self.image.width, set()
        for candidate in candidates:
            west, south, east, north = candidate["tile"]["bounds"]
            (left, top), (right, bottom) = self.pixel(north, west), self.pixel(south, east)
            lines |= {("x", round(left)), ("x", round(right)), ("y", round(top)), ("y", round(bottom))}
        for axis, at in lines:
            ends = (at, 0, at, side) if axis == "x" else (0, at, side, at)
            self.draw.line(ends, fill=(255, 255, 255, 55), width=FINE)

    def answer(self, position: dict[str, Any], truth: dict[str, Any] | None) -> None:
        """Draw the answered position with its accuracy circle, and a cross at the truth."""
        x, y = self.pixel(position["lat"], position["lon"])
        r, dot = max(position["accuracy_m"] * self.px_per_m, 5 * FINE), 3 * FINE
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=(*ANSWER, 60), outline=ANSWER, width=2 * FINE)
        self.draw.ellipse((x - dot, y - dot, x + dot, y + dot), fill=ANSWER, outline=PAPER, width=FINE)
        if truth:
            x, y = self.pixel(truth["lat"], truth["lon"])
            for width, arm, colour in ((4 * FINE, 8 * FINE, PAPER), (2 * FINE, 7 * FINE, TRUTH)):
                self.draw.line((x - arm, y, x + arm, y), fill=colour, width=width)
                self.draw.line((x, y - arm, x, y + arm), fill=colour, width=width)


def localize(url: str, photo: Path) -> dict[str, Any]:
    """Ask the service; a photo it does not place is an error, for there is nothing to draw."""
    files = {"image": (photo.name, photo.read_bytes())}
    try:
        reply = httpx.post(f"{url}/localize", files=files, data={"top_k": "100"}, timeout=60)
    except httpx.ConnectError:
        raise SystemExit(f"no service answers at {url}; start one with `aerofix serve` or name it with --url") from None
    reply.raise_for_status()
    answer: dict[str, Any] = reply.json()
    if answer["status"] != "located":
        raise SystemExit(f"{photo.name}: {answer['status']}. Is the map in the gallery? aerofix gallery add MAP.tif")
    return answer


def truth_of(photo: Path) -> dict[str, Any] | None:
    """Return the true position of a photo of the examples, None for other photos."""
    path = photo.resolve().parents[1] / "truth.json"
    entries = json.loads(path.read_text()) if path.exists() else []
    return next((entry["position"] for entry in entries if entry["file"] == photo.name), None)


def distance_m(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Return metres between two close positions, on a sphere of the mean radius 6371.009 km."""
    north = math.radians(a["lat"] - b["lat"])
    east = math.radians(a["lon"] - b["lon"]) * math.cos(math.radians(a["lat"]))
    return 6_371_009.0 * math.hypot(north, east)


def draw_map(path: Path, answer: dict[str, Any], truth: dict[str, Any] | None) -> Image.Image:
    """Draw the map with what was found, and a close-up of it in the opposite corner."""
    position = answer["position"]
    overview = MapView(path, HEIGHT)
    close = MapView(path, round(HEIGHT * CLOSE_UP_SHARE), (position["lat"], position["lon"]))
    overview.grid(answer["candidates"])
    for view in (overview, close):
        view.tile(answer["candidates"][0]["tile"]["bounds"])
    overview.answer(position, None)
    close.answer(position, truth)
    x, y = overview.pixel(position["lat"], position["lon"])
    near, rim = 12 * FINE, 3 * FINE
    far = HEIGHT - close.image.width - near
    left, top = near if x > HEIGHT / 2 else far, near if y > HEIGHT / 2 else far
    overview.image.paste(Image.new("RGB", (close.image.width + 2 * rim,) * 2, PAPER), (left - rim, top - rim))
    overview.image.paste(close.image, (left, top))
    return overview.image


def compose(photo: Path, map_path: Path, answer: dict[str, Any], truth: dict[str, Any] | None) -> Image.Image:
    """Put the photo left, the map right, captions below."""
    picture, position = Image.open(photo).convert("RGB"), answer["position"]
    picture = picture.resize((round(HEIGHT * picture.width / picture.height), HEIGHT), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (picture.width + HEIGHT + 3 * GAP, HEIGHT + CAPTION + GAP), PAPER)
    left, right = GAP, picture.width + 2 * GAP
    sheet.paste(picture, (left, GAP))
    sheet.paste(draw_map(map_path, answer, truth), (right, GAP))

    used = ", ".join(answer["query"]["used"]) or "nothing but its pixels"
    where = f"{position['lat']:.5f}, {position['lon']:.5f}   ± {position['accuracy_m']:.0f} m"
    off = f"{distance_m(position, truth):.1f} m from the truth (red cross); " if truth else ""
    cost = f"{answer['searched_tiles']} tiles searched in {answer['timing_ms']['total']:.0f} ms"
    draw = ImageDraw.Draw(sheet)
    for x, headline, detail in ((left, "A drone photo", f"used: {used}"), (right, where, off + cost)):
        draw.text((x, HEIGHT + GAP + 8 * FINE), headline, INK, ImageFont.load_default(size=20 * FINE))
        draw.text((x, HEIGHT + GAP + 38 * FINE), detail, FAINT, ImageFont.load_default(size=14 * FINE))
    return sheet.reduce(FINE)


def main() -> None:
    """Parse the command line, ask, draw, save."""
    parser = argparse.ArgumentParser(description="Draw a photo and the place that a running service finds for it.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="a running service with the map in its gallery")
    parser.add_argument("--photo", type=Path, default=ROOT / "examples/photos/photo-1.jpg")
    parser.add_argument("--map", type=Path, default=ROOT / "examples/town.tif", help="GeoTIFF, north up")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/how-it-looks.jpg")
    given = parser.parse_args()
    sheet = compose(given.photo, given.map, localize(given.url, given.photo), truth_of(given.photo))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    for quality in range(88, 40, -6):
        sheet.save(given.out, quality=quality, optimize=True)
        if given.out.stat().st_size <= MAX_BYTES:
            break


if __name__ == "__main__":
    main()
