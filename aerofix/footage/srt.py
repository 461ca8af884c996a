"""What a drone writes beside its video: subtitle files (.SRT) with its pose, by DJI and Autel.

There is no documentation of these files, and the layouts differ by model. All known ones are in the table of
``tests/aerofix/footage/test_srt.py``; what is read here, and how it is understood, is our reconstruction from them:

* ``[latitude: 1] [longitude: 2]`` (older firmware writes ``longtitude``), or ``GPS(longitude, latitude, n)``, where n
  is a number of satellites. Latitude comes first where n ends in M, on a Matrice 300, and where the second number can
  be no latitude.
* Heights above the take-off point are ``rel_alt``, ``BAROMETER``, ``HB`` and ``H 85.80m``. ``altitude`` and ``abs_alt``
  are above the sea or the ellipsoid, which nobody says, and are left alone.
* ``gb_yaw``, ``Gimbal: Yaw`` and ``G.PRY (pitch, roll, yaw)`` are the camera's, against the world; pitch −90 is down.
* ``focal_len`` is the 35 mm equivalent: in tenths of a millimetre when it has no decimal point, else in millimetres
  with the digital zoom in it. In tenths and with a digital zoom it is not clear what it means, and not used.
"""

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from service.errors import SourceUnreadable

MAX_GAP_S = 2.0
"""A cue says nothing of frames that come later than so many seconds after its end; cues come once a second or more
often."""

_NUMBER = r"([-+]?\d+(?:\.\d+)?)"
_CLOCK = r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})"
_CUE = re.compile(rf"{_CLOCK}\s*-->\s*{_CLOCK}")
_TAG = re.compile(r"<[^<>]*>")
_DATE = re.compile(r"\b(\d{4})[-.](\d{1,2})[-.](\d{1,2})\s+(\d{1,2}):(\d\d):(\d\d)(?:[.,](\d{3}))?")
_LAT = re.compile(rf"\blatitude\s*:\s*{_NUMBER}")
_LON = re.compile(rf"\blongt?itude\s*:\s*{_NUMBER}")
_PAIR = re.compile(rf"\b(?:GPS|RTK)\s*\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}(M?)", re.I)
_LETTERS = re.compile(rf"\bGPS\s*\(\s*([EW])\s*:\s*{_NUMBER}\s*,\s*([NS])\s*:\s*{_NUMBER}")
_HEIGHTS = (
    re.compile(rf"\brel_alt\s*:\s*{_NUMBER}"),
    re.compile(rf"\bBAROMETER\s*[:(]\s*{_NUMBER}"),
    re.compile(rf"\bHB\s*:\s*{_NUMBER}"),
    re.compile(rf"\bH[ =]{_NUMBER}\s*m\b"),
)
_GIMBALS = (  # and which of the three are yaw, pitch and roll
    (re.compile(rf"\bgb_yaw\s*:\s*{_NUMBER}\s+gb_pitch\s*:\s*{_NUMBER}\s+gb_roll\s*:\s*{_NUMBER}"), (0, 1, 2)),
    (re.compile(rf"\bGimbal\s*:\s*Yaw:\s*{_NUMBER}\s*,\s*Pitch:\s*{_NUMBER}\s*,\s*Roll:\s*{_NUMBER}"), (0, 1, 2)),
    (re.compile(rf"\bG\.PRY\s*\(\s*{_NUMBER}[^\d,]*,\s*{_NUMBER}[^\d,]*,\s*{_NUMBER}"), (2, 0, 1)),
)
_FOCAL = re.compile(rf"\bfocal_len\s*:\s*{_NUMBER}")
_ZOOM = re.compile(rf"\bdzoom_ratio\s*:\s*{_NUMBER}")
UNZOOMED = 10_000.0
"""Layouts that count the digital zoom in ten-thousandths write 1 as this number."""


