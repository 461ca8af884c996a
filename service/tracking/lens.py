"""The field of view, from a flight: photos that show the same ground from several places agree on one lens only.

A photo alone cannot tell a longer lens from ground that falls away, so its own guess errs by a sixth over hills. Here
the ground's heights are unknown too, but they are one ground for all photos: a bundle adjustment (Triggs, McLauchlan,
Hartley and Fitzgibbon, "Bundle Adjustment - A Modern Synthesis", 2000) of camera poses, heights and one focal length.
On 19 photos of a real flight over hills, whose field of view is stated as 73.7° and fits the drone's GPS at 66 to 68°,
it finds 67° from the sixth photo on; the photos one by one give 51 to 84°.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from service.camera.attitude import Attitude

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]
Ints = NDArray[np.int64]

CELL_HEIGHTS = 0.35
"""The grid of unknown heights has this step, in heights of the camera: finer ones have too few matches each."""

SLOPE = 0.1
"""The ground's slope spreads by this between two points of the grid, as for single photos (``service.camera.pose``)."""

DATUM_M = 100.0
"""The heights as a whole, which say nothing, spread by this: it only keeps the equations regular."""

MATCHES = 256
"""So many matches of a photo are used; there are seldom more."""

VIEWS = 24
"""The last so many photos are kept; those before have told what they know."""

MOST_HEIGHTS = 3000
"""An adjustment has at most so many unknown heights; photos that need more between them are too different in height to
be one flight, and the oldest go. Their equations take 72 MB and a second."""

APART_HEIGHTS = 0.1
"""A photo from nearer than this to the one before takes its place: a hovering drone sees the same again, with the same
errors."""

LEAST_VIEWS = 3
"""From so many photos on the flight says something."""

ROUNDS, AGAIN = 8, 3
"""The first adjustment takes so many Gauss-Newton steps, and later ones, which start from the one before, so many."""

SPREAD, LEAST_SIGMA = 2.0, 0.01
"""The formal spread is too small by about this, for neighbouring matches err alike, and the lens bends straight lines
by about a hundredth."""

BAD_FIT = 2.5
"""A photo whose matches are off by more standard deviations than this is left out: its place is another."""


@dataclass(eq=False)
class FlightPhoto:
    """One photo of the flight.

    Attributes:
        photo: ``[M]``, right + i·up in widths from its centre.
        ground_m: ``[M]``, east + i·north from the flight's origin, where the map shows the same.
        sigma_m: ``[M]``, how far the matches are off.
        pitch_deg, roll_deg, tilt_sigma_deg: what is known of the attitude.
        pose: east, north and height in metres, heading in degrees, and what is added to pitch and roll.
    """

    photo: Complex
    ground_m: Complex
    sigma_m: Floats
    pitch_deg: float
    roll_deg: float
    tilt_sigma_deg: float
    pose: Floats

    @property
    def middle(self) -> int:
        """The match that is nearest to the photo's centre."""
        return int(np.argmin(np.abs(self.photo)))

    def seen(self, pose: Floats, focal: float, up_m: Floats) -> Complex:
        """Tell where rays of the photo meet the heights ``up_m``, one each."""
        right, down, forward = Attitude.of_angles(pose[3], self.pitch_deg + pose[4], self.roll_deg + pose[5]).matrix.T
        rays = np.outer(right, self.photo.real) - np.outer(down, self.photo.imag) + focal * forward[:, None]
        along = (pose[2] - up_m) / np.maximum(-rays[2], 1e-6)
        seen: Complex = pose[0] + along * rays[0] + 1j * (pose[1] + along * rays[1])
        return seen


STEPS = np.array([0.01, 0.01, 0.01, 1e-3, 1e-3, 1e-3])
"""Derivatives are taken with these steps, in metres and degrees."""


@dataclass(frozen=True)
class Lens:
    """A focal length that a flight has told.

    Attributes:
        focal_widths: over the photo's width.
        sigma: its spread, as a share.
    """

    focal_widths: float
    sigma: float

    @property
    def hfov_deg(self) -> float:
        """Angle that the photo's width covers."""
        return math.degrees(2 * math.atan(0.5 / self.focal_widths))

    @property
    def hfov_sigma_deg(self) -> float:
        """Spread of ``hfov_deg``."""
        half = math.radians(self.hfov_deg) / 2
        return math.degrees(self.sigma * math.sin(2 * half))


