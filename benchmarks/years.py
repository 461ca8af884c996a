"""Photos of another year than the map, through the service: how many places are found, and is what is claimed true?

    python benchmarks/years.py --data DATA [--date after] [--hints none all prior] [--model FILE.onnx]

The map is every ``before`` of ``levir_cd`` (33 pictures of 512 m, 0.5 m/px, Texas), side by side at a pretended
place and imported with no options. Photos are taken over the ``after`` of the pairs that no training ever saw
(``dates_held_out`` of configs/lite2_dates.yaml), 5 to 14 years later: by a camera that looks 50 to 90° down, with any
heading, at ``WIDTHS_M`` of ground, changed as cameras change them. ``--date before`` asks for the map's own date.
"All" is all that the camera knows; "prior" is that, and a circle of ``PRIOR_M`` whose centre is off by up to half
of it. The last lines tell each place's share: some of them were rebuilt from end to end.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import _needs  # noqa: F401 - before the others
import httpx
import numpy as np
from heights import ROOT, served_maps
from PIL import Image
from pitch import WINDOW_M, Shot, share, shoot

sys.path.insert(0, str(ROOT))
from service.geo import Bounds, haversine_m, offset
from training.config import load_config

SIDE_M, COLUMNS = 512.0, 6
SOUTH_WEST = (30.25, -97.75)
"""A pretended place near the true ones: how the sun stands and how long a degree is."""

PITCHES_DEG = (-90.0, -75.0, -60.0, -50.0)
WIDTHS_M = (80.0, 110.0, 150.0)
PRIOR_M = 200.0
HINTS = ("none", "all", "prior")


def main() -> None:
    """Print a row for each kind of hints, then the share of each place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with levir_cd")
    parser.add_argument("--date", default="after", choices=["after", "before"], help="of the photos")
    parser.add_argument("--hints", nargs="*", default=list(HINTS), choices=HINTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "aerofix-lite2.onnx")
    args = parser.parse_args()
    if not (args.data / "levir_cd").exists():
        print(f"{args.data} has no levir_cd; nothing to measure.")
        return
    asyncio.run(measure(args.data / "levir_cd", args.date, args.hints, args.seed, args.model))


async def measure(data: Path, date: str, hints: Sequence[str], seed: int, model: Path) -> None:
    """Import the map, ask for the photos, print."""
    pictures = sorted((data / "before").iterdir())
    bounds = {path.stem: _square(number) for number, path in enumerate(pictures)}
    asked = {name: _photos(data / date, name, bounds[name], seed) for name in held_out() if name in bounds}
    async with served_maps(lambda folder: [_table(folder / "levir.zip", pictures, bounds)], model=model) as http:
        print(f"{'hints':>6} {'< 50 m':>14} {'< 25 m':>14} {'located':>14} {'located, right':>16}", flush=True)
        shares: dict[str, list[str]] = {name: [] for name in asked}
        for kind in hints:
            told = {name: [await ask(http, shot, kind) for shot in shots] for name, shots in asked.items()}
            every = [each for row in told.values() for each in row]
            claimed = [off_m < 50 for off_m, located in every if located]
            row = [share([off_m < limit for off_m, _ in every]) for limit in (50, 25)]
            row += [share([located for _, located in every]), share(claimed)]
            print(f"{kind:>6} {row[0]:>14} {row[1]:>14} {row[2]:>14} {row[3]:>16}", flush=True)
            for name, answers in told.items():
                shares[name].append(f"{kind} {sum(off_m < 50 for off_m, _ in answers)}/{len(answers)}")
    for name, found in shares.items():
        print(f"{name}: {', '.join(found)}")


def held_out() -> list[str]:
    """List the pairs that training leaves out."""
    paths = load_config(ROOT / "configs" / "lite2_dates.yaml").data.dates_held_out
    return [Path(path).stem for path in paths if path.startswith("levir_cd")]


async def ask(http: httpx.AsyncClient, shot: Shot, kind: str) -> tuple[float, bool]:
    """Tell how far off the first candidate is in metres, and whether the answer says located."""
    form = {} if kind == "none" else dict(shot.known)
    if kind == "prior":
        rng = np.random.default_rng(len(shot.photo))
        lat, lon = offset(*shot.ground, *rng.uniform(-PRIOR_M / 2, PRIOR_M / 2, 2))
        form |= {"prior_lat": f"{lat:.7f}", "prior_lon": f"{lon:.7f}", "prior_radius_m": f"{PRIOR_M:g}"}
    reply = await http.post("/localize", files={"image": ("photo.jpg", shot.photo)}, data=form)
    told = reply.raise_for_status().json()
    if not told["candidates"]:
        return np.inf, False
    first = told["candidates"][0]
    return float(haversine_m(*shot.ground, first["lat"], first["lon"])), told["status"] == "located"


def _photos(folder: Path, name: str, bounds: Bounds, seed: int) -> list[Shot]:
    """A photo for each pitch and width, at places of which the photo shows nothing beyond the picture."""
    path = next(folder.glob(f"{name}.*"))
    picture = Image.open(path).convert("RGB")
    rng = np.random.default_rng([seed, *name.encode()])
    return [shoot(picture, bounds, pitch, width / WINDOW_M, rng) for pitch in PITCHES_DEG for width in WIDTHS_M]


def _square(number: int) -> Bounds:
    row, column = divmod(number, COLUMNS)
    south, west = offset(*SOUTH_WEST, column * SIDE_M, row * SIDE_M)
    north, east = offset(*SOUTH_WEST, (column + 1) * SIDE_M, (row + 1) * SIDE_M)
    return float(west), float(south), float(east), float(north)


def _table(path: Path, pictures: Sequence[Path], bounds: dict[str, Bounds]) -> Path:
    """A zip of the pictures and of a table of their corners."""
    table = io.StringIO()
    table.write("Filename,Top_left_lat,Top_left_lon,Bottom_right_lat,Bottom_right_long\n")
    with zipfile.ZipFile(path, "w") as out:
        for picture in pictures:
            west, south, east, north = bounds[picture.stem]
            table.write(f"{picture.name},{north:.8f},{west:.8f},{south:.8f},{east:.8f}\n")
            out.write(picture, picture.name)
        out.writestr("map.csv", table.getvalue())
    return path


if __name__ == "__main__":
    main()
