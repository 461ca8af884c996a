"""Photos aslant, rolled, and from far below and above a window's size: how often is the right place first?

    python benchmarks/pitch.py --data FOLDER [--hints none all] [--count 3]

The map is that of ``heights.py``, beside the demo town. A camera without distortion looks at it with a pitch of -90 to
-30 and any roll up to 15°, from where its photo is 0.4 to 3 times as wide, on the ground at its centre, as a window of
``WINDOW_M``; what it takes is changed as cameras change it. A photo counts as found when the answer lies within a
quarter of its short side of the truth. Below: how many truths lie within ``accuracy_m``.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from heights import HFOV_DEG, PHOTO_PX, ROOT, bounds_of, camera, served
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from service.camera.attitude import Attitude
from service.camera.look import FAR_HEIGHTS
from service.camera.pinhole import Pinhole, apply
from service.geo import haversine_m, offset, offset_m

PITCHES_DEG = (-90, -75, -60, -50, -40, -30)
SIZES = (0.4, 0.7, 1.0, 1.7, 3.0)
WINDOW_M, ROLL_DEG = 100.0, 15.0
ASPECT = PHOTO_PX[1] / PHOTO_PX[0]
TRIES = 1000


@dataclass(frozen=True)
class Shot:
    """A photo, the truth about it, and form fields that tell all but the place."""

    photo: bytes
    ground: tuple[float, float]
    camera: tuple[float, float]
    short_m: float
    known: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """What came of a photo; None where the answer does not say."""

    found: bool
    located: bool
    inside: bool | None
    camera_m: float | None
    camera_inside: bool | None


def main() -> None:
    """Print a table for each kind of hints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of real data; see heights.py")
    parser.add_argument("--hints", nargs="*", default=["none", "all"], choices=["none", "all"])
    parser.add_argument("--count", type=int, default=3, help="photos a pitch and size")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "aerofix-lite2.onnx")
    args = parser.parse_args()
    if not (args.data / "fengyuan" / "map.jpg").exists():
        print(f"{args.data} has no fengyuan/map.jpg; nothing to measure.")
        return
    asyncio.run(measure(args.data, args.hints, args.count, args.seed, args.model))


async def measure(data: Path, hints: Sequence[str], count: int, seed: int, model: Path) -> None:
    """Import the maps, ask for the photos, print."""
    Image.MAX_IMAGE_PIXELS = None
    picture = Image.open(data / "fengyuan" / "map.jpg").convert("RGB")
    bounds = bounds_of(data / "fengyuan" / "map.json")
    async with served(picture, bounds, model=model) as http:
        for kind in hints:
            print(f"\nhints: {kind}\n{'pitch':>6}" + "".join(f"{size:>7.1f} x" for size in SIZES), flush=True)
            every = list[Outcome]()
            for pitch in PITCHES_DEG:
                rng = np.random.default_rng([seed, -pitch])
                row = [
                    [await ask(http, shoot(picture, bounds, pitch, s, rng), kind) for _ in range(count)] for s in SIZES
                ]
                every += [each for cell in row for each in cell]
                shares = [f"{sum(each.found for each in cell)}/{len(cell)}" for cell in row]
                print(f"{pitch:>6}" + "".join(f"{share:>9}" for share in shares), flush=True)
            report(every)


def report(every: Sequence[Outcome]) -> None:
    """Print what is claimed, and what of it is true."""
    located = [each for each in every if each.located]
    inside = [each.inside for each in located if each.inside is not None]
    cameras = [each for each in located if each.found and each.camera_m is not None]
    print(f"found {share([each.found for each in every])}, located {share([each.located for each in every])}")
    print(f"of the located: right {share([each.found for each in located])}, in accuracy_m {share(inside)}")
    if cameras:
        median_m = np.median([each.camera_m or 0.0 for each in cameras])
        print(f"camera {median_m:.1f} m off, in accuracy_m {share([bool(each.camera_inside) for each in cameras])}")


def share(hits: Sequence[bool]) -> str:
    """Write it as a share and as numbers."""
    return f"{sum(hits) / max(1, len(hits)):.2f} ({sum(hits)}/{len(hits)})"


