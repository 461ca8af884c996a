"""Where the camera was: position, height, attitude and focal length from matches with a map, by least squares.

The gimbal is trusted and the ground and the lens are doubted: pitch and roll stay within what is known of them, while
the ground is a plane whose slope is free within ``SLOPE`` and the focal length moves by a few per cent. On 21 real
photos at 45° this halves the error of a pose over level ground.

Real ground is no plane, and what it errs by is the same for all matches on one roof or one bank. So matches count by
patches (``PATCHES``): else hundreds of them would prove a slant, a slope or a focal length that a hill has made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from service.camera.attitude import Attitude
from service.camera.pinhole import Complex, Floats

SLOPE = 0.1
"""The ground's slope spreads by this along either axis, in metres a metre: hilly country."""

SLOPE_LEFT = 0.01
"""So much slope is left to guess where the heights are known: maps and models of the ground are metres apart."""

SIGMA_TOLERANCES = 1 / 3
"""A right match is off by about a third of its tolerance: half a cell of rounding in photo and map each."""

PATCHES = 5
"""A photo's width has so many patches; the matches of one share their error, and weigh as much as one match. Of 28 real
photos straight down whose pitch nobody states, two thirds lie within what the covariance says; of matches that count
one by one, an eighth (``benchmarks/real.py``)."""

ROUNDS = 12
"""Gauss-Newton takes at most so many steps; from a start within 15° the last ones change nothing."""

SETTLED = 1e-5
"""A step below this, in radians, heights and shares, counts as none: a millimetre from 100 m."""

LOOSE_DEG = 10.0
"""A pitch that nobody states may spread so far about the one that its solution starts from: a look finds photos whose
pitch is off by 15°."""


@dataclass(frozen=True)
class Prior:
    """What is known of the camera before the matches, each with one standard deviation.

    Attributes:
        attitude: its heading counts for nothing: the matches give it.
        pitch_sigma_deg: of pitch.
        roll_sigma_deg: of roll, or of the sideways tilt of a camera that looks straight down.
        focal_widths: focal length over the photo's width.
        focal_sigma: its spread, as a share.
        height_m: above the ground, None when unknown.
        height_sigma_m: its spread.
    """

    attitude: Attitude
    pitch_sigma_deg: float
    roll_sigma_deg: float
    focal_widths: float
    focal_sigma: float
    height_m: float | None = None
    height_sigma_m: float = math.inf


@dataclass(frozen=True, eq=False)
class CameraPose:
    """The camera that explains the matches best.

    Attributes:
        east_m, north_m: of the camera, from the origin of the matches.
        height_m: above the ground at the photo's centre.
        attitude: of the photo as it is shown.
        focal_widths: focal length over the photo's width.
        slope: of the ground, metres up per metre east and north.
        covariance: ``[3, 3]`` of east, north and height, square metres.
        pitch_sigma_deg: what is left of the doubt about the pitch.
        spread: how far matches are off, over what was expected; 1 is as expected.
        cost: sum of squares that is left, of matches and of what was known, in standard deviations.
        pitch_cost: how much less that were if nothing was known of the pitch, as far as the derivatives tell: a
            residual that is left out takes its square over what the others leave open (Cook and Weisberg 1982).
    """

    east_m: float
    north_m: float
    height_m: float
    attitude: Attitude
    focal_widths: float
    slope: tuple[float, float]
    covariance: Floats
    pitch_sigma_deg: float
    spread: float
    cost: float
    pitch_cost: float

    @property
    def hfov_deg(self) -> float:
        """Angle that the photo's width covers."""
        return math.degrees(2 * math.atan(0.5 / self.focal_widths))

    @property
    def sigma_m(self) -> float:
        """Standard deviation of the place along each axis, the mean over all directions."""
        return math.sqrt((self.covariance[0, 0] + self.covariance[1, 1]) / 2)


def solve_pose(
    photo: Complex,
    ground_m: Complex,
    tolerance_m: Floats,
    prior: Prior,
    start: tuple[complex, complex],
    up_m: Floats | None = None,
) -> CameraPose | None:
    """Solve for the pose by least squares.

    Args:
        photo: ``[M]``, right + i·up in photo widths from its centre; inliers only.
        ground_m: ``[M]``, east + i·north in metres where the map shows the same.
        tolerance_m: ``[M]``, how far a match may be off.
        prior: what is known before.
        start: ground in metres at the photo's centre, and the step on the ground for one photo width to the right
            there, both from the homography that the matches agree on.
        up_m: ``[M]``, how high the ground is there, above that at the photo's centre; None: nobody knows, and it is a
            plane of unknown slope.

    Returns:
        None when the matches do not determine it.
    """
    numbers = _start(prior, *start)
    if numbers is None:
        return None
    sigma_m = spread_m(photo, tolerance_m)
    model = _Model(photo, ground_m, sigma_m, prior, up_m)
    linear = model.linear(numbers, np.ones(len(photo)))
    for _ in range(ROUNDS):
        if linear is None:
            return None
        residuals, jacobian = linear
        # by the normal equations: a tenth of the time of a decomposition of all matches
        step = np.asarray(np.linalg.lstsq(jacobian @ jacobian.T, -(jacobian @ residuals), rcond=None)[0], np.float64)
        numbers = numbers.moved(step)
        if not 0.05 < numbers.focal < 50 or not 0.5 < numbers.height < 50_000:
            return None
        linear = model.linear(numbers)
        if np.abs(step).max() < SETTLED:
            break
    return None if linear is None else _answer(numbers, linear[0], 2 * len(photo), linear[1])


