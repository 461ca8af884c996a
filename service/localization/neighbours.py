"""Which tiles are of one place."""

import numpy as np
from numpy.typing import NDArray

from service.geo import MEAN_RADIUS_M
from service.ground.records import Hit

NEAR_SIDES = 1.1
"""Tiles this close, in sides of the larger one, are of one place. It is a little over 1: with half overlap the tile two
steps on lies at 1 exactly, and rounding must not decide. The calibration is fitted with the same number, in
``training/export/calibrate.py``."""


def same_place(hits: list[Hit]) -> NDArray[np.bool_]:
    """Tell which hits name the same place: their centres lie within ``NEAR_SIDES`` sides, of the larger one's.

    So windows of several levels that show one place are one place.

    Returns:
        bool ``[N, N]``, symmetric; the diagonal is true.
    """
    return _near(hits, hits)


def same_as_first(hits: list[Hit]) -> NDArray[np.bool_]:
    """Tell which hits, bool ``[N]``, name the same place as the first one."""
    near: NDArray[np.bool_] = _near(hits[:1], hits)[0]
    return near


def _near(hits: list[Hit], others: list[Hit]) -> NDArray[np.bool_]:
    """Which of the hits and the others are of one place, ``[N, M]``; by chords, which need no angles between pairs."""
    one, other = _places_m(hits), _places_m(others)
    squares = np.square(one[:, None] - other).sum(axis=2)
    sides_m, other_sides_m = (np.array([hit.tile.footprint.side_m for hit in each]) for each in (hits, others))
    reach = NEAR_SIDES * np.maximum(sides_m[:, None], other_sides_m) / (2 * MEAN_RADIUS_M)
    near: NDArray[np.bool_] = squares <= (2 * MEAN_RADIUS_M * np.sin(np.minimum(reach, np.pi / 2))) ** 2
    return near


def _places_m(hits: list[Hit]) -> NDArray[np.float64]:
    """The centres as points of a sphere, ``[N, 3]``, metres."""
    lat, lon = np.radians([hit.tile.footprint.centre for hit in hits]).T
    return MEAN_RADIUS_M * np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
