"""A Kalman filter for one moving point on the ground, whose fixes err alike.

State: position (east, north), velocity, and the *bias*: what nearby fixes err by alike, in standard deviations.

* The point moves at constant velocity, disturbed by white noise acceleration (Bar-Shalom, Li, Kirubarajan, "Estimation
  with Applications to Tracking and Navigation", 2001, section 6.2.2).
* Fixes between tile centres repeat each other's error: they come from the same raster of tiles. The bias is a
  first-order Gauss-Markov process over the distance flown (Gelb, "Applied Optimal Estimation", 1974, section 3.6).
  Without it, ten photos of one spot would pass for ten opinions. With a grain of 0 m the errors are independent.
* What all fixes err by alike (``PositionError.common_m``) moves the whole track; it is no part of the state.
* Where two photos overlap, their descriptors say how far the point has moved (``service.tracking.odometry``).

Positions are WGS84, and every difference is taken in the plane that touches the ellipsoid at the present estimate: a
track may go as far as it likes, also over the antimeridian. Near the poles "east" turns from place to place; no map
reaches there (Web Mercator ends at 85°).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.geo import offset, offset_m
from service.localization.places import PositionError

Array = NDArray[np.float64]

ACCELERATION_TIME_S = 1.0
"""An acceleration lasts so long before it is another: about a second between two commands of an autopilot. The spectral
density of the white noise is the square of the acceleration times this."""

MIN_PACE_S = 1e-3
"""Photos that follow sooner tell no speed: a pixel between them would be hundreds of metres a second."""

GATE_PROBABILITY = 0.99
GATE = -2 * math.log(1 - GATE_PROBABILITY)
"""99 of 100 right fixes pass this, the 99 % point of the chi-square distribution with two degrees of freedom: 9.21."""


@dataclass(frozen=True)
class MeasuredPosition:
    """A measured position in degrees, and what of its error the state describes.

    Attributes:
        spread_m2: ``[2, 2]`` covariance of this fix's own error where its axes differ; None: ``error`` says it.
    """

    lat: float
    lon: float
    error: PositionError
    spread_m2: Array | None = None

    @property
    def white_m2(self) -> Array:
        """``[2, 2]`` covariance of the part of the error that is this fix's own."""
        return self.error.own_m**2 * np.eye(2) if self.spread_m2 is None else self.spread_m2

    @property
    def matrix(self) -> Array:
        """``[2, 6]``: what the fix shows of the state."""
        return np.hstack([np.eye(2), np.zeros((2, 2)), self.error.raster_m * np.eye(2)])


@dataclass(frozen=True)
class Shift:
    """A measured movement between two photos, in metres.

    Attributes:
        east_m, north_m: how far the point has moved.
        sigma_m: standard deviation of their error along each axis.
        sway_m: how far the point swings about its course when the camera sways: this much of a movement is no speed.
    """

    east_m: float
    north_m: float
    sigma_m: float
    sway_m: float


