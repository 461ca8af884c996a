"""The ground under a tilted photo.

A similarity lays only a photo that looks straight down on the ground; one that looks aside shows what is far smaller
than what is near. On flat ground the map from photo to ground is then a homography (Hartley and Zisserman 2004, §2.3).
It takes eight numbers instead of four, so it is fitted only after a similarity has found the place, and believed only
where it explains clearly more.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.localization.matching import Complex, Floats, Similarity

GAIN = 1.1
"""A homography must reach so many times the support of the similarity. Of 160 simulated photos of held-out textures,
with the homography where it does, the median error fell from 3.0 to 1.0 m at a pitch of 55 to 65° and stayed at 0.5 m
straight down; always believed, it makes the latter 0.6 m, and the worst tenth three times as bad."""

MIN_MATCHES = 20
"""So many inliers are needed to start from: five times what determines a homography."""

WIDE, TIGHT = 1.5, 1.0
"""Matches count within these tolerances, while the fit grows from the similarity's and when it has settled."""

MAX_CONDITION = 1e12
"""The condition of the normal equations may be so large: beyond, double precision leaves their solution four digits.
Points all over a photo give 1e3 to 1e5."""

ROUNDS = 4
"""At each of these, the inliers of the fit before are fitted so many times."""


@dataclass(frozen=True, eq=False)
class Homography:
    """The map from a photo's positions to the ground.

    Attributes:
        matrix: ``[3, 3]`` over (right, up, 1), its last entry 1.
        inliers: bool ``[M]``, matches within their tolerance.
    """

    matrix: Floats
    inliers: NDArray[np.bool_]

    def __call__(self, points: Complex) -> Complex:
        """Where positions right + i·up of the photo lie on the ground, east + i·north."""
        right, up, scale = self.matrix @ np.stack([points.real, points.imag, np.ones(len(points))])
        ground: Complex = (right + 1j * up) / scale
        return ground

    @property
    def centre(self) -> complex:
        """Where the photo's centre lies."""
        return complex(self.matrix[0, 2], self.matrix[1, 2])

    @property
    def right(self) -> complex:
        """What a step to the right is at the centre, ground per side of the photo."""
        return complex(*(self.matrix[:2, 0] - self.matrix[:2, 2] * self.matrix[2, 0]))

    @property
    def up(self) -> complex:
        """What a step up is at the centre; without roll it points where the camera does."""
        return complex(*(self.matrix[:2, 1] - self.matrix[:2, 2] * self.matrix[2, 1]))

    @property
    def is_a_view(self) -> bool:
        """Whether the whole square lies before the horizon, and is not seen from below."""
        before = abs(self.matrix[2, 0]) + abs(self.matrix[2, 1]) < 2
        return before and (self.right.conjugate() * self.up).imag > 0


def centre_sigma(matrix: Floats, points: Complex, sigma: Floats) -> float:
    """Return the standard deviation along each axis of where a homography lays the photo's centre, the mean of both.

    By its eight numbers' covariance, to first order: what matches far from the centre err by counts there as well.

    Args:
        matrix: ``[3, 3]``, its last entry 1.
        points: ``[M]`` positions of the photo that it was fitted to.
        sigma: ``[M]``, of their places on the ground along each axis.

    Returns:
        Infinity where the points do not determine it.
    """
    point, none = np.stack([points.real, points.imag, np.ones(len(points))]), np.zeros((3, len(points)))
    depth = matrix[2] @ point
    rows = []
    for axis, ground in enumerate(matrix[:2] @ point / depth):
        own = [point, none] if axis == 0 else [none, point]
        rows.append(np.concatenate([*own, -ground * point[:2]]) / (depth * sigma))
    jacobian = np.concatenate(rows, axis=1)
    information = jacobian @ jacobian.T
    unit = np.sqrt(np.diag(information))  # ground is in metres, and some numbers are a thousand times others
    scaled = information / np.outer(unit, unit)
    if not np.linalg.cond(scaled) < MAX_CONDITION:
        return math.inf
    variance = np.diag(np.linalg.inv(scaled)) / unit**2
    return math.sqrt((variance[2] + variance[5]) / 2)


def fit_tilted(fit: Similarity, source: Complex, target: Complex, tolerance: Floats) -> Homography | None:
    """Let a similarity tilt, when the matches say so.

    Args:
        fit: the similarity that was found among the matches.
        source: ``[M]`` positions of the photo, in its sides.
        target: ``[M]`` on the ground.
        tolerance: ``[M]``, how far a match may be off, in target units.

    Returns:
        None where the photo looks straight down, or the matches are too few to tell.
    """
    rows = np.array([[fit.a.real, -fit.a.imag, fit.b.real], [fit.a.imag, fit.a.real, fit.b.imag], [0, 0, 1]])
    level = found = Homography(rows, fit.inliers)
    for within in (WIDE,) * ROUNDS + (TIGHT,) * ROUNDS:
        inliers = _off(found, source, target, tolerance) < within
        if inliers.sum() < MIN_MATCHES:
            return None
        matrix = _solve(source[inliers], target[inliers], tolerance[inliers])
        if matrix is None:
            return None
        found = Homography(matrix, inliers)
        if not found.is_a_view:
            return None
    off, off_level = (_off(each, source, target, tolerance) for each in (found, level))
    if _support(off) < GAIN * _support(off_level):
        return None
    return Homography(found.matrix, off < TIGHT)


def _off(found: Homography, source: Complex, target: Complex, tolerance: Floats) -> Floats:
    off: Floats = np.abs(found(source) - target) / tolerance
    return off


def _support(off: Floats) -> float:
    """What MSAC counts (Torr and Zisserman 2000): a match the more the closer it is, 1 at most."""
    return float(np.maximum(0, 1 - off**2).sum())


def _solve(source: Complex, target: Complex, tolerance: Floats) -> Floats | None:
    """Linear least squares for the eight numbers (DLT, its last entry 1), each match weighed by its tolerance.

    The residual is the distance times the match's depth, which for photos that show no horizon is of the order of 1.
    By the normal equations: a fifth of the time of a decomposition, and with both sides of the order of 1 their
    condition is no concern, unless the points lie in a line: then there is no answer.
    """
    unit = float(np.abs(target).max())
    east, north = target.real / unit, target.imag / unit
    point = np.stack([source.real, source.imag, np.ones(len(source))]) / tolerance
    plain, by_east, by_north, by_both = (
        (point * weight) @ point.T for weight in (np.ones(len(source)), east, north, east**2 + north**2)
    )
    left = np.zeros((9, 9))
    left[:3, :3] = left[3:6, 3:6] = plain
    left[:3, 6:] = left[6:, :3] = -by_east
    left[3:6, 6:] = left[6:, 3:6] = -by_north
    left[6:, 6:] = by_both
    right = np.concatenate([by_east[2], by_north[2], -by_both[2, :2]])
    if not np.linalg.cond(left[:8, :8]) < MAX_CONDITION:
        return None
    numbers = np.linalg.solve(left[:8, :8], right)
    return np.concatenate([unit * numbers[:6], numbers[6:], [1.0]]).reshape(3, 3)
