"""Real photos over a real map, for the benchmarks.

A folder holds ``map.jpg`` (or a GeoTIFF ``map.tif``), ``map.json`` with its corners, and ``meta.csv`` with the columns
``file, reg_ok, reg_center_lat, reg_center_lon, flight_yaw_deg``: the registered ground point at each photo's centre.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from training.data.base import Task
from training.evaluation.metrics import distance_m

TILE_SIDE_M = 86.0
RIGHT_WITHIN_M = TILE_SIDE_M / 2
METRES_PER_DEGREE = 111_320.0  # of latitude; good to 0.5 % anywhere, and tiles are cut from a map 700 m wide


@dataclass(frozen=True)
class Photo:
    """A photo and the true ``(lat, lon)`` of its centre on the ground."""

    path: Path
    truth: tuple[float, float]
    heading_deg: float


def read_photos(folder: Path) -> list[Photo]:
    """Return the photos whose centre could be registered to the map."""
    with (folder / "meta.csv").open() as file:
        return [
            Photo(
                folder / row["file"],
                (float(row["reg_center_lat"]), float(row["reg_center_lon"])),
                float(row["flight_yaw_deg"]),
            )
            for row in csv.DictReader(file)
            if row["reg_ok"] == "1"
        ]


def map_of(folder: Path) -> Path:
    """Return the folder's map."""
    return next(path for name in ("map.tif", "map.jpg") if (path := folder / name).exists())


def survey_task(folder: Path, image_size: int) -> Task:
    """Ask photos (centre squares, as flown) among half-overlapping tiles; right within half a tile side.

    Args:
        folder: with ``map.jpg``; the corners are taken as a north-up rectangle.
        image_size: of the model, px.
    """
    photos = read_photos(folder)
    queries = Pictures(
        [photo.path.name for photo in photos],
        np.array([photo.truth for photo in photos]),
        [ImageOps.fit(Image.open(photo.path).convert("RGB"), (image_size, image_size)) for photo in photos],
    )
    gallery = _tiles(folder, image_size)
    near = distance_m(queries.position[:, None], gallery.position[None]) <= RIGHT_WITHIN_M
    return Task("drone_to_satellite", queries, gallery, [np.flatnonzero(row).astype(np.int64) for row in near])


class Pictures:
    """Images in memory (``training.data.base.Images``)."""

    def __init__(self, name: list[str], position: NDArray[np.float64], images: list[Image.Image]) -> None:
        self.name, self.position, self.images = name, position, images
        self.place: NDArray[np.int64] = np.arange(len(name), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.name)

    def load(self, index: Sequence[int]) -> Tensor:
        """Load images ``[n, 3, S, S]``, 0 to 1."""
        stacked = torch.from_numpy(np.stack([np.asarray(self.images[i]) for i in index]))
        return stacked.permute(0, 3, 1, 2).float() / 255


def _tiles(folder: Path, image_size: int) -> Pictures:
    corners = np.array(list(json.loads((folder / "map.json").read_text())["corners_lonlat"].values()))
    (west, south), (east, north) = corners.min(0), corners.max(0)
    picture = Image.open(map_of(folder)).convert("RGB")
    tall_m = (north - south) * METRES_PER_DEGREE
    wide_m = (east - west) * METRES_PER_DEGREE * np.cos(np.radians((north + south) / 2))
    names, positions, images = [], [], []
    for y in np.arange(TILE_SIDE_M / 2, tall_m - TILE_SIDE_M / 2, TILE_SIDE_M / 2):
        for x in np.arange(TILE_SIDE_M / 2, wide_m - TILE_SIDE_M / 2, TILE_SIDE_M / 2):
            half = TILE_SIDE_M / 2
            edges = np.array([x - half, y - half, x + half, y + half])
            box = edges / [wide_m, tall_m, wide_m, tall_m] * [*picture.size, *picture.size]
            images.append(picture.resize((image_size, image_size), Image.Resampling.LANCZOS, box=tuple(box)))
            positions.append((north - (north - south) * y / tall_m, west + (east - west) * x / wide_m))
            names.append(f"{y:.0f}/{x:.0f}")
    return Pictures(names, np.array(positions), images)
