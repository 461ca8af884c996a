"""A position between tile centres.

With local descriptors, the photo is laid on the ground: position, heading and scale, for a tilted photo its perspective
too, from the matches of all tiles round the best one, so that a photo across their borders has its matches on both
sides. Without, or where too few matches agree, the centres of good candidates are weighed by similarity: tiles overlap,
so the photo's centre usually lies between several.
"""

import cmath
import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from service.camera.look import Look
from service.camera.pinhole import Complex, Floats, apply, similarity_matrix
from service.camera.pose import spread_m
from service.geo import offset, offset_m
from service.ground.records import Hit
from service.localization.evidence import support
from service.localization.matching import Similarity, fit_similarity
from service.localization.neighbours import NEAR_SIDES, same_as_first
from service.localization.rerank import Matches, Ranking, Seen
from service.localization.tilt import Homography, centre_sigma, fit_tilted

SIZES = 2.5
"""Neighbours up to so many times larger or smaller add their matches: those of the next levels. Those of others are
few, or so coarse that they agree with anything."""

ALIKE, ALIKE_DEG = 1.5, 30.0
"""What neighbours add may change the scale of the best one's matches by this factor and turn it so far, no further."""

FAR_M = 100_000.0
"""A corner whose ray meets level ground further away counts as above the horizon: from 800 m that is at 100 km."""


@dataclass(frozen=True, eq=False)
class Fix:
    """A photo laid on the ground.

    Attributes:
        lat, lon: ground point at the centre of the photo, degrees.
        heading_deg: compass direction of the photo's top edge, in [0, 360); of a tilted one, where the camera points.
        inliers: positions of the photo that agree.
        origin: ``lat, lon`` from which ``to_ground`` counts.
        to_ground: homography from the photo (right + i·up in its widths, from its centre) to metres east and north.
        photo, ground_m, tolerance_m: the matches that agree, in the photo and on the ground.
        seen: the look that was matched.
    """

    lat: float
    lon: float
    heading_deg: float
    inliers: int
    origin: tuple[float, float]
    to_ground: Floats = field(repr=False)
    photo: Complex = field(repr=False)
    ground_m: Complex = field(repr=False)
    tolerance_m: Floats = field(repr=False)
    seen: Seen = field(repr=False)

    @cached_property
    def sigma_m(self) -> float:
        """Standard deviation of the centre's place along each axis, as the spread of the matches has it.

        Where they do not determine how the photo lies, how far one of them may be off.
        """
        sigma_m = centre_sigma(self.to_ground, self.photo, spread_m(self.photo, self.tolerance_m))
        return min(sigma_m, float(self.tolerance_m.max()))

    @property
    def ground_places(self) -> list[tuple[float, float]]:
        """Where the matches that agree lie on the ground: ``lat, lon`` of each."""
        lat, lon = offset(*self.origin, self.ground_m.real, self.ground_m.imag)
        return list(zip(lat.tolist(), lon.tolist(), strict=True))

    def steps_m(self, look: Look) -> tuple[complex, complex]:
        """Give the ground, east + i·north, of a step of one side to the right, and of one up, at a look's centre.

        Those of a tilted photo are not alike.
        """
        matrix = self.to_ground @ look.to_photo
        laid = Homography(matrix / matrix[2, 2], np.ones(0, bool))
        return laid.right, laid.up


