"""What may be said of a photo, a map and a flight, and how it is written into a form."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from service.importing.options import Scheme
from service.localization.looks import Effort

Photo = str | os.PathLike[str] | bytes
"""A photo is the path of its file, or the file's bytes."""


class PhotoOptions(TypedDict, total=False):
    """Hints about a photo and wishes for its answer; what is left out, or None, takes the service's default.

    Attributes:
        prior: latitude, longitude and radius in metres; only tiles in this circle are searched.
        heading_deg: compass direction of the photo's top edge, 0 = north.
        altitude_m: height above the ground, metres.
        hfov_deg: horizontal field of view, degrees.
        pitch_deg: the camera's pitch; −90 looks straight down, 0 ahead.
        roll_deg: the camera's roll, clockwise seen from behind.
        ground_elevation_m: ground above sea level, metres; makes a GPS altitude in EXIF a height above ground.
        use_exif: fill what is left out from the photo's EXIF and XMP; default true.
        use_exif_position: take the EXIF position as the prior; default false.
        maps: names of the maps to search; default all.
        effort: looks while the answer is unsure.
        refine: answer a position between tile centres; default true.
        top_k: number of candidates to answer, 1 to 100; default 5.
        matches: answer which points of the photo lie where on the map; default false.
    """

    prior: tuple[float, float, float] | None
    heading_deg: float | None
    altitude_m: float | None
    hfov_deg: float | None
    pitch_deg: float | None
    roll_deg: float | None
    ground_elevation_m: float | None
    use_exif: bool | None
    use_exif_position: bool | None
    maps: Sequence[str] | None
    effort: Effort | None
    refine: bool | None
    top_k: int | None
    matches: bool | None


class ImportOptions(TypedDict, total=False):
    """How a map is imported; what is left out, or None, takes the service's default.

    Attributes:
        map: name of the map; default the file's name without its suffix.
        replace: take the place of the map of this name.
        extend: add to the map of this name.
        scheme: how the rows of z/x/y tiles are counted.
        tile_size_m: for experts, sides of the windows in metres.
        overlap: for experts, share of a window that its neighbour repeats.
        date: when its pictures were taken, ISO 8601; default as the file says.
    """

    map: str | None
    replace: bool | None
    extend: bool | None
    scheme: Scheme | None
    tile_size_m: Sequence[float] | None
    overlap: float | None
    date: str | None


class TrackOptions(TypedDict, total=False):
    """What is known of a flight; what is left out takes the service's default.

    Attributes:
        max_speed_m_s: over ground; no fix is fused that would need more.
        acceleration_m_s2: standard deviation along each axis.
        expiry_s: seconds without a photo until the track is forgotten.
    """

    max_speed_m_s: float | None
    acceleration_m_s2: float | None
    expiry_s: float | None


PRIOR = ("prior_lat", "prior_lon", "prior_radius_m")


def form_of(options: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """Write options as the fields of a form."""
    form: dict[str, str | list[str]] = {}
    for name, value in options.items():
        if value is None:
            continue
        if name == "prior":
            form |= {field: _word(part) for field, part in zip(PRIOR, value, strict=True)}
        elif isinstance(value, list | tuple):
            form[name] = [_word(each) for each in value]
        else:
            form[name] = _word(value)
    return form


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def name_of(photo: Photo) -> str:
    """Name a photo that is sent."""
    return "photo" if isinstance(photo, bytes) else Path(photo).name