@dataclass(frozen=True, eq=False)
class Motion:
    """Where a point is and how it moves, as a Gaussian.

    Attributes:
        lat, lon: mean position in degrees.
        velocity_m_s: ``[2]`` mean velocity, east and north.
        bias: ``[2]`` mean bias, east and north.
        covariance: ``[6, 6]`` of position (m), velocity (m/s) and bias, each east and north.
    """

    lat: float
    lon: float
    velocity_m_s: Array
    bias: Array
    covariance: Array

    @classmethod
    def start(cls, fix: MeasuredPosition, max_speed_m_s: float) -> Motion:
        """Begin with a first fix: the velocity may be anything up to the largest speed.

        The position errs by what the fix errs, so it is bound to the bias. A velocity spread evenly over a disc of
        radius v has the variance v²/4 along each axis.
        """
        error = fix.error
        covariance = np.diag([error.raster_m**2] * 2 + [max_speed_m_s**2 / 4] * 2 + [1.0] * 2)
        covariance[:2, :2] += fix.white_m2
        covariance[:2, 4:] = covariance[4:, :2] = -error.raster_m * np.eye(2)
        return cls(fix.lat, fix.lon, np.zeros(2), np.zeros(2), covariance)

    @property
    def position_covariance_m2(self) -> Array:
        """``[2, 2]``, east and north; without what all fixes err by alike."""
        return self.covariance[:2, :2]

    def predict(
        self, dt_s: float, acceleration_m_s2: float, grain_m: float = 0.0, shift: Shift | None = None
    ) -> Motion:
        """Return the same point later.

        Args:
            dt_s: seconds, zero or above.
            acceleration_m_s2: standard deviation of the random acceleration along each axis.
            grain_m: distance over which the bias becomes another; its correlation falls as exp(-distance / grain).
            shift: how far it has moved, if that was measured. A measurement that is as unlikely as a wild fix is left
                out.
        """
        correlation = self._correlation(dt_s, grain_m, shift)
        if shift is not None and dt_s >= MIN_PACE_S:
            surprise_m = np.array([shift.east_m, shift.north_m]) - self.velocity_m_s * dt_s
            _, noise = _transition(dt_s, acceleration_m_s2, correlation)
            blur_m2 = noise[:2, :2] + (shift.sigma_m**2 + shift.sway_m**2) * np.eye(2)
            if squared_distance(surprise_m, self.covariance[2:4, 2:4] * dt_s**2 + blur_m2) <= GATE:
                return self._shifted(shift, dt_s, noise, correlation)._paced(surprise_m / dt_s, blur_m2 / dt_s**2)
        step, noise = _transition(dt_s, acceleration_m_s2, correlation)
        covariance = step @ self.covariance @ step.T + noise
        return self._moved(self.velocity_m_s * dt_s, self.velocity_m_s, covariance, correlation * self.bias)

    def innovation(self, fix: MeasuredPosition) -> tuple[Array, Array]:
        """Compare a fix with what is expected: metres east and north ``[2]``, and the covariance expected of them."""
        gap_m = np.array(offset_m(self.lat, self.lon, fix.lat, fix.lon)) - fix.matrix[:, 4:] @ self.bias
        return gap_m, fix.matrix @ self.covariance @ fix.matrix.T + fix.white_m2

    def update(self, fix: MeasuredPosition) -> Motion:
        """Fuse a fix.

        The covariance is that of Joseph's form, which stays symmetric and positive whatever rounding does.
        """
        gap_m, expected = self.innovation(fix)
        gain = np.linalg.solve(expected, fix.matrix @ self.covariance).T  # [6, 2]
        left = np.eye(6) - gain @ fix.matrix
        return self._corrected(gain @ gap_m, left @ self.covariance @ left.T + gain @ fix.white_m2 @ gain.T)

    def _correlation(self, dt_s: float, grain_m: float, shift: Shift | None) -> float:
        """Correlation of the bias with what it was."""
        if grain_m <= 0:
            return 0.0
        if shift is not None:
            return math.exp(-math.hypot(shift.east_m, shift.north_m) / grain_m)
        mean_square = float(self.velocity_m_s @ self.velocity_m_s + np.trace(self.covariance[2:4, 2:4]))
        return math.exp(-dt_s * math.sqrt(mean_square) / grain_m)

    def _shifted(self, shift: Shift, dt_s: float, noise: Array, correlation: float) -> Motion:
        """Move by what was measured, whatever the velocity says."""
        step = np.diag([1.0] * 4 + [correlation] * 2)
        added = noise.copy()
        added[:2, 2:] = added[2:, :2] = 0.0
        added[:2, :2] = shift.sigma_m**2 * np.eye(2)
        covariance = step @ self.covariance @ step.T + added
        return self._moved(
            np.array([shift.east_m, shift.north_m]), self.velocity_m_s, covariance, correlation * self.bias
        )

    def _paced(self, surprise_m_s: Array, noise_m2_s2: Array) -> Motion:
        """Take in a measured velocity: how much it differs from the mean, and the covariance of its error."""
        gain = np.linalg.solve(self.covariance[2:4, 2:4] + noise_m2_s2, self.covariance[2:4]).T
        left = np.eye(6)
        left[:, 2:4] -= gain
        return self._corrected(gain @ surprise_m_s, left @ self.covariance @ left.T + gain @ noise_m2_s2 @ gain.T)

    def _corrected(self, change: Array, covariance: Array) -> Motion:
        """Add ``[6]`` to the mean."""
        return self._moved(change[:2], self.velocity_m_s + change[2:4], covariance, self.bias + change[4:])

    def _moved(self, metres: Array, velocity_m_s: Array, covariance: Array, bias: Array) -> Motion:
        lat, lon = offset(self.lat, self.lon, float(metres[0]), float(metres[1]))
        return Motion(float(lat), float(lon), velocity_m_s, bias, (covariance + covariance.T) / 2)


def _transition(dt_s: float, acceleration_m_s2: float, correlation: float) -> tuple[Array, Array]:
    """The state's ``[6, 6]`` transition over a time, and the covariance of the noise that comes on top."""
    step = np.diag([1.0] * 4 + [correlation] * 2)
    step[0, 2] = step[1, 3] = dt_s
    density = acceleration_m_s2**2 * ACCELERATION_TIME_S  # m²/s³
    axis = density * np.array([[dt_s**3 / 3, dt_s**2 / 2], [dt_s**2 / 2, dt_s]])
    noise = np.zeros((6, 6))
    noise[:4, :4] = np.kron(axis, np.eye(2))
    noise[4, 4] = noise[5, 5] = 1 - correlation**2
    return step, noise


def squared_distance(gap: Array, covariance: Array) -> float:
    """Return the squared Mahalanobis distance; of a right fix it is chi-square with two degrees of freedom."""
    return float(gap @ np.linalg.solve(covariance, gap))


def gaussian_density(gap: Array, covariance: Array) -> float:
    """Return the density of a Gaussian in the plane at ``gap`` from its mean, per unit of area."""
    norm = 2 * math.pi * math.sqrt(float(np.linalg.det(covariance)))
    return math.exp(-squared_distance(gap, covariance) / 2) / norm


def largest_sigma_m(covariance: Array) -> float:
    """Return the standard deviation along the long axis of the ellipse of a ``[2, 2]`` covariance."""
    return math.sqrt(float(np.linalg.eigvalsh(covariance)[-1]))
