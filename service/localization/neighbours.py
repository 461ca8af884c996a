"""Which tiles are of one place."""

import numpy as np
from numpy.typing import NDArray

from service.geo import haversine_m
from service.ground.records import Hit

NEAR_SIDES = 1.1
"""Tiles this close, in sides of the larger one, are of one place. A little over 1: with half overlap the tile two steps
on lies at 1 exactly, and rounding must not decide. The calibration is fitted with the same number, in
``training/export/calibrate.py``."""


def same_place(hits: list[Hit]) -> NDArray[np.bool_]:
    """Which hits name the same place: their centres lie within ``NEAR_SIDES`` sides, of the larger one's.

    So windows of several levels that show one place are one place.

    Returns:
        bool ``[N, N]``, symmetric; the diagonal is true.
    """
    lat, lon = np.array([hit.tile.footprint.centre for hit in hits]).T
    side_m = np.array([hit.tile.footprint.side_m for hit in hits])
    reach_m = NEAR_SIDES * np.maximum(side_m[:, None], side_m)
    near: NDArray[np.bool_] = haversine_m(lat[:, None], lon[:, None], lat, lon) <= reach_m
    return near
