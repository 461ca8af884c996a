"""What the photos of one flight have in common: their lens, and how their cameras are placed with it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from service.camera.known import KnownCamera, Reading
from service.camera.pose import SIGMA_TOLERANCES
from service.geo import offset, offset_m
from service.localization.answer import Answer
from service.localization.hints import SAME_LENS, SentLens
from service.localization.places import CameraFix
from service.localization.whereabouts import MAP_M
from service.tracking.lens import MATCHES, FlightPhoto, Lens, LensTrial

STEEP_DEG = -75.0
"""Photos that look further down tell a height times a field of view, and neither."""

COMMON_SHARE = 0.5
"""Neighbouring photos share so much of the variance of a camera's place, for they see the same ground through the same
lens. On a real flight over hills, errors along the view are 5 m in the mean and 4 m about it."""


@dataclass(eq=False)
class FlightLens:
    """The lens of a flight.

    Attributes:
        stated_deg: its field of view as callers or metadata state it.
        origin: ``lat, lon`` from which places are counted.
        trial: what the photos tell.
    """

    stated_deg: float
    origin: tuple[float, float]
    trial: LensTrial

    @classmethod
    def begin(cls, stated: Reading, origin: tuple[float, float]) -> FlightLens:
        """Begin with the first photo that tells something."""
        focal = 0.5 / math.tan(math.radians(stated.value) / 2)
        return cls(stated.value, origin, LensTrial(Lens(focal, stated.sigma)))

    def with_stated(self, stated: Reading) -> FlightLens:
        """Return the same lens, or a new one when another is stated: another camera, or another zoom."""
        if abs(stated.value / self.stated_deg - 1) <= SAME_LENS:
            return self
        return FlightLens.begin(stated, self.origin)

    @property
    def found(self) -> Lens | None:
        """What the flight tells, None before it does."""
        return self.trial.found

    @property
    def to_send(self) -> SentLens | None:
        """What the next photo is told."""
        found = self.found
        return None if found is None else SentLens(self.stated_deg, found.hfov_deg, found.sigma)

    def take(self, answer: Answer) -> tuple[FlightLens, CameraFix | None]:
        """Take in a photo.

        Returns:
            The lens after it, while this one stays as it is; and where the photo's camera was among the others, None
            while they tell nothing.
        """
        view = self._view(answer)
        if view is None:
            return self, None
        after = replace(self, trial=self.trial.copy())
        after.trial.add(view)
        return after, after._placed(view)

    def _placed(self, view: FlightPhoto) -> CameraFix | None:
        """Where the camera of the last photo was; None where the flight does not tell."""
        if self.trial.covariance is None:
            return None
        east_m, north_m, height_m, heading_deg, *_ = view.pose
        lat, lon = offset(*self.origin, float(east_m), float(north_m))
        own_m2 = COMMON_SHARE * self.trial.covariance
        common_m = math.sqrt((1 - COMMON_SHARE) * float(np.trace(self.trial.covariance)) / 2 + MAP_M**2)
        height_m -= self.trial.ground_m
        return CameraFix(float(lat), float(lon), own_m2, common_m, float(height_m), float(heading_deg) % 360)

    def _view(self, answer: Answer) -> FlightPhoto | None:
        fix, camera, known = answer.fix, answer.whereabouts.camera, answer.known.camera
        if fix is None or camera is None or camera.height_m is None or known.pitch_deg is None or known.tilt is None:
            return None
        if known.pitch_deg.value < STEEP_DEG or "pitch_deg" in answer.disputed:
            return None
        some = np.unique(np.linspace(0, len(fix.photo) - 1, MATCHES).round().astype(int))
        shift = complex(*offset_m(*self.origin, *fix.origin))
        _, pitch_deg, roll_deg = known.tilt.angles_deg
        east_m, north_m = offset_m(*self.origin, camera.lat, camera.lon)
        pose = np.array([east_m, north_m, camera.height_m, camera.heading_deg, 0.0, 0.0], np.float64)
        return FlightPhoto(
            fix.photo[some],
            fix.ground_m[some] + shift,
            fix.tolerance_m[some] * SIGMA_TOLERANCES,
            pitch_deg,
            roll_deg,
            known.pitch_deg.sigma,
            pose,
        )


def lens_and_camera(lens: FlightLens | None, answer: Answer) -> tuple[FlightLens | None, CameraFix | None]:
    """Return the flight's lens after a photo, and where the photo's camera was.

    A photo tells of the lens if its place is sure, and a field of view came with it: without one, it may be another
    camera's.
    """
    alone = _camera_fix(answer)
    known, fix = answer.known.camera, answer.fix
    if alone is None or fix is None or answer.verdict.status != "located" or known.hfov_deg is None:
        return lens, alone
    stated = _stated_lens(known)
    if stated is not None:  # else the flight has told it
        lens = FlightLens.begin(stated, fix.origin) if lens is None else lens.with_stated(stated)
    if lens is None:
        return None, alone
    after, among_others = lens.take(answer)
    return after, among_others or alone


def _stated_lens(known: KnownCamera) -> Reading | None:
    """The field of view that a photo came with, None when nobody stated one, or it is what the flight has told."""
    stated = known.hfov_deg
    return None if stated is None or stated.source == "track" else stated


def _camera_fix(answer: Answer) -> CameraFix | None:
    """Where the camera of a photo alone was, None when it does not tell."""
    camera = answer.whereabouts.camera
    if camera is None:
        return None
    own_m2 = COMMON_SHARE * camera.covariance_m2
    common_m = math.sqrt((1 - COMMON_SHARE) * float(np.trace(camera.covariance_m2)) / 2)
    return CameraFix(camera.lat, camera.lon, own_m2, common_m, camera.height_m, camera.heading_deg)
