"""A position between tile centres.

Tiles overlap, so the photo's centre usually lies between the centres of several good candidates. The first form of
metric localization weighs these centres by similarity.
"""

import numpy as np
from numpy.typing import NDArray

from service.gallery.gallery import Hit
from service.geo import haversine_m, offset, offset_m

# Tiles this close, in tile sides, are of one place. A little over 1: with half overlap the tile two steps on lies at 1
# exactly, and rounding must not decide. The calibration is fitted with the same number (training/calibrate.py).
NEAR_SIDES = 1.1


def weighted_position(hits: list[Hit], temperature: float) -> tuple[float, float]:
    """Similarity-weighted centroid of the best tile's centre and those of its neighbours (``same_place``).

    weight_i = exp(score_i / temperature) / Σ_j exp(score_j / temperature)

    Args:
        hits: at least one, best first.
        temperature: in cosine units; small values trust the best tile, large ones average.

    Returns:
        ``(lat, lon)``.
    """
    lat0, lon0 = hits[0].tile.footprint.centre
    near = [hit for hit, is_near in zip(hits, same_place(hits)[0], strict=True) if is_near]
    scores = np.array([hit.score for hit in near])
    weights = np.exp((scores - scores.max()) / temperature)
    weights /= weights.sum()
    metres = np.array([offset_m(lat0, lon0, *hit.tile.footprint.centre) for hit in near])
    east_m, north_m = weights @ metres
    lat, lon = offset(lat0, lon0, float(east_m), float(north_m))
    return float(lat), float(lon)


def same_place(hits: list[Hit]) -> NDArray[np.bool_]:
    """Which hits name the same place: entry ``[i, j]`` says whether j's centre lies within ``NEAR_SIDES`` sides of i's.

    Returns:
        bool ``[N, N]``; the diagonal is true.
    """
    lat, lon = np.array([hit.tile.footprint.centre for hit in hits]).T
    side_m = np.array([hit.tile.footprint.side_m for hit in hits])
    near: NDArray[np.bool_] = haversine_m(lat[:, None], lon[:, None], lat, lon) <= NEAR_SIDES * side_m[:, None]
    return near