@dataclass(eq=False)
class LensTrial:
    """Photos of a flight with one lens, and what they tell of it.

    Attributes:
        stated: what is known of the lens before.
        views: the photos.
        found: what they tell; None while they are too few.
        covariance: ``[2, 2]`` of the last photo's place, square metres; None where it is not adjusted to the others.
        ground_m: height of the ground at the last photo's centre, from the origin of heights.
    """

    stated: Lens
    views: list[FlightPhoto] = field(default_factory=list)
    found: Lens | None = None
    covariance: Floats | None = None
    ground_m: float = 0.0

    def copy(self) -> LensTrial:
        """Return the same to go on with, which leaves this one as it is."""
        return replace(self, views=[replace(view) for view in self.views])

    def add(self, view: FlightPhoto) -> None:
        """Take in the next photo."""
        self.covariance = None
        if self.views:
            gap = self.views[-1].pose[:2] - view.pose[:2]
            if math.hypot(*gap) < APART_HEIGHTS * view.pose[2]:
                self.views.pop()
        self.views = [*self.views, view][-VIEWS:]
        if len(self.views) >= LEAST_VIEWS:
            self._adjust(ROUNDS if self.found is None else AGAIN)

    def _adjust(self, rounds: int) -> None:
        """Adjust all photos together; those that do not fit are left out from then on."""
        start = self.found or self.stated
        system = _System(self.views, self.stated)
        while system.heights > MOST_HEIGHTS:
            self.views = self.views[1:]
            system = _System(self.views, self.stated)
        if len(self.views) < LEAST_VIEWS:
            return
        adjusted = system.solve(math.log(start.focal_widths), rounds)
        if adjusted is None:
            return
        log_focal, covariance, fits = adjusted
        for view, pose in zip(self.views, system.poses, strict=True):
            view.pose = pose
        if max(fits) > BAD_FIT:
            self.views = [view for view, fit in zip(self.views, fits, strict=True) if fit <= BAD_FIT]
            return
        self.found = Lens(math.exp(log_focal), max(LEAST_SIGMA, SPREAD * math.sqrt(covariance[2, 2])))
        self.covariance, self.ground_m = SPREAD**2 * covariance[:2, :2], system.ground_m


