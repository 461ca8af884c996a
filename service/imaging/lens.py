"""The field of view that EXIF and XMP give away."""

import math
from typing import Any, Literal

from PIL import ExifTags

from service.imaging.xmp import Values, number, read_structure

LensSource = Literal["calibrated", "focal_plane", "film"]

FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)
"""FocalLengthIn35mmFilm is the focal length that gives the same *diagonal* angle on 35 mm film (CIPA DCG-001, 2005)."""

WIDE = 1.6
"""From this longer side over shorter side on, a photo is taken for a crop of a 4:3 sensor over its full width, as 16:9
photos of drones are: the equivalent focal length is that of the whole sensor."""

UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""These are the units of EXIF FocalPlaneResolutionUnit in millimetres (EXIF 2.32, section 4.6.5; 4 and 5 are
TIFF/EP's)."""

SENSOR_MM = (2.0, 60.0)
"""Real sensors are 2 to 60 mm wide; a focal-plane resolution that makes another width is that of a resized
copy."""

FOCAL_SIDES = (0.2, 30.0)
"""A drone's camera may have such focal lengths, in longer sides: 136° to 1.9°. What is outside is garbage."""


def read_lens(
    text: str, xmp: Values, details: dict[int, Any], size: tuple[int, int]
) -> tuple[float | None, LensSource | None]:
    """Return the shown photo's horizontal field of view in degrees, and where it is from; the most exact source counts.

    A digital zoom narrows all of them.

    Args:
        text: the XMP packet, for structures inside it.
        xmp: its plain values.
        details: EXIF's own directory.
        size: width and height as the photo is shown, pixels.
    """
    zoom = number(details.get(ExifTags.Base.DigitalZoomRatio))
    for source, focal in (
        ("calibrated", _calibrated(text, xmp, details, size)),
        ("focal_plane", _focal_plane(details, size)),
        ("film", _film(details, size)),
    ):
        if focal is None:
            continue
        focal *= max(1.0, zoom or 1.0)
        if FOCAL_SIDES[0] <= focal <= FOCAL_SIDES[1]:
            return math.degrees(2 * math.atan(size[0] / (2 * focal * max(size)))), source  # type: ignore[return-value]
    return None, None


def _calibrated(text: str, xmp: Values, details: dict[int, Any], size: tuple[int, int]) -> float | None:
    """Focal length in pixels that DJI and Skydio measured at the factory, in longer sides."""
    inside = read_structure(text, "drone-skydio:CalibratedFocalLength")
    pixels = number(inside.get("drone-skydio:X")) or number(xmp.get("drone-dji:CalibratedFocalLength"))
    return None if pixels is None else pixels / _stored_px(details, size)


def _focal_plane(details: dict[int, Any], size: tuple[int, int]) -> float | None:
    """Focal length over the sensor's longer side, which the resolution in the focal plane tells."""
    focal_mm, resolution = (
        number(details.get(tag)) for tag in (ExifTags.Base.FocalLength, ExifTags.Base.FocalPlaneXResolution)
    )
    unit_mm = UNIT_MM.get(details.get(ExifTags.Base.FocalPlaneResolutionUnit, 2))
    if not focal_mm or not resolution or unit_mm is None:
        return None
    sensor_mm = _stored_px(details, size) / resolution * unit_mm
    return focal_mm / sensor_mm if SENSOR_MM[0] <= sensor_mm <= SENSOR_MM[1] else None


def _film(details: dict[int, Any], size: tuple[int, int]) -> float | None:
    focal_mm = number(details.get(ExifTags.Base.FocalLengthIn35mmFilm))
    if focal_mm is None:
        return None
    long, short = max(size), min(size)
    sensor_short = 0.75 * long if long > WIDE * short else short
    return focal_mm * math.hypot(long, sensor_short) / (FILM_DIAGONAL_MM * long)


def _stored_px(details: dict[int, Any], size: tuple[int, int]) -> float:
    """Longer side of the picture as the camera wrote it; copies that were shrunk keep that number in EXIF."""
    sides = [number(details.get(tag)) for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)]
    return max([side for side in sides if side is not None], default=0.0) or max(size)
