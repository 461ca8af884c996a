"""At which scale a photo of known ground size is compared."""

import math
import threading

import numpy as np
from numpy.typing import NDArray

from service.ground.gallery import Gallery

WORSE = 0.5
"""A window is dropped for one of the same ground when it is further from the photo's size by so many octaves: half of
what lies between two levels."""

FITS = 1.5
"""Levels are a factor of 2 apart, so that one of each map is off by at most the square root of that, and a little."""

FAR_M = 1e9
"""No window's side is as long."""

M_PER_DEGREE = 111_320.0
"""A degree of latitude is roughly so many metres: good enough to tell what overlaps."""

Floats = NDArray[np.float64]


class TileSizes:
    """The sides of a gallery's tiles and windows; read again when it has changed. Safe to use from several threads."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._lock = threading.Lock()
        self._known: tuple[int, list[float]] = (-1, [])

    def sides_m(self, generation: int) -> list[float]:
        """Return sides in metres, ascending, each once; empty for an empty gallery.

        Args:
            generation: of the gallery; it is looked at once for each.
        """
        with self._lock:
            if self._known[0] != generation:
                self._known = (generation, np.unique(self._gallery.sides_m().round(1)).tolist())
            return self._known[1]


def levels(sides_m: list[float]) -> int:
    """Tell how many levels, a factor of 2 apart, there are between the smallest and the largest side; at least 1."""
    return 1 if not sides_m else 1 + round(math.log2(sides_m[-1] / sides_m[0]))


def levels_of(sides_m: Floats) -> NDArray[np.intp]:
    """Give the level of each side, ``[N]``: how often it is twice the smallest one, rounded; 0 of NaN, what is gone."""
    smallest_m = np.nanmin(sides_m, initial=FAR_M)
    return np.rint(np.log2(np.where(np.isnan(sides_m), smallest_m, sides_m) / smallest_m)).astype(np.intp)


def first_of_levels(sides_m: Floats, count: int, at_least: int = 0) -> NDArray[np.intp]:
    """Return rows, ascending, of the first of each level, ``count`` in all.

    Args:
        sides_m: of N windows or pictures, best first.
        count: how many, of all levels together; fewer where a level has less.
        at_least: the first ones are among them whatever their level.
    """
    level = levels_of(sides_m)
    present = np.unique(level)
    taken = np.arange(len(level)) < at_least
    for each in present:
        taken[np.flatnonzero(level == each)[: count // len(present)]] = True
    return np.flatnonzero(taken)


def fitting_side_m(sides_m: list[float], ground_side_m: float) -> float | None:
    """Return the side to which a photo of this ground size is cropped, if it is larger; None for an empty gallery.

    The largest that is not off by more than ``FITS``, for each map has levels of its own, and one whose windows are a
    little smaller than the photo must not crop it for all others; where none is, the one whose ratio is nearest to 1.
    """
    fitting = [side_m for side_m in sides_m if ground_side_m / FITS <= side_m <= ground_side_m * FITS]
    if fitting:
        return max(fitting)
    return min(sides_m, key=lambda side_m: abs(math.log(side_m / ground_side_m)), default=None)


def prefer_size(centres: Floats, sides_m: Floats, nearest_m: Floats, ground_side_m: float) -> NDArray[np.intp]:
    """Leave out what shows ground that another, clearly nearer to the photo's size, shows as well.

    A window goes when its map has such a level, whether or not the search found windows of it; a loose picture when
    one that was found lies over it. A place that is shown in another size only keeps it: a preference must not hide a
    part of the ground.

    Args:
        centres: ``lat, lon`` of N windows or pictures, ``[N, 2]``.
        sides_m: their sides, ``[N]``.
        nearest_m: side of the level of its map that is nearest to the photo's size, ``[N]``; of a picture its own.
        ground_side_m: of the photo.

    Returns:
        Rows of those that are left, ascending.
    """
    off = np.abs(np.log2(sides_m / ground_side_m))
    rows = np.flatnonzero(off <= np.abs(np.log2(nearest_m / ground_side_m)) + WORSE)
    return rows[_not_covered(centres[rows], sides_m[rows], off[rows])]


def _not_covered(centres: Floats, sides_m: Floats, off: Floats) -> NDArray[np.intp]:
    """Rows of what nothing covers that is nearer to the photo's size, by ``off`` octaves each."""
    if len(off) == 0 or off.max() <= off.min() + WORSE:
        return np.arange(len(off))
    lat, lon = centres.T
    north_m = (lat[:, None] - lat) * M_PER_DEGREE
    east_m = ((lon[:, None] - lon + 180) % 360 - 180) * (M_PER_DEGREE * np.cos(np.radians(lat)))
    # two squares overlap by half or more of the smaller when the one's centre lies within the other
    reach_m = np.maximum(sides_m[:, None], sides_m) / 2
    same = (north_m**2 + east_m**2 <= reach_m**2) & (off[:, None] > off + WORSE)
    return np.flatnonzero(~same.any(axis=1))