class _System:
    """The equations of an adjustment: six unknowns a photo, the logarithm of the focal length, heights of the ground.

    Args:
        views: at least one.
        stated: the lens as it is known before.
    """

    def __init__(self, views: list[FlightPhoto], stated: Lens) -> None:
        self._views, self._stated, self.ground_m = views, stated, 0.0
        self.poses = [view.pose.copy() for view in views]
        self._focal_at = 6 * len(views)
        self._place_grid()

    def solve(self, log_focal: float, rounds: int) -> tuple[float, Floats, list[float]] | None:
        """Gauss-Newton: the logarithm of the focal length, a covariance, and how each photo fits.

        The formal covariance ``[3, 3]`` is that of the last photo's place, and of the logarithm.
        """
        up_m = np.zeros(self.heights)
        for _ in range(rounds):
            information, gradient, fits = self._normal(log_focal, up_m)
            try:
                step = np.linalg.solve(information, -gradient)
            except np.linalg.LinAlgError:
                return None
            if not np.isfinite(step).all() or abs(step[self._focal_at]) > 1:
                return None
            for k, pose in enumerate(self.poses):
                pose += step[6 * k : 6 * k + 6]
            log_focal += float(step[self._focal_at])
            up_m += step[self._focal_at + 1 :]
        wanted = [self._focal_at - 6, self._focal_at - 5, self._focal_at]
        covariance: Floats = np.linalg.solve(information, np.eye(len(information))[:, wanted])[wanted].astype(
            np.float64
        )
        self.ground_m = float((self._shares[-1] * up_m[self._nodes[-1]]).sum(axis=0)[self._views[-1].middle])
        return (log_focal, covariance, fits) if covariance.diagonal().min() > 0 else None

    def _place_grid(self) -> None:
        """Number the points of the grid that matches lie between, and remember which and how much of each."""
        cell = CELL_HEIGHTS * float(np.median([view.pose[2] for view in self._views]))
        places = np.concatenate([view.ground_m for view in self._views]) / cell
        column, row = np.floor(places.real).astype(int), np.floor(places.imag).astype(int)
        u, v = places.real - column, places.imag - row
        corners = [(column + i, row + j) for j in (0, 1) for i in (0, 1)]
        keys = np.stack([x.astype(np.int64) * 2**31 + y for x, y in corners])
        known, numbers = np.unique(keys, return_inverse=True)
        cuts = np.cumsum([len(view.photo) for view in self._views])[:-1]
        shares = np.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v])
        self._nodes: list[Ints] = np.split(numbers.reshape(4, -1), cuts, axis=1)
        self._shares: list[Floats] = np.split(shares, cuts, axis=1)
        self.heights = len(known)
        pairs = []
        for step in (2**31, 1):  # to the next column, and to the next row
            at = np.minimum(np.searchsorted(known, known + step), len(known) - 1)
            one = np.flatnonzero(known[at] == known + step)
            pairs.append(np.stack([one, at[one]]))
        self._neighbours: Ints = np.hstack(pairs)
        self._rise_m = SLOPE * cell

    def _normal(self, log_focal: float, up_m: Floats) -> tuple[Floats, Floats, list[float]]:
        """The normal equations: information ``[U, U]`` and gradient ``[U]``; and how each photo fits."""
        count, first = self._focal_at + 1 + self.heights, self._focal_at + 1
        information, gradient, fits = np.zeros((count, count)), np.zeros(count), []

        def known(at: int, off: float, sigma: float) -> None:
            information[at, at] += sigma**-2
            gradient[at] += off / sigma**2

        for k, view in enumerate(self._views):
            slopes, off, columns = self._of_view(k, view, math.exp(log_focal), up_m)
            information[np.ix_(columns, columns)] += slopes.T @ slopes
            gradient[columns] += slopes.T @ off
            fits.append(math.sqrt(float(np.mean(off**2))))
            for axis in (4, 5):
                known(6 * k + axis, self.poses[k][axis], view.tilt_sigma_deg)
        known(self._focal_at, log_focal - math.log(self._stated.focal_widths), self._stated.sigma)
        one, other = self._neighbours
        rise = (up_m[one] - up_m[other]) / self._rise_m**2
        np.add.at(gradient, first + one, rise)
        np.add.at(gradient, first + other, -rise)
        for here, there in ((one, one), (other, other)):
            np.add.at(information, (first + here, first + there), self._rise_m**-2)
        for here, there in ((one, other), (other, one)):
            np.add.at(information, (first + here, first + there), -(self._rise_m**-2))
        heights = np.arange(first, count)
        information[heights, heights] += DATUM_M**-2
        gradient[heights] += up_m / DATUM_M**2
        return information, gradient, fits

    def _of_view(self, k: int, view: FlightPhoto, focal: float, up_m: Floats) -> tuple[Floats, Floats, Ints]:
        """A photo's matches: derivatives ``[2 M, K]``, residuals in standard deviations, and which unknowns K are."""
        nodes, shares, pose = self._nodes[k], self._shares[k], self.poses[k]
        used, local = np.unique(nodes, return_inverse=True)
        ground = (shares * up_m[nodes]).sum(axis=0)
        seen = view.seen(pose, focal, ground)
        off = seen - view.ground_m
        weight = 1 / view.sigma_m
        weight = weight / np.sqrt(np.maximum(1.0, np.abs(off) * weight / 2))  # Huber, as in ``service.camera.pose``
        slopes: Complex = np.zeros((len(off), 7 + len(used)), np.complex128)
        for j, step in enumerate(STEPS):
            slopes[:, j] = (view.seen(pose + step * np.eye(6)[j], focal, ground) - seen) / step
        slopes[:, 6] = (view.seen(pose, focal * (1 + 1e-5), ground) - seen) / 1e-5
        lifted = (view.seen(pose, focal, ground + 0.01) - seen) / 0.01
        rows = np.arange(len(off))
        for node, share in zip(local.reshape(4, -1), shares, strict=True):
            slopes[rows, 7 + node] += lifted * share
        slopes *= weight[:, None]
        off = off * weight
        columns = np.concatenate([6 * k + np.arange(6), [self._focal_at], self._focal_at + 1 + used])
        return np.vstack([slopes.real, slopes.imag]), np.concatenate([off.real, off.imag]), columns
