"""VIGOR (Zhu et al., CVPR 2021): street panoramas anywhere in the tiles of four cities.

Tiles overlap by half. A panorama lies in the middle of one tile, its positive, and near the edges of three others, its
semi-positives. Labels give where, in pixels of the tile; the first release assumed a wrong ground resolution, which
SliceMatch (Lentsch et al., CVPR 2023) corrected.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from training.data.base import Task
from training.data.images import FilePairs, ImageFiles, InputSize
from training.data.layout import Layout
from training.schema import STRICT

TREE = """
  Chicago/panorama/PREFIX,LAT,LON,.jpg   Chicago/satellite/satellite_LAT_LON.png   (and the other cities)
  LABELS/Chicago/satellite_list.txt
  LABELS/Chicago/same_area_balanced_train.txt, same_area_balanced_test.txt, pano_label_balanced.txt
(LABELS is what data.labels says; the names of files in splits__corrected end with __corrected.txt)"""

#: Ground resolution of the tiles, metres per pixel at 640 px (SliceMatch's; more digits in UnifyGeo's code).
GSD_M = {"NewYork": 0.113248, "Seattle": 0.100817, "SanFrancisco": 0.118141, "Chicago": 0.111262}
TILE_PX = 640
#: Cities of the cross-area protocol; same-area uses all four on both sides.
CROSS_TRAIN, CROSS_TEST = ("NewYork", "Seattle"), ("SanFrancisco", "Chicago")


@dataclass(frozen=True, config=STRICT)
class VIGORConfig:
    """Where the data set is, and which protocol and labels are used."""

    root: Path  # the folder that holds the cities
    area: Literal["same", "cross"] = "same"
    labels: Literal["splits__corrected", "splits_new", "splits"] = "splits__corrected"  # splits: the first release
    # width over height of the panoramas that the model gets: 2 as published; 1 squashes them, as models that take
    # squares alone need (exported files, ViTs)
    panorama_aspect: Annotated[int, Field(ge=1, le=4)] = 1
    # together: tiles that show a panorama in part may be its negatives in a batch, as in Sample4Geo's published code;
    # apart: no batch has them (ours)
    semi_positives: Literal["together", "apart"] = "together"
    dataset: Literal["vigor"] = "vigor"


class Panorama(NamedTuple):
    """One line of a label file: ``tiles`` are the positive and the semi-positives, as rows of the tile list."""

    path: Path
    tiles: tuple[int, ...]
    offset_m: tuple[float, float]  # right and down of the panorama from the positive's centre
    city: str


class VIGOR:
    """The data set; labels are read and compared with the folders on opening.

    Args:
        config: where it is.
        size: of the images that the model wants.

    Raises:
        TrainingError: the folder is not laid out as ``TREE`` shows, or a label names an image that is not there.
    """

    def __init__(self, config: VIGORConfig, size: InputSize) -> None:
        self.config, self.size = config, size
        self.layout = Layout("VIGOR", config.root, TREE)
        same = config.area == "same"
        train, test = (tuple(GSD_M), tuple(GSD_M)) if same else (CROSS_TRAIN, CROSS_TEST)
        self.train_side = _Side(self, train, "same_area_balanced_train" if same else "pano_label_balanced")
        self.test_side = _Side(self, test, "same_area_balanced_test" if same else "pano_label_balanced")

    def train(self) -> FilePairs:
        """Pair every panorama with its positive tile, which is its place; offsets in metres."""
        side = self.train_side
        used = sorted({panorama.tiles[0] for panorama in side.panoramas})
        number = {tile: i for i, tile in enumerate(used)}
        gsd_m = np.array([GSD_M[panorama.city] for panorama in side.panoramas])
        return FilePairs(
            photos=[panorama.path for panorama in side.panoramas],
            tiles=[side.tiles[panorama.tiles[0]] for panorama in side.panoramas],
            place=np.array([number[panorama.tiles[0]] for panorama in side.panoramas], np.int64),
            places=len(used),
            size=self.size,
            position=side.tile_positions()[used],
            offset_m=np.array([panorama.offset_m for panorama in side.panoramas]),
            tile_side_m=gsd_m * TILE_PX,
            also_shows=self._apart(number),
            turns="both",
            aspect=self.config.panorama_aspect,
        )

    def _apart(self, number: dict[int, int]) -> list[NDArray[np.int64]] | None:
        """Of each panorama, the places that may not share a batch with it."""
        if self.config.semi_positives == "together":
            return None
        semis = (panorama.tiles[1:] for panorama in self.train_side.panoramas)
        return [np.array([number[tile] for tile in tiles if tile in number], np.int64) for tiles in semis]

    def tasks(self) -> list[Task]:
        """Return ``ground_to_satellite``: all test panoramas in all tiles of the test cities."""
        side, root = self.test_side, self.layout.root
        own = np.array([panorama.tiles[0] for panorama in side.panoramas], np.int64)
        names = [panorama.path for panorama in side.panoramas]
        where = np.array([self._position(path, *path.name.split(",")[1:3]) for path in names])
        aspect = self.config.panorama_aspect
        queries = ImageFiles(names, own, self.size, root, position=where, aspect=aspect)
        rows = np.arange(len(side.tiles), dtype=np.int64)
        gallery = ImageFiles(side.tiles, rows, self.size, root, position=side.tile_positions())
        semis = [np.array(panorama.tiles[1:], np.int64) for panorama in side.panoramas]
        own_tile = [tile[None] for tile in own]
        return [Task("ground_to_satellite", queries, gallery, own_tile, semis, np.array(side.side_m))]

    def _position(self, path: Path, *latlon: str) -> tuple[float, float]:
        try:
            lat, lon = (float(value) for value in latlon)
        except ValueError as error:
            raise self.layout.wrong(f"the name of {path.name} does not hold its latitude and longitude.") from error
        return lat, lon


class _Side:
    """Tiles and panoramas of some cities, by one label file of each."""

    def __init__(self, data: VIGOR, cities: tuple[str, ...], label: str) -> None:
        self.data, self.tiles, self.panoramas = data, list[Path](), list[Panorama]()
        self.side_m: list[float] = []  # of each tile
        for city in cities:
            self._read(city, label)

    def tile_positions(self) -> NDArray[np.float64]:
        """``[tiles, 2]`` lat, lon of the tiles' centres."""
        return np.array([self.data._position(path, *path.stem.split("_")[1:3]) for path in self.tiles])

    def _read(self, city: str, label: str) -> None:
        layout, labels = self.data.layout, self.data.config.labels
        row: dict[str, int] = {}
        there = {
            view: {path.name: path for path in layout.images(f"{city}/{view}")} for view in ("satellite", "panorama")
        }
        for name in layout.lines(f"{labels}/{city}/satellite_list.txt"):
            if name not in there["satellite"]:
                raise layout.wrong(f"{city}/satellite_list.txt names {name}, which is not in {city}/satellite/.")
            row[name] = len(self.tiles)
            self.tiles.append(there["satellite"][name])
            self.side_m.append(GSD_M[city] * TILE_PX)
        file = f"{labels}/{city}/{label}{'__corrected' if labels.endswith('__corrected') else ''}.txt"
        for number, line in enumerate(layout.lines(file), start=1):
            name, *values = line.split()
            try:
                tiles = tuple(row[tile] for tile in values[0::3])
                down_px, left_px = float(values[1]), float(values[2])
            except (KeyError, ValueError, IndexError):
                tiles = ()
            if len(tiles) != 4 or len(values) != 12:
                raise layout.wrong(f"line {number} of {file} is not a panorama and four known tiles with offsets.")
            if name not in there["panorama"]:
                raise layout.wrong(f"{file} names {name}, which is not in {city}/panorama/.")
            # the data set's own plots put the panorama at column 320 - second number, row 320 + first number
            offset_m = (-left_px * GSD_M[city], down_px * GSD_M[city])
            self.panoramas.append(Panorama(there["panorama"][name], tiles, offset_m, city))