def spread_m(photo: Complex, tolerance_m: Floats) -> Floats:
    """Return each match's standard deviation along each axis, ``[M]``; a patch's matches weigh as much as one.

    Args:
        photo: ``[M]``, right + i·up in photo widths from its centre.
        tolerance_m: ``[M]``, how far a match may be off.
    """
    patch = np.floor(photo.real * PATCHES) * 1000 + np.floor(photo.imag * PATCHES)
    _, number, counts = np.unique(patch, return_inverse=True, return_counts=True)
    spread: Floats = np.maximum(tolerance_m * SIGMA_TOLERANCES * np.sqrt(counts[number]), 1e-6)
    return spread


@dataclass(frozen=True, eq=False)
class _Numbers:
    """What is solved for; ``moved`` says in which units."""

    east: float
    north: float
    height: float
    heading: float  # radians
    pitch: float  # radians from the prior's attitude, about the level axis to the right
    side: float  # radians, about the level axis ahead
    focal: float
    slope_east: float
    slope_north: float
    origin: complex  # the ground at the photo's centre, where the slope turns
    level: Attitude  # the prior's, with heading 0

    def moved(self, step: Floats) -> _Numbers:
        """By a step: lengths and focal length as shares of what they are, angles in radians."""
        return replace(
            self,
            east=self.east + step[0] * self.height,
            north=self.north + step[1] * self.height,
            height=self.height * math.exp(max(-1.0, min(1.0, step[2]))),
            heading=self.heading + step[3],
            pitch=self.pitch + step[4],
            side=self.side + step[5],
            focal=self.focal * math.exp(max(-0.5, min(0.5, step[6]))),
            slope_east=self.slope_east + step[7],
            slope_north=self.slope_north + step[8],
        )

    @property
    def tilt(self) -> tuple[Floats, Floats]:
        """The turns about the level axes to the right and ahead."""
        cos, sin = math.cos(self.pitch), math.sin(self.pitch)
        about_right = np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
        cos, sin = math.cos(self.side), math.sin(self.side)
        about_ahead = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
        return about_right, about_ahead

    @property
    def attitude(self) -> Attitude:
        about_right, about_ahead = self.tilt
        return Attitude(about_right @ about_ahead @ self.level.matrix).turned(math.degrees(self.heading))


