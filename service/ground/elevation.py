"""How high the ground of a map is: a grid of heights above sea level, read between its points."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.geo import Bounds, FloatArray, Values, wrap_lon
from service.ground.windows import MAX_MAP

T = TypeVar("T")

CACHED = 4
"""So many grids that were asked for last are kept at hand: 16 MB each at the most, see
``service/maps/elevation.py``."""

NEAR_DEG = 0.01
"""No map is asked for heights of places that are further from it than this, in degrees of latitude (1.1 km)."""


@dataclass(frozen=True)
class Grid:
    """Where the heights of an elevation lie.

    Attributes:
        origin: name of the file that they came from.
        west, north: of the centre of the first height, degrees.
        step_lon, step_lat: degrees from one to the next, eastwards and southwards.
        low_m, high_m: the lowest and the highest.
        covers: share of the map's bounds that has heights.
    """

    origin: str
    west: float
    north: float
    step_lon: float
    step_lat: float
    low_m: float
    high_m: float
    covers: float


@dataclass(frozen=True, eq=False)
class Elevation:
    """The ground's height.

    Attributes:
        grid: where the heights lie.
        heights_m: ``[rows, columns]`` from the north-west, metres above sea level; NaN where nobody knows.
    """

    grid: Grid
    heights_m: NDArray[np.float32]

    def at(self, lat: Values, lon: Values) -> FloatArray:
        """Tell heights of places, between four points of the grid; NaN outside it, and beside one that nobody knows."""
        rows, columns = self.heights_m.shape
        down = (self.grid.north - np.asarray(lat, np.float64)) / self.grid.step_lat
        right = np.asarray(wrap_lon(np.subtract(lon, self.grid.west))) / self.grid.step_lon
        inside = (down >= 0) & (down <= rows - 1) & (right >= 0) & (right <= columns - 1)
        down, right = np.where(inside, down, 0.0), np.where(inside, right, 0.0)
        top, left = np.minimum(down.astype(int), rows - 2), np.minimum(right.astype(int), columns - 2)
        low, along = down - top, right - left
        upper = self.heights_m[top, left] * (1 - along) + self.heights_m[top, left + 1] * along
        lower = self.heights_m[top + 1, left] * (1 - along) + self.heights_m[top + 1, left + 1] * along
        return np.asarray(np.where(inside, upper * (1 - low) + lower * low, np.nan), np.float64)[()]


class Elevations:
    """Stored elevations, from memory where they were asked for before. Safe to use from several threads.

    Args:
        read: that of the map with a number, or None.
        read_grid: of that, where its heights lie, which is much quicker.
    """

    def __init__(self, read: Callable[[int], Elevation | None], read_grid: Callable[[int], Grid | None]) -> None:
        self._read, self._read_grid = read, read_grid
        self._kept: OrderedDict[int, Elevation | None] = OrderedDict()
        self._grids: OrderedDict[int, Grid | None] = OrderedDict()
        self._changes = 0  # what was read before one is not kept after it
        self._lock = threading.Lock()

    def get(self, number: int) -> Elevation | None:
        """Return the elevation of a map; None when it has none."""
        return None if self.grid(number) is None else self._cached(self._kept, self._read, number, CACHED)

    def grid(self, number: int) -> Grid | None:
        """Tell where the heights of a map lie, without those; None when it has none."""
        return self._cached(self._grids, self._read_grid, number, MAX_MAP)

    def forget(self, number: int) -> None:
        """Drop what was written or deleted."""
        with self._lock:
            self._changes += 1
            self._kept.pop(number, None)
            self._grids.pop(number, None)

    def _cached(self, kept: OrderedDict[int, T], read: Callable[[int], T], number: int, most: int) -> T:
        with self._lock:
            changes = self._changes
            if number in kept:
                kept.move_to_end(number)
                return kept[number]
        found = read(number)
        with self._lock:
            if self._changes == changes:
                kept[number] = found
                if len(kept) > most:
                    kept.popitem(last=False)
        return found


def is_near(bounds: Bounds, lat: float, lon: float) -> bool:
    """Say whether a place lies in ``(west, south, east, north)`` or within ``NEAR_DEG`` of it."""
    west, south, east, north = bounds
    width = east - west if east >= west else east - west + 360
    around = min(180.0, NEAR_DEG / max(1e-6, math.cos(math.radians(lat))))
    along = (lon - west + around) % 360 <= width + 2 * around
    return along and south - NEAR_DEG <= lat <= north + NEAR_DEG
