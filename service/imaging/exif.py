"""What a photo's EXIF and XMP say about the camera: heading, height, field of view, position.

Drone makers write XMP attributes such as ``drone-dji:GimbalYawDegree="+44.20"``. They are found by name with a regular
expression: it reads both the attribute and the element form, in a time that grows no faster than the text.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from PIL import ExifTags, Image

HeadingSource = Literal["gimbal", "flight", "camera", "compass"]

# 35 mm film is 36 mm wide, and FocalLengthIn35mmFilm is read as if the photo's longer side spanned that width. CIPA
# defines the equivalent by the diagonal (43.3 mm); for 3:2 the two agree, for 4:3 this is 4 % wide of it, for 16:9 5 %.
FILM_WIDTH_MM = 36.0

MAX_ALTITUDE_M = 20_000.0  # the form's own limit; what metadata says beyond it is garbage

# Degrees from the stored image's top edge to the shown one's, clockwise, for the rotations in EXIF Orientation.
_SHOWN_TOP = {3: 180.0, 6: -90.0, 8: 90.0}


@dataclass(frozen=True)
class Pose:
    """What is known of the camera when the photo was taken; None where nothing is.

    Attributes:
        heading_deg: compass direction of the shown photo's top edge, in [0, 360), 0 = north.
        heading_source: which reading the heading comes from.
        altitude_m: height above the take-off point, the best guess at the height above ground.
        gps_altitude_m: height above sea level, which says nothing about the ground without the ground's own.
        hfov_deg: angle that the shown photo's width covers.
        position: ``(lat, lon)`` of the camera.
    """

    heading_deg: float | None = None
    heading_source: HeadingSource | None = None
    altitude_m: float | None = None
    gps_altitude_m: float | None = None
    hfov_deg: float | None = None
    position: tuple[float, float] | None = None


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
    xmp = _xmp(image)
    heading, source = _heading(xmp, gps)
    if heading is not None:
        heading = (heading + _SHOWN_TOP.get(orientation, 0.0)) % 360.0
    altitude = _number(xmp.get("RelativeAltitude"))
    return Pose(
        heading_deg=heading,
        heading_source=source,
        altitude_m=altitude if altitude is not None and 0 < altitude <= MAX_ALTITUDE_M else None,
        gps_altitude_m=_gps_altitude_m(gps),
        hfov_deg=_hfov_deg(details.get(ExifTags.Base.FocalLengthIn35mmFilm), *(size or image.size)),
        position=_position(gps),
    )


def _xmp(image: Image.Image) -> dict[str, str]:
    """Values by local name; the first of a name wins."""
    raw = image.info.get("xmp") or b""
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
    pairs = re.findall(r"""(?<=[\w-]):(\w+)(?:\s*=\s*["']([^"'<]{1,40})["']|>([^<]{1,40})<)""", text)
    return {name: attribute or element for name, attribute, element in reversed(pairs)}


def _heading(xmp: dict[str, str], gps: dict[int, Any]) -> tuple[float | None, HeadingSource | None]:
    """The camera's own yaw if it is known, else the aircraft's, else that of an external camera or compass.

    Some drones, a DJI Mini 2 among them, write a gimbal yaw and pitch of exactly 0 in every photo. That would be a
    camera looking at the horizon, due north to a hundredth of a degree: it means "no reading". A gimbal that has swung
    past straight down is written as rolled by 180° with its yaw reversed; the top edge then faces the other way.
    """
    yaw, pitch, roll = (_number(xmp.get(f"Gimbal{axis}Degree")) for axis in ("Yaw", "Pitch", "Roll"))
    if yaw is not None and (yaw or pitch):
        return yaw + (180.0 if roll is not None and 90 < abs(roll) < 270 else 0.0), "gimbal"
    if (yaw := _number(xmp.get("FlightYawDegree"))) is not None:
        return yaw, "flight"
    if (yaw := _number(xmp.get("Yaw"))) is not None:  # Pix4D's Camera:Yaw, written by Parrot and senseFly
        return yaw, "camera"
    if (yaw := _number(gps.get(ExifTags.GPS.GPSImgDirection))) is not None:
        return yaw, "compass"
    return None, None


def _gps_altitude_m(gps: dict[int, Any]) -> float | None:
    """Metres above sea level; ``GPSAltitudeRef`` 1 means below (EXIF 2.32, section 4.6.6)."""
    altitude = _number(gps.get(ExifTags.GPS.GPSAltitude))
    if altitude is None or abs(altitude) > MAX_ALTITUDE_M:
        return None
    return -altitude if gps.get(ExifTags.GPS.GPSAltitudeRef) in (1, b"\x01") else altitude


def _hfov_deg(focal_35mm: Any, width: int, height: int) -> float | None:
    """Pinhole camera: tan(hfov / 2) = half the width on film over the focal length."""
    focal = _number(focal_35mm)
    if focal is None or focal <= 0:
        return None
    film_width = FILM_WIDTH_MM * width / max(width, height)
    return math.degrees(2 * math.atan(film_width / (2 * focal)))


def _position(gps: dict[int, Any]) -> tuple[float, float] | None:
    lat = _degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef), "S")
    lon = _degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef), "W")
    if lat is None or lon is None or abs(lat) > 90 or abs(lon) > 180 or (lat, lon) == (0, 0):  # 0/0: no satellite fix
        return None
    return lat, lon


def _degrees(dms: Any, ref: Any, negative: str) -> float | None:
    if not isinstance(dms, tuple) or len(dms) != 3:
        return None
    degrees, minutes, seconds = map(_number, dms)
    if degrees is None or minutes is None or seconds is None:
        return None
    value = degrees + minutes / 60 + seconds / 3600
    return -value if str(ref).upper().startswith(negative) else value


def _number(value: Any) -> float | None:
    """A finite float, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None
