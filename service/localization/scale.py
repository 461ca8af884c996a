"""Which of the gallery's tile sizes a photo is compared with."""

import math
import threading

import numpy as np
from numpy.typing import NDArray

from service.geo import haversine_m
from service.ground.gallery import Gallery, Hit

SAME_SIZE = 1.25
"""Sides whose ratio stays below this are of one size: Web Mercator tiles shrink by the cosine of the latitude, and a
rounded window by less than a percent, while sizes that are chosen on purpose usually double."""


class TileSizes:
    """The tile sizes of a gallery; read again when the gallery has changed. Safe to use from several threads."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._lock = threading.Lock()
        self._known: tuple[int, list[float]] = (-1, [])

    def sides_m(self, generation: int) -> list[float]:
        """Median side of each size in metres, smallest first; empty for an empty gallery.

        Args:
            generation: of the gallery; the tiles are looked at once for each.
        """
        with self._lock:
            if self._known[0] != generation:
                self._known = (generation, group_sides(self._gallery.sides_m()))
            return self._known[1]


def group_sides(sides_m: NDArray[np.float64]) -> list[float]:
    """Medians of the groups into which sides fall where the next larger one is ``SAME_SIZE`` times as long or more."""
    ordered = np.sort(sides_m)
    if not len(ordered):
        return []
    breaks = np.flatnonzero(ordered[1:] >= SAME_SIZE * ordered[:-1]) + 1
    return [float(np.median(group)) for group in np.split(ordered, breaks)]


def closest_side_m(sides_m: list[float], ground_side_m: float) -> float | None:
    """The size whose ratio to a photo's ground size is nearest to 1; None for an empty gallery."""
    return min(sides_m, key=lambda side_m: abs(math.log(side_m / ground_side_m)), default=None)


def prefer_size(hits: list[Hit], side_m: float) -> list[Hit]:
    """Drop hits of other sizes where one of the preferred size shows the same ground.

    A place that only tiles of another size cover keeps them: a preference must not hide a part of the map.

    Args:
        hits: best first.
        side_m: the preferred size.

    Returns:
        The hits that are left, in the same order.
    """
    sides_m = np.array([hit.tile.footprint.side_m for hit in hits])
    preferred = (sides_m < SAME_SIZE * side_m) & (side_m < SAME_SIZE * sides_m)
    if preferred.all() or not preferred.any():
        return hits
    lat, lon = np.array([hit.tile.footprint.centre for hit in hits]).T
    gaps_m = haversine_m(lat[:, None], lon[:, None], lat[preferred], lon[preferred])
    # two square tiles overlap by half or more of the smaller when the one's centre lies within the other
    covered = (gaps_m <= np.maximum(sides_m[:, None], sides_m[preferred]) / 2).any(axis=1)
    return [hit for hit, keep in zip(hits, preferred | ~covered, strict=True) if keep]
