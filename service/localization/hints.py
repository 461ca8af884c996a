"""What is known about a photo before its pixels are looked at: the caller's word first, then its metadata."""

from dataclasses import dataclass, field
from typing import Literal

from service.errors import MissingParameter
from service.geo import Circle
from service.imaging.exif import Pose

Source = Literal["form", "exif"]
HEADING_READINGS = {
    "gimbal": "gimbal yaw",
    "flight": "flight yaw",
    "camera": "camera yaw",
    "compass": "GPS image direction",
}


@dataclass(frozen=True)
class Hints:
    """What the caller says about a photo, and what may be read from its metadata; see the form of ``/localize``."""

    prior: Circle | None = None
    heading_deg: float | None = None
    altitude_m: float | None = None
    hfov_deg: float | None = None
    ground_elevation_m: float | None = None
    use_exif: bool = True
    use_exif_position: bool = False


@dataclass(frozen=True)
class Known:
    """Hints and metadata, resolved: the form wins, EXIF fills what it leaves out.

    Attributes:
        used: where each value that counts comes from.
        readings: for those from EXIF or XMP, which reading it is.
    """

    prior: Circle | None
    heading_deg: float | None
    altitude_m: float | None
    hfov_deg: float | None
    used: dict[str, Source] = field(default_factory=dict)
    readings: dict[str, str] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """The numbers that count, by name; the prior's radius under ``prior_radius_m``."""
        numbers = {"heading_deg": self.heading_deg, "altitude_m": self.altitude_m, "hfov_deg": self.hfov_deg}
        if self.prior is not None:
            prior = self.prior
            numbers |= {"prior_lat": prior.lat, "prior_lon": prior.lon, "prior_radius_m": prior.radius_m}
        return {name: number for name, number in numbers.items() if number is not None}


def resolve(hints: Hints, pose: Pose, exif_position_radius_m: float) -> Known:
    """Decide which hints count.

    Altitude and field of view only count together: they give the photo's ground size. A height above the take-off
    point comes before one above sea level, which counts only with the ground's own (``ground_elevation_m``): over
    ground 250 m up, a photo from 120 m would otherwise pass for one from 370 m.

    Raises:
        MissingParameter: ``use_exif_position`` is set, but neither a prior nor an EXIF position is there.
    """
    used: dict[str, Source] = {}
    readings: dict[str, str] = {}

    def pick(name: str, given: float | None, read: float | None, reading: str) -> float | None:
        if given is not None:
            used[name] = "form"
            return given
        if hints.use_exif and read is not None:
            used[name], readings[name] = "exif", reading
            return read
        return None

    heading = pick(
        "heading_deg", hints.heading_deg, pose.heading_deg, HEADING_READINGS.get(pose.heading_source or "", "")
    )
    altitude = pick("altitude_m", hints.altitude_m, *_read_altitude(pose, hints.ground_elevation_m))
    hfov = pick("hfov_deg", hints.hfov_deg, pose.hfov_deg, "35 mm focal length")
    if altitude is None or hfov is None:
        altitude = hfov = None
        for name in ("altitude_m", "hfov_deg"):
            used.pop(name, None)
            readings.pop(name, None)
    prior = hints.prior
    if prior is not None:
        used["prior"] = "form"
    elif hints.use_exif_position:
        if pose.position is None:
            raise MissingParameter(
                "use_exif_position is set but the photo has no EXIF position; give prior_lat, prior_lon and "
                "prior_radius_m instead."
            )
        prior = Circle(*pose.position, exif_position_radius_m)
        used["prior"], readings["prior"] = "exif", "GPS position"
    return Known(prior, heading, altitude, hfov, used, readings)


def _read_altitude(pose: Pose, ground_elevation_m: float | None) -> tuple[float | None, str]:
    """Height above ground from metadata, and which reading it is."""
    if pose.altitude_m is not None:
        return pose.altitude_m, "relative altitude"
    if pose.gps_altitude_m is not None and ground_elevation_m is not None and pose.gps_altitude_m > ground_elevation_m:
        return pose.gps_altitude_m - ground_elevation_m, "GPS altitude less ground_elevation_m"
    return None, ""
