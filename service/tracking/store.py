"""The open tracks of this process: a bounded number, in memory, each forgotten when no photo comes for a while.

A track belongs to the key that opened it; for any other it is not there.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from service.errors import Overloaded, TrackNotFound
from service.tracking.track import Options, Track

MAX_WAITING = 8
"""So many photos of one track may wait for the one before; a client that sends more does not wait for its answers."""


@dataclass(eq=False)
class OpenTrack:
    """A track with its name, its turn and the moment when it was last asked for."""

    id: str
    owner: str
    track: Track
    used_at_s: float
    busy: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class TrackStore:
    """Keeps tracks; belongs to one event loop.

    Args:
        max_tracks: open at once.
        max_per_owner: of them, those of one owner.
        clock: seconds that never go back.
    """

    def __init__(self, max_tracks: int, max_per_owner: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_tracks, self._max_per_owner = max_tracks, max_per_owner
        self._clock = clock
        self._tracks: dict[str, OpenTrack] = {}

    def open(self, options: Options, owner: str = "") -> OpenTrack:
        """Begin a track.

        Args:
            options: what is known of the aircraft.
            owner: whose it is; empty where nobody needs a key, and then all may share what there is.

        Raises:
            Overloaded: as many as may be are open; ``retry_after_s`` is when the first of them expires.
        """
        self._forget_expired()
        self._check_room(list(self._tracks.values()), self._max_tracks, "AEROFIX_MAX_TRACKS")
        if owner:
            self._check_room(self.of(owner), self._max_per_owner, "AEROFIX_MAX_TRACKS_PER_KEY")
        # 96 random bits: whoever guesses one of a million open tracks would need 10^22 tries
        opened = OpenTrack(secrets.token_urlsafe(12), owner, Track(options), self._clock())
        self._tracks[opened.id] = opened
        return opened

    def of(self, owner: str) -> list[OpenTrack]:
        """List the open tracks of an owner, in the order in which they were opened."""
        return [each for each in self._tracks.values() if each.owner == owner and not self._is_over(each)]

    def get(self, track_id: str, owner: str = "") -> OpenTrack:
        """Return the open track of this id, without prolonging it.

        Raises:
            TrackNotFound: there is none, or it is somebody else's; it may have expired.
        """
        opened = self._tracks.get(track_id)
        if opened is None or opened.owner != owner or self._is_over(opened):
            raise TrackNotFound(
                "There is no open track of this id: it expired, was deleted, is of another key, or the service was "
                "started anew. Open one with POST /tracks."
            )
        return opened

    def delete(self, track_id: str, owner: str = "") -> None:
        """Forget a track; a photo that is being localized on it still gets its answer.

        Raises:
            TrackNotFound: see :meth:`get`.
        """
        del self._tracks[self.get(track_id, owner).id]

    @asynccontextmanager
    async def turn(self, track_id: str, owner: str = "") -> AsyncIterator[Track]:
        """Wait for the photos before on the same track, and prolong its life.

        Raises:
            TrackNotFound: see :meth:`get`.
            Overloaded: too many photos of this track wait already.
        """
        opened = self.get(track_id, owner)
        if opened.busy > MAX_WAITING:
            raise Overloaded(
                "Photos of this track come faster than they are localized; wait for an answer before the next photo.",
                limit=MAX_WAITING,
                retry_after_s=1,
            )
        opened.busy += 1
        try:
            async with opened.lock:
                yield opened.track
        finally:
            opened.busy -= 1
            opened.used_at_s = self._clock()

    def expires_in_s(self, opened: OpenTrack) -> float:
        """Return seconds until a track is forgotten, if no photo comes."""
        return opened.used_at_s + opened.track.options.expiry_s - self._clock()

    def __len__(self) -> int:
        return len(self._tracks)

    def _check_room(self, tracks: list[OpenTrack], limit: int, setting: str) -> None:
        if len(tracks) < limit:
            return
        raise Overloaded(
            f"{len(tracks)} tracks are open; DELETE those that have ended, wait for one to expire, or raise {setting}.",
            limit=limit,
            actual=len(tracks),
            retry_after_s=max(1, round(min(map(self.expires_in_s, tracks)))),
        )

    def _is_over(self, opened: OpenTrack) -> bool:
        """A track with a photo under way does not expire."""
        return not opened.busy and self.expires_in_s(opened) <= 0

    def _forget_expired(self) -> None:
        for track_id in [each.id for each in self._tracks.values() if self._is_over(each)]:
            del self._tracks[track_id]
