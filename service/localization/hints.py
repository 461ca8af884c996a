"""What is known about a photo before its pixels are looked at: the caller's word first, then its metadata."""

from dataclasses import dataclass, field, replace

from service.camera.attitude import Attitude
from service.camera.known import KnownCamera, Reading, Source
from service.errors import MissingParameter
from service.geo import Circle
from service.imaging.exif import Pose

HEADINGS = {
    "gimbal": ("gimbal yaw", 5.0),
    "flight": ("flight yaw", 10.0),
    "camera": ("camera yaw", 8.0),
    "compass": ("GPS image direction", 20.0),
}
"""For each source of a heading, this is its name and its spread in degrees. Compasses of drones err by 5 to 10° near
metal; an aircraft's yaw leaves out how the camera hangs."""

PITCHES = {"gimbal": ("gimbal pitch", 0.3), "camera": ("camera pitch", 2.0)}
"""Gimbals hold a tenth of a degree; a camera in the floor of an aircraft shares what its horizon errs by."""

LENSES = {
    "calibrated": ("calibrated focal length", 0.01),
    "focal_plane": ("focal length and sensor size", 0.03),
    "film": ("35 mm focal length", 0.08),
}
"""For each source of a field of view, this is its name and the spread of the focal length. Equivalent focal lengths are
rounded to whole millimetres, and say little of the crop; videos are cropped by up to a tenth."""

FORM_HEADING_DEG, FORM_PITCH_DEG, FORM_FOCAL = 8.0, 0.3, 0.08
"""What a caller states spreads by these: a heading from a compass, a pitch from a gimbal, a lens from its data sheet,
of which videos and digital stabilization crop up to a tenth."""

SAME_LENS = 0.01
"""Stated fields of view that differ by less, as a share, are those of one lens at one zoom."""

HEIGHT_SHARE, HEIGHT_M = 0.15, 5.0
"""A height spreads by this share, for the ground is not as high as where the drone took off, and by so many metres."""


@dataclass(frozen=True)
class Hints:
    """What the caller says about a photo, and what may be read from its metadata; see the form of ``/localize``."""

    prior: Circle | None = None
    heading_deg: float | None = None
    altitude_m: float | None = None
    hfov_deg: float | None = None
    pitch_deg: float | None = None
    roll_deg: float | None = None
    ground_elevation_m: float | None = None
    use_exif: bool = True
    use_exif_position: bool = False


@dataclass(frozen=True)
class SentLens:
    """The field of view as earlier photos of a flight have told it.

    Attributes:
        stated_deg: what was stated with them: it counts for a photo with which the same is stated.
        hfov_deg: what they told.
        sigma: spread of the focal length, as a share.
    """

    stated_deg: float
    hfov_deg: float
    sigma: float


@dataclass(frozen=True)
class Known:
    """Hints and metadata, resolved: the form wins, EXIF fills what it leaves out.

    Attributes:
        prior: where to search.
        prior_source: who says so.
        camera: what is known of the camera.
        unused: values that were given and cannot count, with what is missing.
    """

    prior: Circle | None
    camera: KnownCamera
    prior_source: Source | None = None
    unused: dict[str, str] = field(default_factory=dict)

    def with_lens(self, lens: SentLens) -> "Known":
        """Return the same with the lens that a flight has told, if this is the one that is stated here."""
        stated = self.camera.hfov_deg
        if stated is None or abs(stated.value / lens.stated_deg - 1) > SAME_LENS:
            return self
        told = Reading(lens.hfov_deg, lens.sigma, "track", "earlier photos of the flight")
        return replace(self, camera=replace(self.camera, hfov_deg=told))

    @property
    def _said(self) -> dict[str, Reading]:
        camera = self.camera
        said = {
            "heading_deg": camera.heading_deg,
            "pitch_deg": camera.pitch_deg,
            "roll_deg": camera.roll_deg,
            "altitude_m": camera.height_m,
            "hfov_deg": camera.hfov_deg,
        }
        return {name: reading for name, reading in said.items() if reading is not None and name not in self.unused}

    @property
    def used(self) -> dict[str, Source]:
        """Where each value that counts comes from."""
        sources: dict[str, Source] = {name: reading.source for name, reading in self._said.items()}
        return sources | ({"prior": self.prior_source} if self.prior_source is not None else {})

    @property
    def readings(self) -> dict[str, str]:
        """Which reading of EXIF or XMP each value is; where a flight has it from."""
        named = {name: reading.reading for name, reading in self._said.items() if reading.source != "form"}
        return named | ({"prior": "GPS position"} if self.prior_source == "exif" else {})

    @property
    def values(self) -> dict[str, float]:
        """The numbers that count, by name; the prior's radius under ``prior_radius_m``."""
        numbers = {name: reading.value for name, reading in self._said.items()}
        if self.prior is not None:
            prior = self.prior
            numbers |= {"prior_lat": prior.lat, "prior_lon": prior.lon, "prior_radius_m": prior.radius_m}
        return numbers


