"""Where the aircraft is, as an autopilot wants it."""

import math
from dataclasses import dataclass

from aerofix.models import TrackedLocalization

PER_AXIS = math.sqrt(-2 * math.log(1 - 0.68))
"""The 68 % radius of a position is so many times its standard deviation along each axis (Rayleigh distribution)."""

HEIGHT_SHARE = 0.05
"""The standard deviation of a height is this share of it. It is our reconstruction: nominal fields of view are off by a
few per cent, and heights with them."""


@dataclass(frozen=True)
class Solution:
    """Where the aircraft's camera was at a time, in words of navigation.

    Attributes:
        time_s: when the picture was taken, seconds since 1970 (UTC).
        lat: degrees north, WGS84.
        lon: degrees east, WGS84.
        accuracy_m: radius that holds the truth with 68 % probability.
        heading_deg: where the photo's top edge faces, compass direction.
        height_m: above the ground; None when not known.
        altitude_m: above sea level; None when the height or the ground's own is not known.
        velocity_m_s: northwards and eastwards; None before two fixes.
    """

    time_s: float
    lat: float
    lon: float
    accuracy_m: float
    heading_deg: float
    height_m: float | None = None
    altitude_m: float | None = None
    velocity_m_s: tuple[float, float] | None = None

    @property
    def sigma_m(self) -> float:
        """Standard deviation along north and along east."""
        return self.accuracy_m / PER_AXIS

    @property
    def sigma_down_m(self) -> float | None:
        """Standard deviation of the altitude; None when that is not known."""
        if self.altitude_m is None or self.height_m is None:
            return None
        return max(self.sigma_m, HEIGHT_SHARE * self.height_m)


def solve(
    step: TrackedLocalization, time_s: float, ground_elevation_m: float | None = None, first: bool = False
) -> Solution | str:
    """Say what a photo of a flight tells of the aircraft, or why it tells nothing that an autopilot may hear.

    The photo's own fix is told, not the track's average with those before: autopilots filter themselves, and would
    count the same photos several times. The track decides whether the fix fits the flight.

    Args:
        step: the service's answer.
        time_s: when the photo was taken, seconds since 1970 (UTC).
        ground_elevation_m: the ground above sea level, if it is known.
        first: whether it may be the flight's first fix, before which nothing is known of its speed.
    """
    camera = step.photo.camera
    if step.photo.status != "located":
        return step.photo.status
    if step.use != "fused":
        return "does not fit the flight"
    if camera is None:
        return step.photo.camera_missing or "the camera's place is not known"
    known = camera.height_m is not None and ground_elevation_m is not None
    velocity = None if first or step.position is None else step.velocity
    return Solution(
        time_s=time_s,
        lat=camera.lat,
        lon=camera.lon,
        accuracy_m=camera.accuracy_m,
        heading_deg=camera.heading_deg % 360,
        height_m=camera.height_m,
        altitude_m=(camera.height_m or 0.0) + (ground_elevation_m or 0.0) if known else None,
        velocity_m_s=None if velocity is None else (velocity.north_m_s, velocity.east_m_s),
    )
