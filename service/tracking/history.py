"""What was believed of a flight after each of its photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.localization.confidence import Status

MAX_HISTORY = 1000
"""The last so many entries of a track are kept: a quarter of an hour at one a second, 300 kB."""

Use = Literal["fused", "gated", "lost"]
Reference = Literal["camera", "ground point at image centre"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A flight after a photo.

    Attributes:
        timestamp_s: of the photo.
        use: what became of it, see ``Track.update``.
        status: of the photo alone, see ``Verdict``.
        confidence: probability that the track is right.
        lat, lon: where it was, degrees; None where nothing was known.
        accuracy_m: radius that holds the truth with 68 % probability; None where no radius does.
        reference: the point that ``lat`` and ``lon`` are of.
        height_m: of the camera above the ground, if known.
        east_m_s, north_m_s: velocity; None where nothing was known.
    """

    timestamp_s: float
    use: Use
    status: Status
    confidence: float
    lat: float | None = None
    lon: float | None = None
    accuracy_m: float | None = None
    reference: Reference | None = None
    height_m: float | None = None
    east_m_s: float | None = None
    north_m_s: float | None = None
