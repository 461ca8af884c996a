"""Where the aircraft is, from the cameras of its photos: one more motion beside that of the point on the ground.

The point on the ground is what photos are told apart by, and what neighbouring photos measure the movement of. The
aircraft lies behind it by a distance that only the camera tells; when it turns, the point swings and the aircraft does
not. So each has a motion of its own (``service.tracking.filter``), and fixes of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from service.geo import offset_m
from service.localization.places import CameraFix, Place, PositionError
from service.tracking.filter import GATE, Array, MeasuredPosition, Motion, Shift, squared_distance

TURN_SHARE = 0.5
"""Between two overlapping photos, the distance between the aircraft and its point on the ground may swing by this share
of it, 30° of heading. So the movement of the point tells that of the aircraft only where it looks down."""

LOST_M = 150.0
"""An aircraft that is known no better is not known: its point on the ground says as much."""

TURN = 2.0
"""The point on the ground moves by at most so many times its distance from the aircraft, when that turns round."""


@dataclass(frozen=True, eq=False)
class Aircraft:
    """An aircraft and its motion.

    Attributes:
        motion: its position and velocity.
        common_m: what its fixes err by alike: of the last one, for a flight learns of its lens.
        height_m: above the ground that the last photo showed, if known.
        heading_deg: where its camera looked then.
    """

    motion: Motion
    common_m: float
    height_m: float | None
    heading_deg: float

    @classmethod
    def start(cls, camera: CameraFix, max_speed_m_s: float) -> Aircraft:
        """Begin with a first fix."""
        motion = Motion.start(_fix(camera), max_speed_m_s)
        return cls(motion, camera.common_m, camera.height_m, camera.heading_deg)

    @property
    def covariance_m2(self) -> Array:
        """``[2, 2]`` of the position, east and north."""
        return self.motion.position_covariance_m2 + self.common_m**2 * np.eye(2)

    def predict(self, dt_s: float, acceleration_m_s2: float, shift: Shift | None, ground: Motion) -> Aircraft | None:
        """Return the same aircraft later; None when too little is known of it then.

        Args:
            dt_s: seconds.
            acceleration_m_s2: see ``Motion.predict``.
            shift: how far the point on the ground has moved, if measured.
            ground: that point, before.
        """
        motion = self.motion.predict(dt_s, acceleration_m_s2)
        if shift is not None:
            lead_m = math.hypot(*offset_m(self.motion.lat, self.motion.lon, ground.lat, ground.lon))
            swung = replace(shift, sigma_m=math.hypot(shift.sigma_m, TURN_SHARE * lead_m))
            by_shift = self.motion.predict(dt_s, acceleration_m_s2, 0.0, swung)
            if np.trace(by_shift.position_covariance_m2) < np.trace(motion.position_covariance_m2):
                motion = by_shift
        later = replace(self, motion=motion)
        return None if np.linalg.eigvalsh(later.covariance_m2)[-1] > LOST_M**2 else later

    def update(self, camera: CameraFix) -> Aircraft:
        """Take in a fix; one that is wild counts as much less as it takes to be believed."""
        gap_m, expected = self.gap(camera)
        fix = _fix(camera)
        wild = squared_distance(gap_m, expected) / GATE
        if wild > 1:
            fix = replace(fix, spread_m2=wild * fix.white_m2)
        return Aircraft(self.motion.update(fix), camera.common_m, camera.height_m, camera.heading_deg)

    def gap(self, camera: CameraFix) -> tuple[Array, Array]:
        """Return metres to a fix, and their covariance."""
        gap_m = np.array(offset_m(self.motion.lat, self.motion.lon, camera.lat, camera.lon))
        return gap_m, self.motion.position_covariance_m2 + camera.covariance_m2 + camera.common_m**2 * np.eye(2)


def turned(aircraft: Aircraft | None, ground: Motion, place: Place) -> tuple[Array, Array] | None:
    """Return the aircraft's gap to a place where its point on the ground was not expected, if a turn explains it.

    Returns:
        Metres from the aircraft to the camera's fix, and their covariance; None when no turn brings the point there.
    """
    if aircraft is None or place.camera is None:
        return None
    lead_m = math.hypot(*offset_m(place.camera.lat, place.camera.lon, place.lat, place.lon))
    if math.hypot(*offset_m(ground.lat, ground.lon, place.lat, place.lon)) > TURN * lead_m:
        return None
    gap_m, expected = aircraft.gap(place.camera)
    return (gap_m, expected) if squared_distance(gap_m, expected) <= GATE else None


def _fix(camera: CameraFix) -> MeasuredPosition:
    own_m = math.sqrt(float(np.trace(camera.covariance_m2)) / 2)
    return MeasuredPosition(
        camera.lat, camera.lon, PositionError(own_m, common_m=camera.common_m), camera.covariance_m2
    )
