"""A photo moved over the map in small steps: does its error depend on where windows, blocks and tiles end?

    python benchmarks/borders.py

Photos of 100 m are cut from the demo map along a slanting line, turned and changed as cameras change them, and looked
up in the same map without hints. Each row holds those whose centre lies so far from the nearest border of that kind, in
quarters of the greatest distance there is; without an effect of borders all rows agree.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import numpy as np
import rasterio
from heights import ask, photo_of, served_maps
from numpy.typing import NDArray
from PIL import Image
from rasterio.warp import transform_bounds

from service.ground.windows import TILE_PX, Lattice, nearest_zoom, rectangle_of

TOWN = Path(__file__).resolve().parents[1] / "examples" / "town.tif"
HEIGHT_M = 87.0
"""From here a photo shows 100 m of ground across, as the demo's do."""

STEP_M = 3.7
"""A 10th of a step from window to window, and no whole part of any of the grids."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60, help="photos")
    print(asyncio.run(measure(parser.parse_args().count)))


async def measure(count: int) -> str:
    """Import the map, ask for the photos; the table."""
    with rasterio.open(TOWN) as source:
        picture = Image.fromarray(source.read().transpose(1, 2, 0))
        bounds = transform_bounds(source.crs, "EPSG:4326", *source.bounds)
    errors_m, places = [], []
    async with served_maps(lambda folder: [TOWN]) as http:
        side_px = int((await http.get("/model")).json()["image_size"])
        for i in range(count):
            along_m = (i - (count - 1) / 2) * STEP_M
            rng = np.random.default_rng(i)
            photo, truth = photo_of(picture, bounds, HEIGHT_M, rng, (along_m, 0.6 * along_m))
            errors_m.append((await ask(http, photo, truth))[0])
            places.append(truth)
    return table(np.array(errors_m), np.array(places), Lattice(side_px))


def table(errors_m: NDArray[np.float64], places: NDArray[np.float64], lattice: Lattice) -> str:
    """Return rows of each kind of border."""
    lat = places[0, 0]
    zoom = nearest_zoom(2 * HEIGHT_M * np.tan(np.radians(30)) / lattice.side_px, lat)
    pixels = np.array([rectangle_of((lon, lat, lon, lat), zoom)[:2] for lat, lon in places])
    lines = [f"{'borders of':<10} {'px':>4} {'distance':>9} {'photos':>6} {'median m':>8} {'90 % m':>7} {'worst m':>7}"]
    for name, side in (("windows", lattice.step_px), ("blocks", lattice.step_px), ("tiles", TILE_PX)):
        shift = lattice.side_px // 4 if name == "blocks" else 0  # the middle of a window
        away = np.abs((pixels - shift + side / 2) % side - side / 2).min(axis=1) / (side / 2)
        for quarter in range(4):
            some = errors_m[(away * 4).clip(0, 3.99).astype(int) == quarter]
            if not len(some):
                continue
            figures = f"{np.median(some):>8.2f} {np.quantile(some, 0.9):>7.2f} {some.max():>7.2f}"
            lines.append(f"{name:<10} {side:>4} {f'{quarter}/4…{quarter + 1}/4':>9} {len(some):>6} {figures}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
