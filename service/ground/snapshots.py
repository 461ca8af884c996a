"""Copies of the gallery in a folder of the service: made, listed, handed out, removed."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG

from service.errors import Overloaded, SnapshotNotFound, SnapshotsFull, disk_error
from service.threads import Threads

SUFFIX = ".gallery"
NAME = re.compile(r"[\w-]+\.gallery", re.ASCII)
"""A name has no dots or slashes before its suffix, so it cannot lead out of the folder."""

RETRY_S = 5
"""It is worth asking again for a copy after so many seconds, for galleries of some gigabytes."""


@dataclass(frozen=True)
class Snapshot:
    """A copy: its name, size in bytes, and when it was made (UTC, ISO 8601)."""

    name: str
    bytes: int
    created_at: str


class Snapshots:
    """The copies in a folder.

    Args:
        folder: made with the first copy.
        write: writes a consistent, checked copy to a path, unless it is told to stop; see ``Gallery.snapshot``.
        limit: copies that are kept.
    """

    def __init__(self, folder: Path, write: Callable[[Path, Callable[[], bool]], None], limit: int) -> None:
        self._folder, self._write, self._limit = folder, write, limit
        self._thread = Threads("snapshot", 1)
        self._making: asyncio.Task[Snapshot] | None = None
        self._is_closed = False

    async def create(self, generation: int) -> Snapshot:
        """Make a copy, named by time and generation, in a thread of its own.

        Raises:
            Overloaded: another one is being made.
            SnapshotsFull: there are as many as may be.
            StorageFull: no space for it.
            GalleryUnusable: the gallery is damaged, or the folder cannot be written.
            NotReady: the service stopped before it was done.
        """
        if self._making is not None and not self._making.done():
            raise Overloaded("a snapshot is being made already; ask again in a few seconds.", retry_after_s=RETRY_S)
        self._making = asyncio.create_task(self._thread.run(self._create, generation), name="snapshot")
        self._making.add_done_callback(lambda made: made.cancelled() or made.exception())  # told to nobody else
        return await asyncio.shield(self._making)  # goes on when whoever asked for it leaves

    def newest(self) -> list[Snapshot]:
        """List all copies, newest first."""
        paths = sorted(self._folder.glob(f"*{SUFFIX}"), reverse=True)
        described = (_describe(path) for path in paths if NAME.fullmatch(path.name))
        return [each for each in described if each is not None]

    def find(self, name: str) -> tuple[Path, os.stat_result]:
        """Tell where a copy is, and its state.

        Raises:
            SnapshotNotFound: there is none of this name.
        """
        path = self._folder / name
        state = _state(path) if NAME.fullmatch(name) else None
        if state is None:
            raise SnapshotNotFound(f"there is no snapshot {name!r:.100}; GET /gallery/snapshots lists them.")
        return path, state

    def delete(self, name: str) -> None:
        """Remove a copy.

        Raises:
            SnapshotNotFound: there is none of this name.
            GalleryUnusable: it cannot be removed.
        """
        try:
            self.find(name)[0].unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, f"the snapshot {name} cannot be removed") from error

    def close(self) -> None:
        """Give up the copy that is being made."""
        self._is_closed = True
        self._thread.close()

    def _create(self, generation: int) -> Snapshot:
        self._make_room()
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        path = self._folder / f"{stamp}-g{generation}{SUFFIX}"
        self._write(path, lambda: self._is_closed)
        made = _describe(path)
        if made is None:
            raise SnapshotNotFound(f"the snapshot {path.name} was removed as soon as it was made; make another.")
        return made

    def _make_room(self) -> None:
        """Remove what a process left that was killed, and refuse one copy too many."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for leftover in self._folder.glob(f"*{SUFFIX}.part*"):
                leftover.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, "the snapshots folder cannot be written") from error
        kept = self.newest()
        if len(kept) >= self._limit:
            raise SnapshotsFull(
                f"{len(kept)} snapshots are kept already, the oldest is {kept[-1].name}. Remove one that is no longer "
                "needed (DELETE /gallery/snapshots/NAME), or raise AEROFIX_MAX_SNAPSHOTS.",
                limit=self._limit,
            )


def _describe(path: Path) -> Snapshot | None:
    """A copy, or None when it has been removed meanwhile."""
    state = _state(path)
    if state is None:
        return None
    created = datetime.fromtimestamp(state.st_mtime, UTC).isoformat(timespec="seconds")
    return Snapshot(path.name, state.st_size, created)


def _state(path: Path) -> os.stat_result | None:
    """The state of a file, or None when there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state if S_ISREG(state.st_mode) else None
