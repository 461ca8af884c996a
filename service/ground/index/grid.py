"""Which windows lie in a circle, without looking at all of them: centres sorted by cells of a grid.

A cell is a quarter of a hundredth of a degree each way, 278 m of latitude, so that a circle of a kilometre meets a few
dozen. Cells are numbered row by row from the south pole and, in a row, from 180° west: the cells of a row that a circle
meets are one run of numbers, or two over the antimeridian.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from service.geo import MEAN_RADIUS_M, Circle, wrap_lon
from service.ground.index.protocol import Centres

Numbers = NDArray[np.int64]

CELL_DEG = 0.0025
COLUMNS = round(360 / CELL_DEG)
ROWS = round(180 / CELL_DEG) + 1
"""The grid has so many rows; the pole itself has one of its own."""

MARGIN_DEG = 1e-9
"""Circles are widened by this, a tenth of a millimetre, which covers rounding."""


def cells_of(centres: Centres) -> Numbers:
    """Return cells of centres ``lat, lon``, ``[N, 2]``."""
    rows = np.floor((centres[:, 0] + 90) / CELL_DEG).astype(np.int64)
    return rows * COLUMNS + _columns(np.asarray(wrap_lon(centres[:, 1])))


def runs_in(area: Circle) -> tuple[Numbers, Numbers]:
    """Find the first and last cells of the runs that hold a circle, and a little more."""
    angle = area.radius_m / MEAN_RADIUS_M
    half_lat = math.degrees(angle) + MARGIN_DEG
    south, north = ((area.lat + 90 + side * half_lat) / CELL_DEG for side in (-1, 1))
    rows = np.arange(max(0, math.floor(south)), min(ROWS - 1, math.floor(north)) + 1)
    spans = [
        (int(_columns(np.float64(west))), int(_columns(np.float64(east))))
        for west, east in _longitudes(area, angle, half_lat)
    ]
    firsts = np.concatenate([rows * COLUMNS + first for first, _ in spans])
    return firsts, np.concatenate([rows * COLUMNS + last for _, last in spans])


def _columns(lon: NDArray[np.float64] | np.float64) -> Numbers:
    return np.asarray(np.minimum(np.floor((lon + 180) / CELL_DEG), COLUMNS - 1), np.int64)


def _longitudes(area: Circle, angle: float, half_lat: float) -> list[tuple[float, float]]:
    """Spans of longitude, from west to east, that a circle of this angular radius reaches."""
    if abs(area.lat) + half_lat >= 90:  # around a pole
        return [(-180.0, 180.0)]
    # where the meridian touches the circle it meets its radius at a right angle: Napier's rules for spherical triangles
    half_lon = math.degrees(math.asin(min(1.0, math.sin(angle) / math.cos(math.radians(area.lat))))) + MARGIN_DEG
    half_lon += MARGIN_DEG / math.cos(math.radians(area.lat))
    west, east = area.lon - half_lon, area.lon + half_lon
    if west < -180:
        return [(west + 360, 180.0), (-180.0, east)]
    if east >= 180:
        return [(west, 180.0), (-180.0, east - 360)]
    return [(west, east)]
