"""Which tiles are of one place."""

import numpy as np
from numpy.typing import NDArray

from service.geo import haversine_m
from service.ground.gallery import Hit

NEAR_SIDES = 1.1
"""Tiles this close, in tile sides, are of one place. A little over 1: with half overlap the tile two steps on lies at 1
exactly, and rounding must not decide. The calibration is fitted with the same number, in
``training/export/calibrate.py``."""


def same_place(hits: list[Hit]) -> NDArray[np.bool_]:
    """Which hits name the same place: entry ``[i, j]`` says whether j's centre lies within ``NEAR_SIDES`` sides of i's.

    Returns:
        bool ``[N, N]``; the diagonal is true.
    """
    lat, lon = np.array([hit.tile.footprint.centre for hit in hits]).T
    side_m = np.array([hit.tile.footprint.side_m for hit in hits])
    near: NDArray[np.bool_] = haversine_m(lat[:, None], lon[:, None], lat, lon) <= NEAR_SIDES * side_m[:, None]
    return near
