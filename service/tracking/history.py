"""What was believed of a flight after each of its photos, and what later ones tell of those that were not sure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from service.encoder.calibration import ACCURACY_PROBABILITY
from service.localization.confidence import Status, radius_m

MAX_HISTORY = 1000
"""The last so many entries of a track are kept: a quarter of an hour at one a second, 300 kB."""

HINDSIGHT = 32
"""A photo may tell of so many before it what these left open: a minute at one in two seconds."""

Use = Literal["fused", "gated", "lost"]
Reference = Literal["camera", "ground point at image centre"]


@dataclass(frozen=True, slots=True)
class Passed:
    """Where a flight was at a photo, if the hypothesis is right that passed there.

    Attributes:
        timestamp_s: of the photo.
        lat, lon: degrees.
        sigma_m: standard deviation along the long axis.
        reference: the point that ``lat`` and ``lon`` are of.
        height_m: of the camera above the ground, if known.
        east_m_s, north_m_s: velocity.
    """

    timestamp_s: float
    lat: float
    lon: float
    sigma_m: float
    reference: Reference
    height_m: float | None
    east_m_s: float
    north_m_s: float


@dataclass(frozen=True, slots=True)
class Entry:
    """A flight at a photo.

    Attributes:
        timestamp_s: of the photo.
        use: what became of it, see ``Track.update``.
        status: of the photo alone, see ``Verdict``.
        confidence: probability that this is right.
        passed: where the flight was; None where nothing was known.
        hindsight: whether it took later photos to tell.
    """

    timestamp_s: float
    use: Use
    status: Status
    confidence: float
    passed: Passed | None = None
    hindsight: bool = False

    @property
    def accuracy_m(self) -> float | None:
        """Radius that holds the truth with 68 % probability; None where no radius does."""
        return None if self.passed is None else sure_radius_m(self.passed.sigma_m, self.confidence)


def sure_radius_m(sigma_m: float, confidence: float) -> float | None:
    """Return the 68 % radius of a place that is right with ``confidence``; None when none round it holds so much."""
    return radius_m(sigma_m, confidence) if confidence > ACCURACY_PROBABILITY else None


def look_back(history: deque[Entry], path: Sequence[Passed], confidence: float) -> None:
    """Enter where the flight was at photos that did not tell, now that it is known which way it came.

    Args:
        history: is changed.
        path: of the likeliest hypothesis, a place for each photo since it began, at most ``HINDSIGHT``.
        confidence: that this hypothesis is right.
    """
    if confidence <= ACCURACY_PROBABILITY:
        return
    for i, passed in zip(range(len(history) - 1, -1, -1), reversed(path), strict=False):
        entry = history[i]
        if entry.accuracy_m is None and entry.timestamp_s == passed.timestamp_s:
            history[i] = Entry(entry.timestamp_s, entry.use, entry.status, confidence, passed, hindsight=True)