@dataclass(frozen=True, eq=False)
class _Model:
    """Residuals of matches and of what is known, in standard deviations."""

    photo: Complex
    ground_m: Complex
    sigma_m: Floats
    prior: Prior
    up_m: Floats | None

    def linear(self, numbers: _Numbers, weights: Floats | None = None) -> tuple[Floats, Floats] | None:
        """Residuals ``[R]`` and their derivatives by a step ``[9, R]``; None if a match is above the horizon.

        Args:
            numbers: where.
            weights: of the matches; None: those of Huber, for whom beyond two standard deviations a match pulls no
                harder.
        """
        rays, turned = self._rays(numbers)
        slope_east, slope_north, height = numbers.slope_east, numbers.slope_north, numbers.height
        # the plane: up = slope · (place - origin); the camera is height above its level at the origin
        east, north = numbers.east - numbers.origin.real, numbers.north - numbers.origin.imag
        above = height - slope_east * east - slope_north * north - (0.0 if self.up_m is None else self.up_m)
        falling = slope_east * rays[0] + slope_north * rays[1] - rays[2]
        if not (falling > 1e-6).all():
            return None
        along = above / falling
        off = complex(numbers.east, numbers.north) + along * (rays[0] + 1j * rays[1]) - self.ground_m
        if weights is None:
            weights = 1 / np.maximum(1.0, np.abs(off) / self.sigma_m / 2.0)
        scale = np.sqrt(weights) / self.sigma_m

        # of the nine steps in turn: what they add to the place, to the height above the plane, to the falling and rays
        moves, rises, falls = np.zeros((2, 9, 1)), np.zeros((9, 1)), np.zeros((9, len(along)))
        moves[0, 0] = moves[1, 1] = height
        rises[[0, 1, 2, 7, 8], 0] = -slope_east * height, -slope_north * height, height, -east, -north
        falls[3:7] = slope_east * turned[0] + slope_north * turned[1] - turned[2]
        falls[7:] = rays[:2]
        lengths = (rises - along * falls) / falling  # what they add to the rays' lengths
        derivatives = moves + lengths * rays[:2, None]
        derivatives[:, 3:7] += along * turned[:2]

        known, by_known = self._known(numbers)
        residuals = np.concatenate([off.real * scale, off.imag * scale, known])
        return residuals, np.concatenate([derivatives[0] * scale, derivatives[1] * scale, by_known], axis=1)

    def _rays(self, numbers: _Numbers) -> tuple[Floats, Floats]:
        """The photo's rays, east, north and up ``[3, M]``, and their derivatives by the steps 3 to 6, ``[3, 4, M]``."""
        about_right, about_ahead = numbers.tilt
        heading = complex(math.cos(numbers.heading), math.sin(numbers.heading))
        turn = np.array([[heading.real, heading.imag, 0.0], [-heading.imag, heading.real, 0.0], [0.0, 0.0, 1.0]])
        focal = np.full(len(self.photo), numbers.focal)
        rolled = about_ahead @ (numbers.level.matrix @ np.stack([self.photo.real, -self.photo.imag, focal]))
        pitched = about_right @ rolled
        rays, none = turn @ pitched, np.zeros(len(focal))
        by_heading = np.stack([rays[1], -rays[0], none])
        by_pitch = turn @ np.stack([none, -pitched[2], pitched[1]])
        by_side = turn @ about_right @ np.stack([rolled[2], none, -rolled[0]])
        forward = numbers.focal * (turn @ about_right @ about_ahead @ numbers.level.matrix[:, 2])
        by_focal = np.broadcast_to(forward[:, None], rays.shape)
        return rays, np.stack([by_heading, by_pitch, by_side, by_focal], axis=1)

    def _known(self, numbers: _Numbers) -> tuple[Floats, Floats]:
        """Residuals of what is known, ``[K]``, that of the pitch first, and their derivatives, ``[9, K]``."""
        prior, slope = self.prior, SLOPE if self.up_m is None else SLOPE_LEFT
        rows = [  # the residual, of which step, and by it
            (math.degrees(numbers.pitch) / prior.pitch_sigma_deg, 4, math.degrees(1) / prior.pitch_sigma_deg),
            (math.degrees(numbers.side) / prior.roll_sigma_deg, 5, math.degrees(1) / prior.roll_sigma_deg),
            (math.log(numbers.focal / prior.focal_widths) / prior.focal_sigma, 6, 1 / prior.focal_sigma),
            (numbers.slope_east / slope, 7, 1 / slope),
            (numbers.slope_north / slope, 8, 1 / slope),
        ]
        if prior.height_m is not None:
            off_m = numbers.height - prior.height_m
            rows.append((off_m / prior.height_sigma_m, 2, numbers.height / prior.height_sigma_m))
        derivatives = np.zeros((9, len(rows)))
        for i, (_, step, by_step) in enumerate(rows):
            derivatives[step, i] = by_step
        return np.array([residual for residual, _, _ in rows]), derivatives


def _start(prior: Prior, centre: complex, right: complex) -> _Numbers | None:
    """The pose of a camera of the prior's tilt at whose centre the photo lies as it was found."""
    level = prior.attitude.turned(-prior.attitude.heading_deg)
    axis, ahead = level.matrix[:, 0], level.matrix[:, 2]
    if ahead[2] > -0.05 or abs(right) < 1e-9:  # looks above the horizon, or nothing is known
        return None
    # one width to the right is depth / focal on the ground, in the direction of the photo's right
    depth = abs(right) * prior.focal_widths
    heading = math.atan2(axis[1], axis[0]) - math.atan2(right.imag, right.real)  # clockwise
    height = -depth * ahead[2]
    turn = complex(math.cos(heading), -math.sin(heading))
    place = centre - depth * complex(ahead[0], ahead[1]) * turn
    return _Numbers(place.real, place.imag, height, heading, 0.0, 0.0, prior.focal_widths, 0.0, 0.0, centre, level)


def _answer(numbers: _Numbers, residuals: Floats, of_matches: int, jacobian: Floats) -> CameraPose | None:
    spread = max(1.0, math.sqrt(float(np.mean(residuals[:of_matches] ** 2))))
    information = jacobian @ jacobian.T
    if not np.linalg.cond(information) < 1e14:
        return None
    inverse = np.linalg.inv(information)
    covariance = inverse * spread**2
    of_pitch = residuals[of_matches]
    left = max(1e-9, 1.0 - inverse[4, 4] * jacobian[4, of_matches] ** 2)
    metres = numbers.height * np.eye(9)[:3]  # steps of place and height are shares of the height
    return CameraPose(
        numbers.east,
        numbers.north,
        numbers.height,
        numbers.attitude,
        numbers.focal,
        (numbers.slope_east, numbers.slope_north),
        metres @ covariance @ metres.T,
        math.degrees(math.sqrt(covariance[4, 4])),
        spread,
        float((residuals**2).sum()),
        float(of_pitch**2 / left),
    )
