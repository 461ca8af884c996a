"""Questions of known answer for ``retrieval.py``: photos as the service looks at them, and windows of maps.

Windows are 224 px of a map, at its own resolution and at half of it, half overlapping, as the service stores them.
Photos are laid flat by their pitch, half of the simulated ones by a pitch that is off by up to 15°, at 0.7 to 1.4 times
the ground of a window, and with any heading.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from PIL import Image
from survey import survey_task
from torch import Generator, Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from service.camera.attitude import Attitude
from service.camera.look import look_of
from service.camera.pinhole import Pinhole
from service.imaging.view import make_view
from training.data.simulator.drone import Drone
from training.data.simulator.looks import flat_positions
from training.data.simulator.scene import Scene, raise_blocks
from training.data.simulator.simulated import SimulatedConfig
from training.data.simulator.textures import Texture, load_dates

SIZE = 224
LEVELS = (1, 2)  # map pixels a window pixel, each way
SCALE = (0.7, 1.4)  # ground side of a photo over that of a window
#: Ground of a pixel in metres, by the folder of the data; the cities' is not known and set to 0.8.
GSD_M = {"levir_cd": 0.5, "sztaki": 1.5, "gaofen": 0.8}
PHOTOS = {"levir_cd": 10, "sztaki": 4, "gaofen": 4}
ARIEL_HFOV_DEG = 67.0  # fits these frames; the data sheet says 73.7
METRES_PER_DEGREE = 111_320.0  # of latitude; good to 0.5 % anywhere
SEED = 20_260_418
AT_ONCE = 1000  # windows that are in memory together


@dataclass(frozen=True)
class Split:
    """Q photos and W windows.

    Attributes:
        photos: uint8 ``[Q, S, S, 3]``.
        windows: uint8 ``[W, S, S, 3]``.
        right: bool ``[Q, W]``; the photo's centre lies within half a side of the window's, at a scale of 0.5 to 2.
        fits: ``[Q]`` the right window whose centre and scale are nearest.
        group: of each photo, what it is told apart by in the tables.
        north_up: the photos' heading is known, and they are drawn so: no other turn of them is asked for.
    """

    name: str
    photos: NDArray[np.uint8]
    windows: NDArray[np.uint8]
    right: NDArray[np.bool_]
    fits: NDArray[np.int64]
    group: list[str]
    north_up: bool = False


@dataclass
class _Windows:
    """Windows of one map: pictures, centres ``[W, 2]`` right and down in map pixels, sides in map pixels."""

    picture: NDArray[np.uint8]
    centre: NDArray[np.float64]
    side: NDArray[np.float64]


def cut_windows(image: Tensor, levels: Sequence[float] = LEVELS) -> _Windows:
    """Cut all half-overlapping windows of a map, uint8 ``[3, H, W]``."""
    pictures, centres, sides = [], [], []
    for level in levels:
        shape = [round(s / level) for s in image.shape[1:]]
        scaled = F.interpolate(image[None].float(), shape, mode="bilinear", antialias=True, align_corners=False)
        rows, columns = (_starts(s) for s in shape)
        for row in rows:
            for column in columns:
                cut = scaled[0, :, row : row + SIZE, column : column + SIZE]
                pictures.append(cut.round().clamp(0, 255).byte().permute(1, 2, 0).numpy())
                centres.append(((column + SIZE / 2) * level, (row + SIZE / 2) * level))
                sides.append(SIZE * level)
    return _Windows(np.stack(pictures), np.array(centres), np.array(sides, float))


def _starts(length: int) -> list[int]:
    return sorted({*range(0, length - SIZE + 1, SIZE // 2), max(0, length - SIZE)})


def other_dates(data: SimulatedConfig, heading_deg: tuple[float, float] = (0.0, 360.0)) -> tuple[Split, Split]:
    """Take the same photos of the held-out places of two dates on the map's own date, and on the other one.

    Args:
        data: where the places are.
        heading_deg: of the photos. What looks to the north is as a photo of known heading is drawn.
    """
    places = [place for place in load_dates(data) if place.name in data.dates_held_out]
    if not places:
        raise SystemExit("The config holds no place of two dates out: give one with data.dates_held_out.")
    maps = [cut_windows(place.image) for place in places]
    owner = np.concatenate([np.full(len(m.side), i) for i, m in enumerate(maps)])
    centre, side = np.concatenate([m.centre for m in maps]), np.concatenate([m.side for m in maps])
    same, other, group, rights = [], [], [], []
    for number, place in enumerate(places):
        photos, point, ground = _photos(place, replace(data, heading_deg=heading_deg), number)
        same += photos[0]
        other += photos[1]
        group += [_folder(place)] * len(point)
        rights.append((np.full(len(point), number), point, ground))
    right, fits = _answers(*(np.concatenate(x) for x in zip(*rights, strict=True)), owner, centre, side)
    windows = np.concatenate([m.picture for m in maps])
    return (
        Split("same date", np.stack(same), windows, right, fits, group),
        Split("other date", np.stack(other), windows, right, fits, group),
    )


def _answers(
    owner: NDArray[np.int64],
    point: NDArray[np.float64],
    ground: NDArray[np.float64],
    of: NDArray[np.int64],
    centre: NDArray[np.float64],
    side: NDArray[np.float64],
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    gap = np.linalg.norm(point[:, None] - centre[None], axis=2) / side
    stretch = np.abs(np.log2(ground[:, None] / side))
    own = owner[:, None] == of
    right = own & (gap <= 0.5) & (stretch <= 1)
    if not right.any(1).all():
        raise SystemExit("A photo has no right window.")  # a bug of this file
    return right, np.where(right, gap + stretch, np.inf).argmin(1)


def _photos(
    place: Texture, data: SimulatedConfig, number: int
) -> tuple[list[list[NDArray[np.uint8]]], NDArray[np.float64], NDArray[np.float64]]:
    """Photos of a place on both dates, their centres in map pixels, and their ground sides in map pixels."""
    gsd_m = GSD_M[_folder(place)]
    assert place.other is not None
    height, width = (side * gsd_m for side in place.image.shape[1:])
    relief = torch.from_numpy(raise_blocks(width, height, np.random.default_rng(SEED + number)))[None]
    dates = [image[None, :3].float() / 255 for image in (place.image, place.other)]
    taken: list[list[NDArray[np.uint8]]] = [[], []]
    points, sides = [], []
    dice = Generator().manual_seed(SEED + number)
    while len(points) < PHOTOS[_folder(place)]:
        level = LEVELS[len(points) % len(LEVELS)]
        scale = SCALE[0] * (SCALE[1] / SCALE[0]) ** float(torch.rand((), generator=dice))
        side_m = SIZE * level * gsd_m
        flight = replace(data, tile_side_m=side_m, scale=(scale, scale), flat_share=1.0, cache=None)
        drone = Drone(flight, SIZE)
        room = torch.tensor([width, height]) / 2 - side_m / 2
        target = (torch.rand(1, 2, generator=dice) * 2 - 1) * room
        seed = int(torch.randint(2**31, (), generator=dice))
        views = [drone.looks(Scene(image, relief, gsd_m), target, Generator().manual_seed(seed)) for image in dates]
        east, north = (float(v) for v in views[0].centre[0, :2])
        if not (abs(east) <= width / 2 and abs(north) <= height / 2):
            continue
        for kept, view in zip(taken, views, strict=True):
            kept.append(view.image[0].mul(255).round().byte().permute(1, 2, 0).numpy())
        points.append(((east + width / 2) / gsd_m, (height / 2 - north) / gsd_m))
        sides.append(side_m * scale / gsd_m)
    return taken, np.array(points), np.array(sides)


def _folder(place: Texture) -> str:
    return next(part for part in place.group.split("/") if part in GSD_M)


def fengyuan(folder: Path) -> Split:
    """Return real photos straight down: their centre squares."""
    corners = np.array(list(json.loads((folder / "map.json").read_text())["corners_lonlat"].values()))
    (west, south), (east, north) = corners.min(0), corners.max(0)
    photos, truth = [], []
    for row in _rows(folder):
        image = Image.open(folder / row["file"]).convert("RGB")
        short = min(image.size)
        box = tuple((side + sign * short) / 2 for sign in (-1, 1) for side in image.size)
        photos.append(np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)))
        truth.append((float(row["reg_center_lat"]), float(row["reg_center_lon"])))
    return _real("Fengyuan", folder, (west, south, east, north), photos, truth, [86.0] * len(photos), (2, 4))


def ariel(folder: Path, *, north_up: bool = False) -> Split:
    """Return real photos at 45°, laid flat by their pitch and height; ``north_up`` as the service draws them."""
    bounds = json.loads((folder / "map.json").read_text())["bounds"]
    photos, truth, sides = [], [], []
    for row in _rows(folder):
        up_m, pitch = float(row["rel_alt_m"]), -float(row["pitch_deg"])
        half = math.tan(math.radians(ARIEL_HFOV_DEG) / 2)
        side_m = 0.9 * 2 * half * up_m / math.sin(math.radians(pitch))
        picture = Image.open(folder / row["file"]).convert("RGB")
        if north_up:
            attitude = Attitude.of_angles(float(row["reg_heading_deg"]), -pitch)
            camera = Pinhole(attitude, ARIEL_HFOV_DEG, picture.height / picture.width)
            square = make_view(picture, look_of(camera, north_up=True))
            photos.append(np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BICUBIC)))
        else:
            image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
            across, upward = flat_positions(torch.tensor([up_m]), torch.tensor([pitch]), torch.tensor([side_m]), SIZE)
            aspect = image.shape[1] / image.shape[2]
            grid = torch.stack((across / half, -upward / (half * aspect)), -1).reshape(1, SIZE, SIZE, 2)
            look = F.grid_sample(image[None].float(), grid, align_corners=False)[0]
            photos.append(look.round().byte().permute(1, 2, 0).numpy())
        truth.append((float(row["reg_center_lat"]), float(row["reg_center_lon"])))
        sides.append(side_m)
    edges = (bounds["west"], bounds["south"], bounds["east"], bounds["north"])
    split = _real("Ariel", folder, edges, photos, truth, sides, LEVELS)
    return replace(split, name="Ariel, north up", north_up=True) if north_up else split


def survey_split(folder: Path) -> Split:
    """Return real photos straight down against half-overlapping tiles of 86 m (``survey.py``)."""
    task = survey_task(folder, SIZE)
    photos, windows = (
        images.load(range(len(images))).mul(255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        for images in (task.queries, task.gallery)
    )
    right = np.zeros((len(photos), len(windows)), bool)
    for row, positives in zip(right, task.positives, strict=True):
        row[positives] = True
    fits = np.array([positives[0] for positives in task.positives])
    return Split(folder.name, photos, windows, right, fits, [folder.name] * len(photos))


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "meta.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["reg_ok"] == "1"]


def _real(
    name: str,
    folder: Path,
    bounds: tuple[float, float, float, float],
    photos: list[NDArray[np.uint8]],
    truth: list[tuple[float, float]],
    sides_m: list[float],
    levels: Sequence[float],
) -> Split:
    west, south, east, north = bounds
    image = torch.from_numpy(np.array(Image.open(folder / "map.jpg").convert("RGB"))).permute(2, 0, 1)
    windows = cut_windows(image, levels)
    height, width = image.shape[1:]
    points = np.array(
        [((lon - west) / (east - west) * width, (north - lat) / (north - south) * height) for lat, lon in truth]
    )
    gsd_m = (north - south) * METRES_PER_DEGREE / height
    one = np.zeros(len(photos), np.int64)
    right, fits = _answers(
        one, points, np.array(sides_m) / gsd_m, np.zeros(len(windows.side), np.int64), windows.centre, windows.side
    )
    return Split(name, np.stack(photos), windows.picture, right, fits, [name] * len(photos))


def distractors(root: Path, globs: Sequence[str], count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield windows of other places, random squares of random pictures, at most ``AT_ONCE`` uint8 ``[N, S, S, 3]``."""
    paths = sorted(path for glob in globs for path in root.glob(glob))
    rng = np.random.default_rng(SEED)
    for start in range(0, count, AT_ONCE):
        windows = []
        while len(windows) < AT_ONCE:
            with Image.open(paths[int(rng.integers(len(paths)))]) as picture:
                image = picture.convert("RGB")
            side = float(rng.uniform(SIZE * 0.8, min(*image.size, SIZE * 2.2)))
            for _ in range(4):
                left, top = rng.uniform(0, image.width - side), rng.uniform(0, image.height - side)
                box = (left, top, left + side, top + side)
                windows.append(np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)))
        yield np.array(windows[: count - start], np.uint8)
