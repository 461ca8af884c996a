"""GTA-UAV (Ji et al., AAAI 2025): drone views of a video game's island, and tiles of its map at four zooms.

Any drone view matches any tile that it overlaps enough: positives (IoU over 0.39) and semi-positives (over 0.14). The
game's ground is a plane in metres; positions lay it on the equator at 0°, 0°, where it is as good as flat.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from training.data.base import Task, on_the_equator
from training.data.images import FilePairs, ImageFiles, InputSize
from training.data.layout import Layout
from training.schema import STRICT

TREE = """
  drone/images/200_0001_0000000001.png ..
  satellite/ZOOM_0_X_Y.png ..
  cross-area-drone2sate-train.json   cross-area-drone2sate-test.json   (and same-area-..)"""

#: The map has 24,576 px of 0.45 m on a side at full resolution; zoom z cuts it into 2^z by 2^z tiles of 256 px
#: (constants of the authors' code).
MAP_PX, PX_M, TILE_PX = 24576, 0.45, 256


@dataclass(frozen=True, config=STRICT)
class GTAUAVConfig:
    """Where the data set is, and which protocol is used."""

    root: Path  # the folder that holds drone/, satellite/ and the JSON files
    area: Literal["same", "cross"] = "cross"
    train_tiles: Literal["positive", "semi_positive"] = "semi_positive"  # Game4Loc trains on both kinds
    dataset: Literal["gta_uav"] = "gta_uav"


class View(NamedTuple):
    """One entry of a JSON file: a photo, where it was taken, and the tiles it overlaps, with their IoU."""

    photo: str
    xy_m: tuple[float, float]  # right and down from the map's corner
    positive: dict[str, float]
    semi_positive: dict[str, float]  # as in the file, with the positives among them


class GTAUAV:
    """The data set; the JSON files are read and compared with the folders on opening.

    Args:
        config: where it is.
        size: of the images that the model wants.

    Raises:
        TrainingError: the folder is not laid out as ``TREE`` shows, or an entry names an image that is not there.
    """

    def __init__(self, config: GTAUAVConfig, size: InputSize) -> None:
        self.config, self.size = config, size
        self.layout = Layout("GTA-UAV", config.root, TREE)
        self.photos = {path.name: path for path in self.layout.images("drone/images")}
        self.tiles = {path.name: path for path in self.layout.images("satellite")}
        self.tile_xy_m = {name: self._tile_centre(name) for name in self.tiles}
        self.train_views, self.test_views = self._views("train"), self._views("test")

    def train(self) -> FilePairs:
        """Pair every drone view with every tile it overlaps enough; a tile is a place, IoU is the ``overlap``."""
        semis = self.config.train_tiles == "semi_positive"
        pairs = [
            (view, tile, iou)
            for view in self.train_views
            for tile, iou in (view.semi_positive if semis else view.positive).items()
        ]
        used = sorted({tile for _, tile, _ in pairs})
        number = {tile: i for i, tile in enumerate(used)}
        return FilePairs(
            photos=[self.photos[view.photo] for view, _, _ in pairs],
            tiles=[self.tiles[tile] for _, tile, _ in pairs],
            place=np.array([number[tile] for _, tile, _ in pairs], np.int64),
            places=len(used),
            size=self.size,
            position=_position([self.tile_xy_m[tile] for tile in used]),
            offset_m=np.array([np.subtract(view.xy_m, self.tile_xy_m[tile]) for view, tile, _ in pairs]),
            tile_side_m=np.array([_tile_side_m(int(tile.split("_")[0])) for _, tile, _ in pairs]),
            overlap=np.array([iou for _, _, iou in pairs], np.float64),
            also_shows=[_rows(number, (view.semi_positive.keys() & number.keys()) - {tile}) for view, tile, _ in pairs],
        )

    def tasks(self) -> list[Task]:
        """Return ``drone_to_satellite`` among all tiles of the map, ``satellite_to_drone`` among the test photos."""
        views = [view for view in self.test_views if view.positive]
        names = sorted(self.tiles)
        row = {name: i for i, name in enumerate(names)}
        positives = [_rows(row, view.positive) for view in views]
        semis = [_rows(row, view.semi_positive.keys() - view.positive.keys()) for view in views]
        best = [row[max(view.positive, key=view.positive.__getitem__)] for view in views]
        photos = self._images([self.photos[view.photo] for view in views], best, [view.xy_m for view in views])
        asked = sorted({int(tile) for own in positives for tile in own})
        tiles, asked_tiles = (
            self._images([self.tiles[names[i]] for i in rows], rows, [self.tile_xy_m[names[i]] for i in rows])
            for rows in (list(range(len(names))), asked)
        )
        return [
            Task("drone_to_satellite", photos, tiles, positives, semis),
            Task("satellite_to_drone", asked_tiles, photos, _inverted(positives, asked), _inverted(semis, asked)),
        ]

    def _images(self, paths: list[Path], place: list[int], xy_m: list[tuple[float, float]]) -> ImageFiles:
        where = _position(xy_m)
        return ImageFiles(paths, np.array(place, np.int64), self.size, self.layout.root, position=where)

    def _views(self, part: str) -> list[View]:
        file = f"{self.config.area}-area-drone2sate-{part}.json"
        try:
            views = [
                View(
                    str(entry["drone_img_name"]),
                    (float(entry["drone_loc_x_y"][0]), float(entry["drone_loc_x_y"][1])),
                    _weights(entry, "pos"),
                    _weights(entry, "pos_semipos"),
                )
                for entry in json.loads(self.layout.text(file))
            ]
        except (ValueError, LookupError, TypeError) as error:
            raise self.layout.wrong(f"{file} is not the data set's list of pairs: {error!r}.") from error
        for view in views:
            if view.photo not in self.photos:
                raise self.layout.wrong(f"{file} names {view.photo}, which is not in drone/images/.")
            for tile in (*view.positive, *view.semi_positive):
                if tile not in self.tiles:
                    raise self.layout.wrong(f"{file} names {tile}, which is not in satellite/.")
        if not any(view.positive for view in views):
            raise self.layout.wrong(f"{file} has no photo with a positive tile.")
        return views

    def _tile_centre(self, name: str) -> tuple[float, float]:
        """Metres right and down from the map's corner; names are ``ZOOM_X_Y`` or ``ZOOM_OFFSET_X_Y``, offset in px."""
        try:
            zoom, *offset, x, y = (int(value) for value in Path(name).stem.split("_"))
        except ValueError as error:
            raise self.layout.wrong(f"satellite/{name} is not named ZOOM_OFFSET_X_Y.") from error
        shift = 0.5 + sum(offset) / TILE_PX
        return _tile_side_m(zoom) * (x + shift), _tile_side_m(zoom) * (y + shift)


def _tile_side_m(zoom: int) -> float:
    return MAP_PX * PX_M / (1 << zoom)


def _weights(entry: dict[str, Any], kind: str) -> dict[str, float]:
    names, weights = entry[f"pair_{kind}_sate_img_list"], entry[f"pair_{kind}_sate_weight_list"]
    return {str(name): float(iou) for name, iou in zip(names, weights, strict=True)}


def _position(xy_m: list[tuple[float, float]]) -> NDArray[np.float64]:
    right_m, down_m = np.array(xy_m, np.float64).T
    return on_the_equator(right_m, -down_m)


def _rows(row: dict[str, int], names: Iterable[str]) -> NDArray[np.int64]:
    return np.array(sorted(row[name] for name in names), np.int64)


def _inverted(rows: list[NDArray[np.int64]], asked: list[int]) -> list[NDArray[np.int64]]:
    """Which lists hold each of the asked numbers."""
    holders: dict[int, list[int]] = defaultdict(list)
    for i, own in enumerate(rows):
        for number in own:
            holders[int(number)].append(i)
    return [np.array(holders[number], np.int64) for number in asked]
