"""What a photo's EXIF and XMP say about the camera: attitude, height, field of view, position.

Every maker's angles end in one rotation matrix (``service/camera/attitude.py``). Which names they write, and in which
convention, is from public documentation and files:

* DJI, newer Autel: ``drone-dji:GimbalYawDegree`` … or ``drone:GimbalYawDegree`` …, against the world, pitch -90 down.
* Skydio: the structure ``drone-skydio:CameraOrientationNED``, likewise. Its twin ``CameraOrientationFLU`` is measured
  from where the drone took off.
* Parrot: ``drone-parrot:CameraYawDegree`` …, likewise, pitch -90 down.
* Pix4D, senseFly, older Autel: ``Camera:Yaw`` …, angles of the aircraft that has the camera in its floor, 0 down.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from PIL import ExifTags, Image

from service.camera.attitude import Attitude
from service.imaging.lens import LensSource, read_lens
from service.imaging.xmp import Values, number, read_structure, read_xmp

HeadingSource = Literal["gimbal", "flight", "camera", "compass"]

MAX_ALTITUDE_M = 20_000.0  # the form's own limit; what metadata says beyond it is garbage

_OFFSET = re.compile(r"([+-])(\d\d):([0-5]\d)")
_GIMBALS = ("drone-dji:Gimbal{}Degree", "drone:Gimbal{}Degree", "drone-parrot:Camera{}Degree")
_HEIGHTS = (
    "drone-dji:RelativeAltitude",
    "drone:RelativeAltitude",
    "drone-skydio:RelativeAltitude",
    "Camera:AboveGroundAltitude",
)


@dataclass(frozen=True)
class Pose:
    """What is known of the camera when the photo was taken; None where nothing is.

    Attributes:
        attitude: of the photo as it is shown, when pitch and roll are known too.
        heading_deg: compass direction of the shown photo's top edge, in [0, 360), 0 = north.
        heading_source: which reading the heading comes from.
        altitude_m: height above the take-off point, the best guess at the height above ground.
        gps_altitude_m: height above sea level, which says nothing about the ground without the ground's own.
        hfov_deg: angle that the shown photo's width covers.
        lens_source: which reading the field of view comes from.
        position: ``(lat, lon)`` of the camera.
        taken_at_s: when it was taken, seconds since 1970; by UTC where the file names no offset.
    """

    attitude: Attitude | None = None
    heading_deg: float | None = None
    heading_source: HeadingSource | None = None
    altitude_m: float | None = None
    gps_altitude_m: float | None = None
    hfov_deg: float | None = None
    lens_source: LensSource | None = None
    position: tuple[float, float] | None = None
    taken_at_s: float | None = None


def read_pose(image: Image.Image, orientation: int = 1, size: tuple[int, int] | None = None) -> Pose:
    """Read the pose of an image.

    Never raises: metadata is a hint, and garbage in it reads as "not known".

    Args:
        image: a file that Pillow has opened.
        orientation: EXIF's, 1 to 8, of the pixels as they are stored.
        size: width and height as the photo is shown; None: as it is stored.
    """
    try:
        exif = image.getexif()
        details, gps = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
    except Exception:  # Pillow raises whatever the bytes lead it to
        details, gps = {}, {}
    text, xmp = read_xmp(image.info.get("xmp") or b"")
    attitude, source = _attitude(text, xmp)
    if attitude is None:
        yaw, source = _heading(xmp, gps)
        level = (
            None if yaw is None else Attitude.of_angles(yaw).shown(orientation)
        )  # of unknown pitch: only its heading counts
    else:
        level = attitude = attitude.shown(orientation)
    hfov, lens = read_lens(text, xmp, details, size or image.size)
    return Pose(
        attitude=attitude,
        heading_deg=None if level is None else level.heading_deg,
        heading_source=source,
        altitude_m=_height_m(xmp),
        gps_altitude_m=_gps_altitude_m(gps),
        hfov_deg=hfov,
        lens_source=lens,
        position=_position(gps),
        taken_at_s=_taken_at_s(details),
    )


def _taken_at_s(details: dict[int, Any]) -> float | None:
    """DateTimeOriginal with its fraction of a second and its offset from UTC (EXIF 2.32, section 4.6.5).

    Clocks that were never set write zeros or blanks. Fraction or offset that cannot be read count as absent.
    """
    tags = ExifTags.Base
    try:
        taken = datetime.strptime(str(details.get(tags.DateTimeOriginal)).strip("\0 "), "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
    fraction = str(details.get(tags.SubsecTimeOriginal, "")).strip("\0 ")
    offset = _OFFSET.fullmatch(str(details.get(tags.OffsetTimeOriginal, "")).strip("\0 "))
    seconds = taken.replace(tzinfo=UTC).timestamp()
    seconds += float(f"0.{fraction}") if fraction.isascii() and fraction.isdecimal() else 0.0
    if offset is not None:
        sign, hours, minutes = offset.groups()
        seconds -= (int(hours) * 3600 + int(minutes) * 60) * (-1 if sign == "-" else 1)
    return seconds


def _attitude(text: str, xmp: Values) -> tuple[Attitude | None, HeadingSource | None]:
    """The camera's own attitude, where yaw and pitch are written; a roll that is not written is 0.

    Some drones, a DJI Mini 2 among them, write a gimbal yaw and pitch of exactly 0 in every photo. That would be a
    camera looking at the horizon, due north to a hundredth of a degree: it means "no reading".
    """
    skydio = read_structure(text, "drone-skydio:CameraOrientationNED")
    gimbals = [_angles(skydio, "drone-skydio:{}"), *(_angles(xmp, name) for name in _GIMBALS)]
    for yaw, pitch, roll in gimbals:
        if yaw is not None and pitch is not None and (yaw or pitch):
            return Attitude.of_angles(yaw, pitch, roll or 0.0), "gimbal"
    yaw, pitch, roll = _angles(xmp, "Camera:{}")
    if yaw is not None and pitch is not None:
        of_angles = Attitude.of_angles if pitch < -45 else Attitude.of_nadir_angles  # nobody films what lies behind
        return of_angles(yaw, pitch, roll or 0.0), "camera"
    return None, None


def _heading(xmp: Values, gps: dict[int, Any]) -> tuple[float | None, HeadingSource | None]:
    """A heading alone: the camera's or the aircraft's yaw, or that of an external camera or compass."""
    names: tuple[tuple[str, HeadingSource], ...] = (
        ("drone-parrot:CameraYawDegree", "gimbal"),
        ("drone-dji:FlightYawDegree", "flight"),
        ("drone:FlightYawDegree", "flight"),
        ("drone-parrot:DroneYawDegree", "flight"),
        ("Camera:Yaw", "camera"),
    )
    for name, source in names:
        if (yaw := number(xmp.get(name))) is not None:
            return yaw, source
    if (yaw := number(gps.get(ExifTags.GPS.GPSImgDirection))) is not None:
        return yaw, "compass"
    return None, None


def _angles(values: Values, name: str) -> tuple[float | None, float | None, float | None]:
    yaw, pitch, roll = (number(values.get(name.format(axis))) for axis in ("Yaw", "Pitch", "Roll"))
    return yaw, pitch, roll


def _height_m(xmp: Values) -> float | None:
    for name in _HEIGHTS:
        height = number(xmp.get(name))
        if height is not None and 0 < height <= MAX_ALTITUDE_M:
            return height
    return None


def _gps_altitude_m(gps: dict[int, Any]) -> float | None:
    """Metres above sea level; ``GPSAltitudeRef`` 1 means below (EXIF 2.32, section 4.6.6)."""
    altitude = number(gps.get(ExifTags.GPS.GPSAltitude))
    if altitude is None or abs(altitude) > MAX_ALTITUDE_M:
        return None
    return -altitude if gps.get(ExifTags.GPS.GPSAltitudeRef) in (1, b"\x01") else altitude


def _position(gps: dict[int, Any]) -> tuple[float, float] | None:
    lat = _degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef), "S")
    lon = _degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef), "W")
    if lat is None or lon is None or abs(lat) > 90 or abs(lon) > 180 or (lat, lon) == (0, 0):  # 0/0: no satellite fix
        return None
    return lat, lon


def _degrees(dms: Any, ref: Any, negative: str) -> float | None:
    if not isinstance(dms, tuple) or len(dms) != 3:
        return None
    degrees, minutes, seconds = map(number, dms)
    if degrees is None or minutes is None or seconds is None:
        return None
    value = degrees + minutes / 60 + seconds / 3600
    return -value if str(ref).upper().startswith(negative) else value