@dataclass(frozen=True)
class Telemetry:
    """What the drone wrote of one moment; None for what it did not.

    Attributes:
        start_s: beginning of the moment, seconds from the start of the video.
        end_s: its end.
        taken_at: date and time of the camera's clock, which has no time zone.
        position: ``(lat, lon)`` of the aircraft by its satellite receiver.
        height_m: height above the take-off point.
        attitude_deg: ``(yaw, pitch, roll)`` of the camera against the world; pitch −90 is straight down.
        focal_mm: focal length as a 35 mm equivalent.
    """

    start_s: float
    end_s: float
    taken_at: datetime | None = None
    position: tuple[float, float] | None = None
    height_m: float | None = None
    attitude_deg: tuple[float, float, float] | None = None
    focal_mm: float | None = None


def read_srt(path: str | Path) -> list[Telemetry]:
    """Read a subtitle file of a drone.

    Raises:
        SourceUnreadable: it cannot be read, or has no telemetry of a layout that is known.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise SourceUnreadable(f"{path} cannot be read: {error.strerror}.") from error
    moments = parse_srt(text)
    if not any(each.position or each.height_m or each.attitude_deg or each.focal_mm for each in moments):
        raise SourceUnreadable(
            f"{path} has no telemetry of a known layout; leave it out, and say what is known in options."
        )
    return moments


def parse_srt(text: str) -> list[Telemetry]:
    """Read the text of a subtitle file, in its order; what is in none of the known layouts is left out."""
    cues = list(_CUE.finditer(text))
    ends = [*(cue.start() for cue in cues[1:]), len(text)]
    return [_moment(cue, _TAG.sub(" ", text[cue.end() : end])) for cue, end in zip(cues, ends, strict=False)]


def moment_at(moments: Sequence[Telemetry], time_s: float) -> Telemetry | None:
    """Find what was written of a time of the video; None where there is a gap."""
    i = bisect.bisect_right(moments, time_s, key=lambda each: each.start_s) - 1
    return moments[i] if i >= 0 and time_s <= moments[i].end_s + MAX_GAP_S else None


def _moment(cue: re.Match[str], text: str) -> Telemetry:
    clock = [int(part) for part in cue.groups()]
    start_s, end_s = (
        hours * 3600 + minutes * 60 + seconds + thousandths / 1e3
        for hours, minutes, seconds, thousandths in (clock[:4], clock[4:])
    )
    return Telemetry(start_s, end_s, _date(text), _position(text), _height_m(text), _attitude(text), _focal_mm(text))


def _date(text: str) -> datetime | None:
    found = _DATE.search(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, thousandths = (int(part or 0) for part in found.groups())
    try:
        return datetime(year, month, day, hour, minute, second, thousandths * 1000)
    except ValueError:
        return None


def _position(text: str) -> tuple[float, float] | None:
    lat, lon = _LAT.search(text), _LON.search(text)
    if lat is not None and lon is not None:
        return _on_earth(float(lat[1]), float(lon[1]))
    if (pair := _PAIR.search(text)) is not None:
        first, second = float(pair[1]), float(pair[2])
        return _on_earth(first, second) if pair[4] or abs(second) > 90 else _on_earth(second, first)
    if (named := _LETTERS.search(text)) is not None:
        signs = [-1 if letter in "WS" else 1 for letter in (named[1], named[3])]
        return _on_earth(signs[1] * float(named[4]), signs[0] * float(named[2]))
    return None


def _on_earth(lat: float, lon: float) -> tuple[float, float] | None:
    """None before the receiver has found itself, which is written as 0, 0."""
    return (lat, lon) if abs(lat) <= 90 and abs(lon) <= 180 and (lat, lon) != (0, 0) else None


def _height_m(text: str) -> float | None:
    return next((float(found[1]) for pattern in _HEIGHTS if (found := pattern.search(text)) is not None), None)


def _attitude(text: str) -> tuple[float, float, float] | None:
    for pattern, order in _GIMBALS:
        if (found := pattern.search(text)) is not None:
            angles = [float(angle) for angle in found.groups()]
            return angles[order[0]], angles[order[1]], angles[order[2]]
    return None


def _focal_mm(text: str) -> float | None:
    found, zoom = _FOCAL.search(text), _ZOOM.search(text)
    if found is None or float(found[1]) <= 0:
        return None
    if "." in found[1]:
        return float(found[1])
    return float(found[1]) / 10 if zoom is None or float(zoom[1]) == UNZOOMED else None