def resolve(hints: Hints, pose: Pose, exif_position_radius_m: float) -> Known:
    """Decide which hints count.

    A height counts only with a field of view: together they give the photo's ground size. A height above the take-off
    point comes before one above sea level, which counts only with the ground's own (``ground_elevation_m``): over
    ground 250 m up, a photo from 120 m would otherwise pass for one from 370 m.

    Raises:
        MissingParameter: ``use_exif_position`` is set, but neither a prior nor an EXIF position is there.
    """
    read = pose if hints.use_exif else Pose()
    height = _height(hints, read)
    hfov = _pick(hints.hfov_deg, FORM_FOCAL, read.hfov_deg, LENSES.get(read.lens_source or "film"))
    unused = {}
    if height is not None and hfov is None:
        unused["altitude_m"] = "a height says how much ground the photo shows only with the field of view: add hfov_deg"
    pitch, roll, tilt = _tilt(hints, read)
    if hints.roll_deg is not None and pitch is None:
        unused["roll_deg"] = "a roll counts only with the pitch: add pitch_deg"
    camera = KnownCamera(
        heading_deg=_pick(
            hints.heading_deg, FORM_HEADING_DEG, read.heading_deg, HEADINGS.get(read.heading_source or "", ("", 20.0))
        ),
        pitch_deg=pitch,
        roll_deg=roll,
        height_m=height,
        hfov_deg=hfov,
        tilt=tilt,
    )
    if hints.prior is not None:
        return Known(hints.prior, camera, "form", unused)
    if not hints.use_exif_position:
        return Known(None, camera, None, unused)
    if pose.position is None:
        raise MissingParameter(
            "use_exif_position is set but the photo has no EXIF position; give prior_lat, prior_lon and "
            "prior_radius_m instead."
        )
    return Known(Circle(*pose.position, exif_position_radius_m), camera, "exif", unused)


def _pick(
    given: float | None, given_sigma: float, read: float | None, name_and_sigma: tuple[str, float] | None
) -> Reading | None:
    if given is not None:
        return Reading(given, given_sigma, "form")
    if read is None:
        return None
    name, sigma = name_and_sigma or ("", given_sigma)
    return Reading(read, sigma, "exif", name)


def _tilt(hints: Hints, read: Pose) -> tuple[Reading | None, Reading | None, Attitude | None]:
    """Pitch and roll, and the attitude with heading 0 that they make."""
    if hints.pitch_deg is not None:
        pitch = Reading(hints.pitch_deg, FORM_PITCH_DEG, "form")
        roll = None if hints.roll_deg is None else Reading(hints.roll_deg, FORM_PITCH_DEG, "form")
        made = Attitude.of_angles(0.0, hints.pitch_deg, hints.roll_deg or 0.0)
        return pitch, roll, made.turned(-made.heading_deg)
    if read.attitude is None:
        return None, None, None
    name, sigma = PITCHES["gimbal" if read.heading_source == "gimbal" else "camera"]
    pitch = Reading(read.attitude.pitch_deg, sigma, "exif", name)
    return pitch, None, read.attitude.turned(-read.attitude.heading_deg)


def _height(hints: Hints, read: Pose) -> Reading | None:
    """Height above ground, stated or from metadata."""

    def reading(value: float, source: Source, name: str = "") -> Reading:
        return Reading(value, HEIGHT_SHARE * value + HEIGHT_M, source, name)

    if hints.altitude_m is not None:
        return reading(hints.altitude_m, "form")
    if read.altitude_m is not None:
        return reading(read.altitude_m, "exif", "relative altitude")
    above_sea, ground = read.gps_altitude_m, hints.ground_elevation_m
    if above_sea is not None and ground is not None and above_sea > ground:
        return reading(above_sea - ground, "exif", "GPS altitude less the ground's elevation")
    return None
