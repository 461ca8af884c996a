"""A Kalman filter for one moving point on the ground, which flies straight or manoeuvres, and whose fixes err alike.

State: position (east, north), velocity, and the *bias*: the error of the fixes, in units of their standard deviation.

* A drone flies straight for a while, then turns or brakes. Both are constant velocity disturbed by white noise
  acceleration, a weak one and a strong one; which of them holds is estimated with the state (interacting multiple
  models: Blom, Bar-Shalom, IEEE TAC 33, 1988). With one model it is the plain Kalman filter.
* Fixes near each other repeat each other's error: they come from the same raster of tiles. The bias is a first-order
  Gauss-Markov process over the distance flown (Gelb, "Applied Optimal Estimation", 1974, section 3.6). Without it, ten
  photos of one spot would pass for ten opinions. With a grain of 0 m the errors are independent.

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

Array = NDArray[np.float64]

ACCELERATION_TIME_S = 1.0
"""How long an acceleration lasts before it is another: about a second between two commands of an autopilot."""

BIAS_SHARE = 0.9
"""Share of a fix's variance that nearby fixes repeat; the rest is the photo's own. On a flight over the demo town, fixes
1 m apart have errors that correlate by about that."""

GATE_PROBABILITY = 0.99
GATE = -2 * math.log(1 - GATE_PROBABILITY)
"""9.21, the 99 % point of the chi-square distribution with two degrees of freedom: what 99 of 100 right fixes pass."""


@dataclass(frozen=True)
class Fix:
    """A measured position: degrees, and the standard deviation of its error along each axis in metres."""

    lat: float
    lon: float
    sigma_m: float

    @property
    def white_m2(self) -> Array:
        """``[2, 2]`` covariance of the part of the error that is this fix's own."""
        return (1 - BIAS_SHARE) * self.sigma_m**2 * np.eye(2)

    @property
    def matrix(self) -> Array:
        """``[2, 6]``: what the fix shows of the state."""
        return np.hstack([np.eye(2), np.zeros((2, 2)), math.sqrt(BIAS_SHARE) * self.sigma_m * np.eye(2)])


@dataclass(frozen=True)
class Dynamics:
    """How a point may move: one or several models of its acceleration, and how long each holds.

    Attributes:
        accelerations_m_s2: of each model, the standard deviation of the acceleration along each axis. Its spectral
            density is its square times ``ACCELERATION_TIME_S``.
        durations_s: of each model, the mean time for which it holds; another follows, each as likely as the rest.
    """

    accelerations_m_s2: tuple[float, ...]
    durations_s: tuple[float, ...]

    def transition(self, dt_s: float) -> Array:
        """``[M, M]`` probabilities that model i (row) has become model j after ``dt_s`` seconds.

        Each model ends with probability 1 - exp(-dt / duration); a second change in the same step is left out.
        """
        count = len(self.durations_s)
        if count == 1:
            return np.ones((1, 1))
        ends = -np.expm1(-dt_s / np.array(self.durations_s))
        spread = np.repeat(ends[:, None] / (count - 1), count, axis=1)
        return np.where(np.eye(count, dtype=bool), 1 - ends[:, None], spread)

    def process_noise(self, dt_s: float) -> Array:
        """``[M, 4, 4]`` covariance that ``dt_s`` seconds add to position and velocity.

        Continuous white noise acceleration, which does not depend on how a time is cut into steps (Bar-Shalom, Li,
        Kirubarajan, "Estimation with Applications to Tracking and Navigation", 2001, section 6.2.2).
        """
        axis = np.array([[dt_s**3 / 3, dt_s**2 / 2], [dt_s**2 / 2, dt_s]]) * ACCELERATION_TIME_S
        noise: Array = np.square(self.accelerations_m_s2)[:, None, None] * np.kron(axis, np.eye(2))
        return noise