async def ask(http: httpx.AsyncClient, shot: Shot, kind: str) -> Outcome:
    """Compare one photo's answer with the truth."""
    form = shot.known if kind == "all" else {}
    told = (await http.post("/localize", files={"image": ("photo.jpg", shot.photo)}, data=form)).json()
    first, position, where = told["candidates"][0], told["position"], told["camera"]
    off_m = float(haversine_m(*shot.ground, first["lat"], first["lon"]))
    camera_m = None if where is None else float(haversine_m(*shot.camera, where["lat"], where["lon"]))
    return Outcome(
        off_m <= shot.short_m / 4,
        told["status"] == "located",
        None if position is None else off_m < position["accuracy_m"],
        camera_m,
        None if where is None or camera_m is None else camera_m < where["accuracy_m"],
    )


def shoot(
    picture: Image.Image, bounds: tuple[float, float, float, float], pitch: float, size: float, rng: np.random.Generator
) -> Shot:
    """Take a photo from a random place from which the ground near enough to be looked at lies on the map."""
    west, south, east, north = bounds
    middle = (south + north) / 2, (west + east) / 2
    map_m = np.array([float(abs(v)) for v in offset_m(south, west, north, east)])
    for _ in range(TRIES):
        heading, roll = rng.uniform(0, 360), rng.uniform(-ROLL_DEG, ROLL_DEG)
        seen = Pinhole(Attitude.of_angles(heading, pitch, roll), HFOV_DEG, ASPECT)
        edges = apply(seen.to_ground, np.array([-0.5 + 0j, 0.5 + 0j]))
        height_m = size * WINDOW_M / float(abs(edges[1] - edges[0]))
        rim = np.array([complex(x, y) for x in (-0.5, 0.0, 0.5) for y in np.linspace(-0.5, 0.5, 9) * ASPECT])
        shown = apply(seen.to_ground, rim)
        shown = height_m * shown[np.abs(shown) < FAR_HEIGHTS]  # NaN, the sky, is left out
        place = complex(*(rng.uniform(-0.5, 0.5, 2) * map_m))
        on_map = place + shown
        if len(shown) and (abs(on_map.real) < map_m[0] / 2).all() and (abs(on_map.imag) < map_m[1] / 2).all():
            break
    else:
        raise ValueError(f"no place on the map from which to look with a pitch of {pitch} at {size} windows")
    centre = place + height_m * complex(apply(seen.to_ground, np.zeros(1, complex))[0])
    known = {"heading_deg": seen.attitude.heading_deg, "pitch_deg": pitch, "roll_deg": roll}
    known |= {"altitude_m": height_m, "hfov_deg": HFOV_DEG}
    ground, above = (tuple(float(v) for v in offset(*middle, each.real, each.imag)) for each in (centre, place))
    fields = {name: f"{value:.2f}" for name, value in known.items()}
    drawn = draw(picture, map_m, seen, place, height_m)
    return Shot(camera(drawn, rng), ground, above, size * WINDOW_M * ASPECT, fields)  # type: ignore[arg-type]


def draw(
    picture: Image.Image, map_m: NDArray[np.float64], seen: Pinhole, place: complex, height_m: float
) -> Image.Image:
    """Draw what the camera sees of the picture as level ground; sky and ground beyond its edge are grey."""
    width, height = PHOTO_PX
    to_photo = np.array([[1 / width, 0, -0.5], [0, -1 / width, height / width / 2], [0, 0, 1]])
    to_place = np.array([[height_m, 0, place.real], [0, height_m, place.imag], [0, 0, 1]])
    px = [float(v) for v in np.array(picture.size) / map_m]
    to_picture = np.array([[px[0], 0, picture.width / 2], [0, -px[1], picture.height / 2], [0, 0, 1]])
    matrix = to_picture @ to_place @ seen.to_ground @ to_photo
    edges = apply(seen.to_ground, np.array([0j, 1e-3 + 0j]))
    shrink = float(abs(edges[1] - edges[0])) / 1e-3 * height_m / width * px[0]
    source = picture if shrink <= 1 else picture.filter(ImageFilter.GaussianBlur(0.5 * shrink))
    flat = tuple((matrix / matrix[2, 2]).ravel()[:8])
    photo = source.transform(
        PHOTO_PX, Image.Transform.PERSPECTIVE, flat, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128)
    )
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    sky = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] <= 0
    return Image.composite(Image.new("RGB", PHOTO_PX, (170, 190, 215)), photo, Image.fromarray(sky))


if __name__ == "__main__":
    main()
