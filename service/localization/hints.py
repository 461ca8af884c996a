"""What is known about a photo before its pixels are looked at: the caller's word first, then its metadata."""

from dataclasses import dataclass, field
from typing import Literal

from service.errors import MissingParameter
from service.geo import Circle
from service.imaging.pose import Pose

Source = Literal["form", "exif"]


@dataclass(frozen=True)
class Hints:
    """What the caller says about a photo, and what may be read from its metadata; see the form of ``/localize``."""

    prior: Circle | None = None
    heading_deg: float | None = None
    altitude_m: float | None = None
    hfov_deg: float | None = None
    use_exif: bool = True
    use_exif_position: bool = False


@dataclass(frozen=True)
class Known:
    """Hints and metadata, resolved: the form wins, EXIF fills what it leaves out."""

    prior: Circle | None
    heading_deg: float | None
    altitude_m: float | None
    hfov_deg: float | None
    used: dict[str, Source] = field(default_factory=dict)


def resolve(hints: Hints, pose: Pose, exif_position_radius_m: float) -> Known:
    """Decide which hints count.

    Altitude and field of view only count together: they give the photo's ground size.

    Raises:
        MissingParameter: ``use_exif_position`` is set, but neither a prior nor an EXIF position is there.
    """
    used: dict[str, Source] = {}

    def pick(name: str, given: float | None, read: float | None) -> float | None:
        if given is not None:
            used[name] = "form"
            return given
        if hints.use_exif and read is not None:
            used[name] = "exif"
            return read
        return None

    heading = pick("heading_deg", hints.heading_deg, pose.heading_deg)
    altitude = pick("altitude_m", hints.altitude_m, pose.altitude_m)
    hfov = pick("hfov_deg", hints.hfov_deg, pose.hfov_deg)
    if altitude is None or hfov is None:
        altitude = hfov = None
        used.pop("altitude_m", None)
        used.pop("hfov_deg", None)
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
        used["prior"] = "exif"
    return Known(prior, heading, altitude, hfov, used)