def matched_position(ranking: Ranking, min_support: float) -> Fix | None:
    """Lay the photo on the ground with the matches of the best tile and of its neighbours (``neighbours``), in metres.

    A second match looked across the borders of its tile already and stands alone.

    Args:
        ranking: at least one candidate.
        min_support: what unrelated ground does not reach, with all that agrees (``Ranking.supports``).

    Returns:
        None when the best one has less, or what lays it in the end has less than its own matches had, or when they put
        the centre of what was compared further from the best tile's than a neighbouring tile would be: then what
        agrees is not the ground that was found.
    """
    best, matches = ranking.hits[0], ranking.matches[0]
    if matches is None or (ranking.supports[0] or 0.0) < min_support:
        return None
    square, ground_m, tolerance_m = _gathered(ranking, matches)
    side_m = best.tile.footprint.side_m
    level = None
    if matches.fit is not None:
        first = matches.fit
        sides_m = first.scale / ALIKE, first.scale * ALIKE
        level = fit_similarity(square, ground_m, tolerance_m, sides_m, first.a / first.scale, ALIKE_DEG)
    if level is None:
        return None
    laid = laid_flat(level, square, ground_m, tolerance_m)
    agree = np.flatnonzero(laid.inliers)
    once = agree[np.unique(square[agree], return_index=True)[1]]  # overlapping tiles show some positions twice
    least = min(min_support, matches.support)  # alone it may have less: what agrees with it counts too
    if abs(laid.centre) > NEAR_SIDES * side_m or support(square[once], ground_m[once], side_m) < least:
        return None
    look = matches.seen.look
    on_ground = laid.matrix @ look.from_photo
    if on_ground[2, 2] <= 0:  # the photo's centre is above the horizon of what was found
        return None
    of_photo = Homography(on_ground / on_ground[2, 2], laid.inliers)
    lat0, lon0 = best.tile.footprint.centre
    lat, lon = offset(lat0, lon0, of_photo.centre.real, of_photo.centre.imag)
    return Fix(
        float(lat),
        float(lon),
        # an angle turns counter-clockwise from east, a compass clockwise from north; twice %: 360 of a hair below 0
        (90.0 - math.degrees(cmath.phase(of_photo.up))) % 360.0 % 360.0,
        len(once),
        (lat0, lon0),
        of_photo.matrix,
        apply(look.to_photo, square[agree]),
        ground_m[agree],
        tolerance_m[agree],
        matches.seen,
    )


def laid_flat(level: Similarity, square: Complex, ground_m: Complex, tolerance_m: Floats) -> Homography:
    """Fit the homography from the square to the ground: with a tilt where the matches say so, else the similarity."""
    tilted = fit_tilted(level, square, ground_m, tolerance_m)
    return tilted or Homography(similarity_matrix(level.a, level.b), level.inliers)


def footprint_of(fix: Fix, corners: Complex) -> list[tuple[float, float] | None]:
    """Tell where corners of the photo lie, ``lat, lon``; None for one above the horizon, or all but.

    Args:
        fix: how the photo lies.
        corners: right + i·up in widths, from its centre.
    """
    places: list[tuple[float, float] | None] = []
    for place in apply(fix.to_ground, corners):
        if abs(place) <= FAR_M:  # not for NaN
            lat, lon = offset(*fix.origin, place.real, place.imag)
            places.append((float(lat), float(lon)))
        else:
            places.append(None)
    return places


def _gathered(ranking: Ranking, matches: Matches) -> tuple[Complex, Complex, Floats]:
    """Matches of the best tile and of those near it that were seen by the same look, from the best one's centre."""
    best = ranking.hits[0]
    lat0, lon0 = best.tile.footprint.centre
    side_m = best.tile.footprint.side_m
    square, ground_m, tolerance_m = [matches.square], [matches.ground_m], [matches.tolerance_m]
    near = same_as_first(ranking.hits)
    for i, (hit, other) in enumerate(zip(ranking.hits, ranking.matches, strict=True)):
        alike = side_m / SIZES <= hit.tile.footprint.side_m <= side_m * SIZES
        if i and other is not None and other.seen is matches.seen and near[i] and alike:
            east_m, north_m = offset_m(lat0, lon0, *hit.tile.footprint.centre)
            square.append(other.square)
            ground_m.append(other.ground_m + complex(east_m, north_m))
            tolerance_m.append(other.tolerance_m)
    return np.concatenate(square), np.concatenate(ground_m), np.concatenate(tolerance_m)


def weighted_position(hits: list[Hit], temperature: float) -> tuple[float, float]:
    """Return the similarity-weighted centroid of the best tile's centre and those of its neighbours (``neighbours``).

    weight_i = exp(score_i / temperature) / Σ_j exp(score_j / temperature)

    Args:
        hits: at least one, best first.
        temperature: in cosine units; small values trust the best tile, large ones average.

    Returns:
        ``(lat, lon)``.
    """
    lat0, lon0 = hits[0].tile.footprint.centre
    near = [hit for hit, is_near in zip(hits, same_as_first(hits), strict=True) if is_near]
    scores = np.array([hit.score for hit in near])
    weights = np.exp((scores - scores.max()) / temperature)
    weights /= weights.sum()
    metres = np.array([offset_m(lat0, lon0, *hit.tile.footprint.centre) for hit in near])
    east_m, north_m = weights @ metres
    lat, lon = offset(lat0, lon0, float(east_m), float(north_m))
    return float(lat), float(lon)
