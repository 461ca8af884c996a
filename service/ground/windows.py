"""Windows: the squares of a map that are embedded, each a single number.

A level is a zoom of the XYZ scheme (Web Mercator, 256 px a tile). Its windows are squares of S pixels, the side of the
model's input, at multiples of S/2 of that zoom's global pixel grid: window (row, column) covers x from ``column · S/2``
to ``column · S/2 + S``, and y likewise, from 180° west and from the north edge. So all maps share one lattice a level.
Map, zoom, row and column fit into one int64, the window's id: ids are what is stored, searched and sorted, and
everything else about a window follows from its id.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.geo import Bounds, metres_per_degree, wrap_east, wrap_lon
from service.ground.tile import Footprint, Tile

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]

TILE_PX = 256
"""A tile of the XYZ scheme has so many pixels along its side."""

MIN_SIDE_M, MAX_SIDE_M = 40.0, 700.0
"""Windows have sides between these: drones photograph from 40 to 400 m or so, and such photos show this much ground."""

HALF_STEP = math.sqrt(2)
"""Levels differ by a factor of 2, so the nearest one is at most this factor away."""

MAP_BITS, ZOOM_BITS, ROW_BITS, COLUMN_BITS = 11, 5, 23, 24
"""From the top, an id has so many bits for map, zoom, row and column; columns have one more than rows, for maps that
run on over the antimeridian."""

MAX_MAP = 2**MAP_BITS - 1
"""The last map has this number; number 0 is the map of loose pictures, whose ids are their own numbers."""

_ZOOM_SHIFT = ROW_BITS + COLUMN_BITS
_MAP_SHIFT = ZOOM_BITS + _ZOOM_SHIFT

TILE_ID = re.compile(r"(?P<map>[^/]+)/(?P<zoom>\d{1,2})/(?P<row>\d{1,8})/(?P<column>\d{1,8})", re.ASCII)


class Rectangle(NamedTuple):
    """Pixels of a zoom's global grid: from ``left`` up to ``right``, and from ``top`` down to ``bottom``."""

    left: int
    top: int
    right: int
    bottom: int


def pack(number: int, zoom: int, rows: Ids, columns: Ids) -> Ids:
    """Return ids of windows, or of tiles, of map ``number``; rows and columns have any shape."""
    return key_of(number, zoom, 0, 0) | (np.asarray(rows, np.int64) << COLUMN_BITS) | np.asarray(columns, np.int64)


def key_of(number: int, zoom: int, row: int, column: int) -> int:
    """Return the id of one window, or of the tile (zoom, x = column, y = row), of map ``number``."""
    return (number << _MAP_SHIFT) | (zoom << _ZOOM_SHIFT) | (row << COLUMN_BITS) | column


def number_of(key: int) -> int:
    """Return the number of the map that an id belongs to."""
    return key >> _MAP_SHIFT


def maps_of(ids: Ids) -> Ids:
    """Return numbers of the maps that ids belong to."""
    numbers: Ids = ids >> _MAP_SHIFT
    return numbers


def zooms_of(ids: Ids) -> Ids:
    """Return zooms of windows."""
    zooms: Ids = (ids >> _ZOOM_SHIFT) & (2**ZOOM_BITS - 1)
    return zooms


def cells_of(ids: Ids) -> tuple[Ids, Ids]:
    """Return rows and columns of windows."""
    return (ids >> COLUMN_BITS) & (2**ROW_BITS - 1), ids & (2**COLUMN_BITS - 1)


def range_of(number: int, zoom: int | None = None) -> tuple[int, int]:
    """Return the first and the last id that a map, or one zoom of it, can have."""
    if zoom is None:
        return number << _MAP_SHIFT, ((number + 1) << _MAP_SHIFT) - 1
    first = key_of(number, zoom, 0, 0)
    return first, first + (1 << _ZOOM_SHIFT) - 1


def pixel_m(zoom: int, lat: float) -> float:
    """Return the ground metres of a pixel of this zoom: the geometric mean of its width and its height."""
    degrees: float = 360 / (TILE_PX * 2**zoom)
    lon_m, lat_m = metres_per_degree(lat)
    # Web Mercator shrinks a degree of latitude by the cosine, so that a pixel is (nearly) square
    return degrees * math.sqrt(float(lon_m) * float(lat_m) * math.cos(math.radians(lat)))


def nearest_zoom(wanted_m: float, lat: float) -> int:
    """Return the zoom whose pixels are nearest to ``wanted_m``, by their ratio."""
    return max(0, round(math.log2(pixel_m(0, lat) / wanted_m)))


