"""Copies of the gallery in a folder of the service: made, listed, handed out, removed."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from service.errors import SnapshotNotFound, disk_error

SUFFIX = ".gallery"
NAME = re.compile(r"[\w-]+\.gallery", re.ASCII)
"""No dots or slashes before the suffix: a name cannot lead out of the folder."""


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
        write: writes a consistent, checked copy to a path; see ``Gallery.snapshot``.
    """

    def __init__(self, folder: Path, write: Callable[[Path], None]) -> None:
        self._folder, self._write = folder, write
        self._lock = threading.Lock()  # one at a time: two would only be slower

    def create(self, generation: int) -> Snapshot:
        """Make a copy, named by time and generation.

        Raises:
            StorageFull: no space for it.
            GalleryUnusable: the gallery is damaged, or the folder cannot be written.
        """
        with self._lock:
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
            path = self._folder / f"{stamp}-g{generation}{SUFFIX}"
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                for leftover in self._folder.glob(f"*{SUFFIX}.part"):  # of a process that was killed
                    leftover.unlink()
            except OSError as error:
                raise disk_error(error, "the snapshots folder cannot be written") from error
            self._write(path)
        return _describe(path)

    def newest(self) -> list[Snapshot]:
        """All copies, newest first."""
        paths = sorted(self._folder.glob(f"*{SUFFIX}"), reverse=True)
        return [_describe(path) for path in paths if NAME.fullmatch(path.name)]

    def path(self, name: str) -> Path:
        """Where a copy is.

        Raises:
            SnapshotNotFound: there is none of this name.
        """
        path = self._folder / name if NAME.fullmatch(name) else None
        if path is None or not path.is_file():
            raise SnapshotNotFound(f"there is no snapshot {name!r:.100}; GET /gallery/snapshots lists them.")
        return path

    def delete(self, name: str) -> None:
        """Remove a copy.

        Raises:
            SnapshotNotFound: there is none of this name.
        """
        self.path(name).unlink(missing_ok=True)


def _describe(path: Path) -> Snapshot:
    state = path.stat()
    created = datetime.fromtimestamp(state.st_mtime, UTC).isoformat(timespec="seconds")
    return Snapshot(path.name, state.st_size, created)
