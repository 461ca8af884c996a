"""When a map's pictures were taken: as the user says, or else as the file does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date

from service.errors import InvalidParameter

_DAY = r"\d{4}(?:-\d{2}(?:-\d{2})?)?"
GIVEN = re.compile(rf"{_DAY}(?:/{_DAY})?", re.ASCII)
"""A user gives a year, a month or a day, or the first and the last of several (ISO 8601)."""

STATED = re.compile(r"(\d{4})[:-](\d{2})[:-](\d{2})(?:[T ].*)?", re.ASCII | re.DOTALL)
"""Files state ``2024:05:17 10:30:00``, as TIFF and EXIF have it, or ISO 8601."""

TAGS = ("ACQUISITIONDATETIME", "EXIF_DateTimeOriginal", "TIFFTAG_DATETIME")
"""GDAL calls the tags so that say it. The surest comes first: a satellite's, a camera's, and TIFF 6.0's, which programs
set to the day on which they wrote the file."""


def check_date(text: str) -> None:
    """Refuse what is no date.

    Raises:
        InvalidParameter: it is no year, month, day or pair of them, as ISO 8601 writes them.
    """
    days = text.split("/")
    if GIVEN.fullmatch(text) is None or None in map(_day, days) or days != sorted(days):
        raise InvalidParameter(
            f"the date {text!r:.60} is not one of ISO 8601; give a day (2024-05-17), a month (2024-05), a year (2024) "
            "or the first and the last of several days (2024-05-17/2024-05-19)."
        )


def date_of(tags: Mapping[str, str]) -> str | None:
    """Return the day that a raster's tags tell, ISO 8601; None when they tell none that there was."""
    for tag in TAGS:
        match = STATED.fullmatch(tags.get(tag, "").strip())
        if match is not None and (day := _day("-".join(match.groups()))) is not None:
            return day
    return None


def together(days: Iterable[str | None]) -> str | None:
    """Tell the day of a map of several rasters: the only one that they tell, or the first and last with a slash."""
    known = sorted({day for day in days if day is not None})
    return "/".join(dict.fromkeys((known[0], known[-1]))) if known else None


def _day(text: str) -> str | None:
    """The text, if there was such a day, month or year."""
    try:
        date.fromisoformat(text + "-01-01"[len(text) - 4 :] if len(text) < 10 else text)
    except ValueError:
        return None
    return text