def rectangle_of(bounds: Bounds, zoom: int) -> Rectangle:
    """Find pixels that bounds ``(west, south, east, north)`` touch; over the antimeridian ``right`` passes the end."""
    west, south, east, north = bounds
    side = TILE_PX * 2**zoom
    left, right = ((lon + 180) / 360 * side for lon in (west, east if east > west else east + 360))
    top, bottom = (side * (0.5 - math.asinh(math.tan(math.radians(lat))) / (2 * math.pi)) for lat in (north, south))
    # a corner on the edge of a pixel does not reach into the next one, whatever rounding says
    slack = 1e-6
    return Rectangle(
        math.floor(left + slack),
        max(0, math.floor(top + slack)),
        math.ceil(right - slack),
        min(side, math.ceil(bottom - slack)),
    )


@dataclass(frozen=True)
class Lattice:
    """The windows of a model.

    Args:
        side_px: side S of the model's input, an even number of pixels.
    """

    side_px: int

    @property
    def step_px(self) -> int:
        """From a window to the next: they overlap by half."""
        return self.side_px // 2

    @property
    def max_zoom(self) -> int:
        """The finest zoom whose rows an id can hold: windows of 17 m or so."""
        return int(math.log2(2**ROW_BITS * self.step_px / TILE_PX))

    def side_m(self, zoom: int, lat: float) -> float:
        """Return the ground side of a window."""
        return self.side_px * pixel_m(zoom, lat)

    def levels(self, gsd_m: float, lat: float) -> list[int]:
        """Return the zooms that make a map searchable from every height a drone flies at, finest first.

        Windows cover about 40 to 700 m, no finer than the zoom nearest to the map's own resolution. A map that is too
        coarse for any of them gets that zoom alone.
        """
        native = min(nearest_zoom(gsd_m, lat), self.max_zoom)
        in_reach = [
            zoom
            for zoom in range(native, -1, -1)
            if MIN_SIDE_M / HALF_STEP <= self.side_m(zoom, lat) < MAX_SIDE_M * HALF_STEP
        ]
        return in_reach or [native]

    def level_of(self, side_m: float, lat: float) -> int:
        """Return the zoom whose windows are nearest to a wanted ground side."""
        return min(nearest_zoom(side_m / self.side_px, lat), self.max_zoom)

    def windows_in(self, area: Rectangle) -> Rectangle:
        """Return columns and rows (as a rectangle of them) of the windows whose middle half meets an area of pixels."""
        step, quarter = self.step_px, self.step_px / 2
        first = (max(0, math.floor((start - 3 * quarter) / step) + 1) for start in (area.left, area.top))
        last = (math.ceil((end - quarter) / step) for end in (area.right, area.bottom))
        return Rectangle(*first, *last)

    def centres(self, ids: Ids) -> Floats:
        """Return ``lat, lon`` of windows' centres, ``[N, 2]``: the mean of their corners, as of any footprint."""
        west, south, east, north = self._edges(ids)
        return np.stack([(south + north) / 2, np.asarray(wrap_lon((west + east) / 2))], axis=1)

    def sides_m(self, ids: Ids) -> Floats:
        """Return the square roots of the windows' areas on the ground, ``[N]``."""
        west, south, east, north = self._edges(ids)
        lon_m, lat_m = metres_per_degree((south + north) / 2)
        sides: Floats = np.sqrt((east - west) * lon_m * (north - south) * lat_m)
        return sides

    def tiles(self, ids: Ids, names: dict[int, str]) -> list[Tile | None]:
        """Return windows as tiles, called ``MAP/zoom/row/column``; None for those of maps that ``names`` lacks."""
        if not len(ids):
            return []
        edges = np.stack(self._edges(ids), axis=1).tolist()
        centres, sides_m = self.centres(ids).tolist(), self.sides_m(ids).tolist()
        rows, columns = (part.tolist() for part in cells_of(ids))
        found: list[Tile | None] = []
        for i, (number, zoom) in enumerate(zip(maps_of(ids).tolist(), zooms_of(ids).tolist(), strict=True)):
            if number not in names:
                found.append(None)
                continue
            west, south, east, north = edges[i]
            west, east, beyond = float(wrap_lon(west)), wrap_east(east), float(wrap_lon(east))
            footprint = Footprint.known(
                corners=((north, west), (north, beyond), (south, beyond), (south, west)),
                gsd_m=sides_m[i] / self.side_px,
                centre=(centres[i][0], centres[i][1]),
                bounds=(west, south, east, north),
                side_m=sides_m[i],
            )
            found.append(Tile.known(f"{names[number]}/{zoom}/{rows[i]}/{columns[i]}", footprint))
        return found

    def _edges(self, ids: Ids) -> tuple[Floats, Floats, Floats, Floats]:
        """West, south, east and north of windows, degrees; the east may lie beyond 180."""
        rows, columns = cells_of(ids)
        side = TILE_PX * np.exp2(zooms_of(ids).astype(float))
        west, east = ((columns * self.step_px + end) / side * 360 - 180 for end in (0, self.side_px))
        north, south = (
            np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * (rows * self.step_px + end) / side))))
            for end in (0, self.side_px)
        )
        return west, south, east, north
