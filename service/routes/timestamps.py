"""When a photo was taken, as clients say it."""

import math
from datetime import UTC, datetime

from service.errors import InvalidParameter

LATEST_S = 1e11
"""The year 5138; a double still tells microseconds apart there."""


def parse_timestamp(text: str) -> float:
    """Return seconds from a number of seconds on any clock, or from an ISO 8601 date and time.

    Args:
        text: such as ``12.5`` or ``2025-06-14T10:12:00.5Z``; a time without offset is UTC.

    Returns:
        Seconds; for a date, since 1970 (UTC).

    Raises:
        InvalidParameter: it is neither.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = _from_iso(text)
    if not abs(seconds) <= LATEST_S:  # also refuses NaN
        raise InvalidParameter(f"timestamp must be seconds within ±{LATEST_S:.0e}, or an ISO 8601 time.")
    return seconds


def _from_iso(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