@dataclass(frozen=True, eq=False)
class Motion:
    """Where a point is and how it moves.

    Attributes:
        lat, lon: mean position in degrees.
        models: ``[M]`` probability of each model.
        means: ``[M, 6]`` of each model: metres east and north of the mean position, velocity in m/s, bias.
        covariances: ``[M, 6, 6]`` of each model.
    """

    lat: float
    lon: float
    models: Array
    means: Array
    covariances: Array

    @classmethod
    def start(cls, fix: Fix, max_speed_m_s: float, models: int = 1) -> Motion:
        """A first fix: the velocity may be anything up to the largest speed, the model any.

        The position errs by what the fix errs, so it is bound to the bias. A velocity spread evenly over a disc of
        radius v has the variance v²/4 along each axis.
        """
        covariance = np.diag([fix.sigma_m**2] * 2 + [max_speed_m_s**2 / 4] * 2 + [1.0] * 2)
        covariance[:2, 4:] = covariance[4:, :2] = -math.sqrt(BIAS_SHARE) * fix.sigma_m * np.eye(2)
        return cls(
            fix.lat, fix.lon, np.full(models, 1 / models), np.zeros((models, 6)), np.tile(covariance, (models, 1, 1))
        )

    @property
    def velocity_m_s(self) -> Array:
        """``[2]``, east and north: the mean over the models."""
        velocity: Array = (self.models @ self.means)[2:4]
        return velocity

    @property
    def covariance(self) -> Array:
        """``[6, 6]`` of position, velocity and bias over all models, what they differ by included."""
        _, covariance = _moments(self.models, self.means, self.covariances)
        return covariance

    @property
    def position_covariance_m2(self) -> Array:
        """``[2, 2]``, east and north."""
        return self.covariance[:2, :2]

    def predict(self, dt_s: float, dynamics: Dynamics, grain_m: float = 0.0) -> Motion:
        """The same point later.

        Args:
            dt_s: seconds, zero or above.
            dynamics: how it may move.
            grain_m: distance over which the bias becomes another; its correlation falls as exp(-distance / grain).
        """
        joint = self.models[:, None] * dynamics.transition(dt_s)  # from i (row) to j (column)
        models = joint.sum(axis=0)
        mixed = [_moments(joint[:, j] / models[j], self.means, self.covariances) for j in range(len(models))]
        correlation = math.exp(-self._distance_m(dt_s) / grain_m) if grain_m > 0 else 0.0
        step = np.diag([1.0] * 4 + [correlation] * 2)
        step[0, 2] = step[1, 3] = dt_s
        noise = np.zeros((len(models), 6, 6))
        noise[:, :4, :4] = dynamics.process_noise(dt_s)
        noise[:, 4, 4] = noise[:, 5, 5] = 1 - correlation**2
        means = np.array([step @ mean for mean, _ in mixed])
        covariances = np.array([step @ covariance @ step.T for _, covariance in mixed]) + noise
        return self._anchored(models, means, covariances)

    def innovation(self, fix: Fix) -> tuple[Array, Array]:
        """What a fix says beyond what is expected: metres east and north ``[2]``, and the covariance expected of it."""
        mean, covariance = _moments(self.models, self.means, self.covariances)
        return self._gap_m(fix) - fix.matrix @ mean, fix.matrix @ covariance @ fix.matrix.T + fix.white_m2

    def update(self, fix: Fix) -> Motion:
        """Fuse a fix.

        The covariance is that of Joseph's form, which stays symmetric and positive whatever rounding does.
        """
        shows, gap_m = fix.matrix, self._gap_m(fix)
        means, covariances = [], []
        for mean, covariance in zip(self.means, self.covariances, strict=True):
            expected = shows @ covariance @ shows.T + fix.white_m2
            gain = np.linalg.solve(expected, shows @ covariance).T  # [6, 2]
            left = np.eye(6) - gain @ shows
            means.append(mean + gain @ (gap_m - shows @ mean))
            covariances.append(left @ covariance @ left.T + gain @ fix.white_m2 @ gain.T)
        models = self.models * self._densities_m2(fix)
        total = models.sum()
        models = models / total if total > 0 else self.models  # so far off that every density is 0: no model is better
        return self._anchored(models, np.array(means), np.array(covariances))

    def _gap_m(self, fix: Fix) -> Array:
        return np.array(offset_m(self.lat, self.lon, fix.lat, fix.lon))

    def _densities_m2(self, fix: Fix) -> Array:
        shows, gap_m = fix.matrix, self._gap_m(fix)
        return np.array(
            [
                gaussian_density(gap_m - shows @ mean, shows @ covariance @ shows.T + fix.white_m2)
                for mean, covariance in zip(self.means, self.covariances, strict=True)
            ]
        )

    def _distance_m(self, dt_s: float) -> float:
        """Root mean square of the distance that is flown in a time."""
        return dt_s * math.sqrt(float(self.velocity_m_s @ self.velocity_m_s + np.trace(self.covariance[2:4, 2:4])))

    def _anchored(self, models: Array, means: Array, covariances: Array) -> Motion:
        """Move the mean position to where the models now see it."""
        shift_m = (models @ means)[:2]
        lat, lon = offset(self.lat, self.lon, float(shift_m[0]), float(shift_m[1]))
        means = means - np.concatenate([shift_m, np.zeros(4)])
        return Motion(float(lat), float(lon), models, means, covariances)


def squared_distance(gap: Array, covariance: Array) -> float:
    """Squared Mahalanobis distance; of a right fix in the plane it is chi-square with two degrees of freedom."""
    return float(gap @ np.linalg.solve(covariance, gap))


def largest_sigma_m(covariance: Array) -> float:
    """Standard deviation along the long axis of the ellipse of a ``[2, 2]`` covariance."""
    return math.sqrt(float(np.linalg.eigvalsh(covariance)[-1]))


def gaussian_density(gap: Array, covariance: Array) -> float:
    """Density of a Gaussian in the plane at ``gap`` from its mean, per unit of area."""
    norm = 2 * math.pi * math.sqrt(float(np.linalg.det(covariance)))
    return math.exp(-squared_distance(gap, covariance) / 2) / norm


def _moments(weights: Array, means: Array, covariances: Array) -> tuple[Array, Array]:
    """Mean and covariance of a mixture of Gaussians."""
    mean = weights @ means
    apart = means - mean
    covariance = np.einsum("m,mij->ij", weights, covariances + apart[:, :, None] * apart[:, None, :])
    return mean, covariance
