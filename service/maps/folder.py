"""A folder on the disk, seen like an archive: names, bytes, and paths for GDAL."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from service.errors import ImageUndecodable, SourceUnreadable
from service.maps.archive import CLUTTER, MAX_ENTRY_BYTES

MAX_FILES = 2_000_000
"""A pyramid of 2 million tiles is a city at 8 cm; more is the root of a disk."""


class Files(Protocol):
    """Files of one source: a folder's or an archive's.

    Attributes:
        names: of the files, with ``/`` between folders, in order.
    """

    names: dict[str, None]

    def read(self, name: str) -> bytes:
        """Return a whole small file (an image, a table), or an error that names it."""

    def start(self, name: str, size: int) -> bytes | None:
        """Return the first bytes of a file, None if there is none of this name."""

    def on_disk(self, name: str) -> AbstractContextManager[str]:
        """Tell where GDAL finds a file, for as long as the context is open."""

    def close(self) -> None:
        """Close what is open."""


class Folder:
    """The files in a folder and below; links are not followed.

    Args:
        path: of the folder.
        recursive: with what is in the folders below.

    Raises:
        SourceUnreadable: there are too many.
    """

    def __init__(self, path: Path, recursive: bool = True) -> None:
        names: list[str] = []
        for folder, folders, files in os.walk(path):
            if not recursive:
                folders.clear()
            below = Path(folder).relative_to(path)
            names += [(below / file).as_posix() for file in files if not (Path(folder) / file).is_symlink()]
            if len(names) > MAX_FILES:
                raise SourceUnreadable(f"there are over {MAX_FILES} files in {path.name}; name the map's own folder.")
        self._path = path
        self.names = dict.fromkeys(sorted(name for name in names if not CLUTTER.fullmatch(name)))

    def read(self, name: str) -> bytes:
        """See ``Files.read``."""
        data = self.start(name, MAX_ENTRY_BYTES + 1)
        if data is None or len(data) > MAX_ENTRY_BYTES:
            raise ImageUndecodable(
                f"{name} is gone, or over the limit of {MAX_ENTRY_BYTES} bytes for an image or table."
            )
        return data

    def start(self, name: str, size: int) -> bytes | None:
        """See ``Files.start``."""
        if name not in self.names:
            return None
        try:
            with (self._path / name).open("rb") as file:
                return file.read(size)
        except OSError as error:
            raise ImageUndecodable(f"{name} cannot be read ({error.strerror}).") from error

    def on_disk(self, name: str) -> AbstractContextManager[str]:
        """See ``Files.on_disk``."""
        return nullcontext(str(self._path / name))

    def close(self) -> None:
        """Do nothing: nothing is open."""
