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
"""Spread of the ground's slope, metres a metre, along either axis: hilly country."""

SLOPE_LEFT = 0.01
"""What is left of it where the heights are known: maps and models of the ground are metres apart."""

SIGMA_TOLERANCES = 1 / 3
"""A right match is off by about a third of its tolerance: half a cell of rounding in photo and map each."""

PATCHES = 5
"""Patches along a photo's width; the matches of one share their error, and weigh as much as one match. Of 28 real
photos straight down whose pitch nobody states, two thirds lie within what the covariance says; of matches that count
one by one, an eighth (``benchmarks/real.py``)."""

ROUNDS = 12
"""Gauss-Newton steps; from a start within 15° the last ones change nothing."""

STEP = 1e-5
"""Of the numeric derivatives, in radians, heights and shares: far above rounding, far below what bends."""

LOOSE_DEG = 8.0
"""Spread of a pitch that nobody states, about the one that its solution starts from."""


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
    """Least squares for the pose.

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
    sigma_m = np.maximum(tolerance_m * SIGMA_TOLERANCES * np.sqrt(_in_patch(photo)), 1e-6)
    weights = np.ones(len(photo))
    for _ in range(ROUNDS):
        model = _Model(photo, ground_m, sigma_m, np.sqrt(weights), prior, numbers.origin, up_m)
        linear = model.linear(numbers)
        if linear is None:
            return None
        residuals, jacobian = linear
        step = np.asarray(np.linalg.lstsq(jacobian, -residuals, rcond=None)[0], np.float64)
        numbers = numbers.moved(step)
        if not 0.05 < numbers.focal < 50 or not 0.5 < numbers.height < 50_000:
            return None
        off = np.abs(model.ground(numbers) - ground_m) / sigma_m
        weights = 1 / np.maximum(1.0, off / 2.0)  # Huber: beyond two standard deviations a match pulls no harder
        if np.abs(step).max() < 1e-7:
            break
    last = _Model(photo, ground_m, sigma_m, np.sqrt(weights), prior, numbers.origin, up_m).linear(numbers)
    return None if last is None else _answer(numbers, last[0], 2 * len(photo), last[1])


def _in_patch(photo: Complex) -> Floats:
    """How many matches share each match's patch of the photo, ``[M]``."""
    patch = np.floor(photo.real * PATCHES) * 1000 + np.floor(photo.imag * PATCHES)
    _, number, counts = np.unique(patch, return_inverse=True, return_counts=True)
    shared: Floats = counts[number].astype(np.float64)
    return shared


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
    def attitude(self) -> Attitude:
        cos, sin = math.cos(self.pitch), math.sin(self.pitch)
        about_right = np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
        cos, sin = math.cos(self.side), math.sin(self.side)
        about_ahead = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
        return Attitude(about_right @ about_ahead @ self.level.matrix).turned(math.degrees(self.heading))


@dataclass(frozen=True, eq=False)
class _Model:
    """Residuals of matches and of what is known, in standard deviations."""

    photo: Complex
    ground_m: Complex
    sigma_m: Floats
    root_weights: Floats
    prior: Prior
    origin: complex
    up_m: Floats | None

    def ground(self, numbers: _Numbers) -> Complex:
        """Where the photo's positions lie on the sloping plane; NaN above the horizon."""
        right, down, forward = numbers.attitude.matrix.T
        rays = np.outer(right, self.photo.real) - np.outer(down, self.photo.imag) + numbers.focal * forward[:, None]
        # the plane: up = slope · (place − origin); the camera is height above its level at the origin
        above = numbers.height - (
            numbers.slope_east * (numbers.east - self.origin.real)
            + numbers.slope_north * (numbers.north - self.origin.imag)
        )
        rise = np.zeros(len(self.photo)) if self.up_m is None else self.up_m
        falling = numbers.slope_east * rays[0] + numbers.slope_north * rays[1] - rays[2]
        along = np.divide(above - rise, falling, out=np.full(len(falling), np.inf), where=falling > 1e-6)
        seen: Complex = np.full(len(falling), complex(np.nan, np.nan))
        on_ground = np.isfinite(along)
        near = along[on_ground]
        east, north = numbers.east + near * rays[0, on_ground], numbers.north + near * rays[1, on_ground]
        seen[on_ground] = east + 1j * north
        return seen

    def __call__(self, numbers: _Numbers) -> Floats | None:
        off = (self.ground(numbers) - self.ground_m) / self.sigma_m * self.root_weights
        if not np.isfinite(off).all():
            return None
        prior, slope = self.prior, SLOPE if self.up_m is None else SLOPE_LEFT
        known = [
            math.degrees(numbers.pitch) / prior.pitch_sigma_deg,
            math.degrees(numbers.side) / prior.roll_sigma_deg,
            math.log(numbers.focal / prior.focal_widths) / prior.focal_sigma,
            numbers.slope_east / slope,
            numbers.slope_north / slope,
        ]
        if prior.height_m is not None:
            known.append((numbers.height - prior.height_m) / prior.height_sigma_m)
        return np.concatenate([off.real, off.imag, known])

    def linear(self, numbers: _Numbers) -> tuple[Floats, Floats] | None:
        """Residuals ``[R]`` and, by differences, their derivatives ``[R, 9]``; None if a match is above the horizon."""
        residuals = self(numbers)
        if residuals is None:
            return None
        columns = []
        for i in range(9):
            moved = self(numbers.moved(STEP * np.eye(9)[i]))
            if moved is None:
                return None
            columns.append((moved - residuals) / STEP)
        return residuals, np.stack(columns, axis=1)


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
    information = jacobian.T @ jacobian
    if not np.linalg.cond(information) < 1e14:
        return None
    covariance = np.linalg.inv(information) * spread**2
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
    )
