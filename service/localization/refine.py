"""A position between tile centres.

With local descriptors, the photo is laid on the ground: position, heading and scale, for a tilted photo its perspective
too, from the matches of all tiles round the best one, so that a photo across their borders has its matches on both
sides. Without, or where too few matches agree, the centres of good candidates are weighed by similarity: tiles overlap,
so the photo's centre usually lies between several.
"""

import cmath
import math
from dataclasses import dataclass

import numpy as np

from service.geo import offset, offset_m
from service.ground.gallery import Hit
from service.localization.matching import fit_similarity
from service.localization.neighbours import NEAR_SIDES, same_place
from service.localization.rerank import Ranking, scale_range_m
from service.localization.tilt import fit_tilted

SIZES = 2.5
"""Neighbours up to so many times larger or smaller add their matches: those of the next levels. Those of others are
few, or so coarse that they agree with anything."""


@dataclass(frozen=True)
class Fix:
    """A photo laid on the ground.

    Attributes:
        lat, lon: ground point at the centre of the photo, degrees.
        right_m, up_m: ground, east + i·north, that a step of one side to the right and one up of the compared square
            covers at its centre; those of a tilted photo are not alike.
        turned_deg: heading that the square was turned north-up by; the photo's own top edge lies so far clockwise.
        inliers: positions of the photo that agree.
    """

    lat: float
    lon: float
    right_m: complex
    up_m: complex
    turned_deg: float
    inliers: int

    @property
    def heading_deg(self) -> float:
        """Compass direction of the photo's top edge, in [0, 360); of a tilted one, where the camera points."""
        # an angle turns counter-clockwise from east, a compass clockwise from north; twice %: 360 of a hair below 0
        return (90.0 - math.degrees(cmath.phase(self._on_ground(1j)))) % 360.0 % 360.0

    @property
    def side_m(self) -> float:
        """Ground that the square's side covers, metres; of a tilted photo, across at its centre."""
        return abs(self._on_ground(1))

    def _on_ground(self, step: complex) -> complex:
        """What was this way from the photo's centre before the square was turned."""
        turned = step * cmath.rect(1, -math.radians(self.turned_deg))
        return turned.real * self.right_m + turned.imag * self.up_m


def matched_position(ranking: Ranking, min_inliers: int, turned_deg: float = 0.0) -> Fix | None:
    """Lay the photo on the ground with the matches of the best tile and of its neighbours (``same_place``), in metres.

    Args:
        ranking: at least one candidate.
        min_inliers: what unrelated ground does not reach.
        turned_deg: see ``Fix``. Photo and square have the same centre, to half a pixel of the decoded photo.

    Returns:
        None when fewer than ``min_inliers`` agree, or when they put the centre further from the best tile's than a
        neighbouring tile would be: then what agrees is not the ground that was found.
    """
    best = ranking.hits[0]
    if (best.inliers or 0) < min_inliers:
        return None
    lat0, lon0 = best.tile.footprint.centre
    side_m = best.tile.footprint.side_m
    photo, ground_m, tolerance_m = [], [], []
    for hit, matches, is_near in zip(ranking.hits, ranking.matches, same_place(ranking.hits)[0], strict=True):
        alike = side_m / SIZES <= hit.tile.footprint.side_m <= side_m * SIZES
        if matches is not None and is_near and alike:
            east_m, north_m = offset_m(lat0, lon0, *hit.tile.footprint.centre)
            photo.append(matches.photo)
            ground_m.append(matches.ground_m + complex(east_m, north_m))
            tolerance_m.append(matches.tolerance_m)
    positions = np.concatenate(photo)
    on_ground, tolerances = np.concatenate(ground_m), np.concatenate(tolerance_m)
    level = fit_similarity(positions, on_ground, tolerances, scale_range_m(side_m))
    if level is None:
        return None
    tilted = fit_tilted(level, positions, on_ground, tolerances)
    if tilted is None:
        centre, right, up, agree = level.b, level.a, 1j * level.a, level.inliers
    else:
        centre, right, up, agree = tilted.centre, tilted.right, tilted.up, tilted.inliers
    inliers = len(np.unique(positions[agree]))  # overlapping tiles show some positions twice
    if abs(centre) > NEAR_SIDES * side_m or inliers < min_inliers:
        return None
    lat, lon = offset(lat0, lon0, centre.real, centre.imag)
    return Fix(float(lat), float(lon), right, up, turned_deg, inliers)


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
