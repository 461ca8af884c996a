"""Zip files from strangers: looked through before anything is read, and never unpacked under names of their own."""

from __future__ import annotations

import errno
import io
import lzma
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from service.errors import ArchiveRefused, ImageUndecodable, disk_error
from service.maps.nameless import nameless_file

MAX_ENTRIES = 200_000
MAX_DIRECTORY_BYTES = 32 * 2**20
"""The list of entries is read whole: 200,000 of them with names of 100 characters."""

MAX_ENTRY_BYTES = MAX_DIRECTORY_BYTES
"""A tile's image is a few hundred kilobytes; a table of 200,000 rows is some 20 MB. Rasters may be larger: they are
copied to the disk before they are opened."""

MAX_UNPACKED_BYTES = 64 * 2**30
MAX_RATIO = 100
"""Images hardly shrink, a table by 10; deflate can reach 1,032."""

RATIO_MATTERS_BYTES = 2**20
"""Below, a high ratio harms nobody: an empty tile shrinks well."""

NESTED = re.compile(r".*\.(zip|7z|rar|tar|t?gz|t?bz2|t?xz|zst|jar|kmz)", re.IGNORECASE)
DRIVE = re.compile(r"[A-Za-z]:")
CLUTTER = re.compile(r"(__MACOSX/|.*/\.|\.).*")
"""Operating systems add such files to archives."""

_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError, struct.error, OSError)
"""Damaged entries lead ``zipfile`` to these errors."""


class _Bounded(io.FileIO):
    """A file that refuses to read more at once than a zip's list of entries, or one entry, may take."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise ArchiveRefused(
                f"the zip's list of entries takes {size} bytes; send several smaller zips.",
                limit=MAX_DIRECTORY_BYTES,
                actual=size,
            )
        return super().read(size)


class Archive:
    """An open zip whose entries are safe to read.

    Args:
        path: the file.

    Attributes:
        names: of its files, with ``/`` between folders, whatever system they are from.

    Raises:
        ArchiveRefused: damaged, encrypted, too large when unpacked, or with links, archives or paths out of it.
    """

    def __init__(self, path: Path) -> None:
        self._stack, self._beside = ExitStack(), path.parent
        raw = self._stack.enter_context(_Bounded(path))
        try:
            self._zip = self._stack.enter_context(zipfile.ZipFile(raw))
            self._entries = _checked(self._zip)
        except _DAMAGED as error:
            self.close()
            raise ArchiveRefused(f"the zip file is damaged ({error}); zip it again.") from error
        except BaseException:
            self.close()
            raise
        self.names = dict.fromkeys(sorted(self._entries))

    def read(self, name: str) -> bytes:
        """Return a whole file.

        Raises:
            ImageUndecodable: it is damaged; ``zipfile`` stops at the size that the list of entries announces, and
                compares the checksum.
            ArchiveRefused: it is larger than an image or a table may be.
        """
        entry = self._entries[name]
        _check_size(entry)
        try:
            return self._zip.read(entry)
        except _DAMAGED as error:
            raise ImageUndecodable(f"{name} in the zip is damaged ({error}); zip it again.") from error

    def start(self, name: str, size: int) -> bytes | None:
        """Return the first bytes of a file, None if there is none of this name."""
        if name not in self._entries:
            return None
        try:
            with self._zip.open(self._entries[name]) as file:
                return file.read(size)
        except _DAMAGED as error:
            raise ImageUndecodable(f"{name} in the zip is damaged ({error}); zip it again.") from error

    @contextmanager
    def on_disk(self, name: str) -> Iterator[str]:
        """Tell where GDAL finds a file: in a copy without a name, which no kill can leave behind.

        Raises:
            ArchiveRefused: it is damaged.
            StorageFull: there is no room for the copy.
        """
        with nameless_file(self._beside) as copy:
            try:
                with self._zip.open(self._entries[name]) as file:
                    shutil.copyfileobj(file, copy.file, 2**20)
                copy.file.flush()
            except _DAMAGED as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise disk_error(error, f"{name} cannot be unpacked", "the upload") from error
                raise ArchiveRefused(f"{name} in the zip is damaged ({error}); zip it again.") from error
            yield copy.path

    def close(self) -> None:
        """Close the file and its copies."""
        self._stack.close()


def _checked(archive: zipfile.ZipFile) -> dict[str, Any]:
    """Entries of the files in an archive that is safe to read, by their names."""
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise ArchiveRefused(
            f"the zip holds {len(entries)} entries; send several of at most {MAX_ENTRIES}.",
            limit=MAX_ENTRIES,
            actual=len(entries),
        )
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > MAX_UNPACKED_BYTES:
        raise ArchiveRefused(
            f"the zip unpacks to {unpacked} bytes; send several smaller ones.",
            limit=MAX_UNPACKED_BYTES,
            actual=unpacked,
        )
    found: dict[str, Any] = {}
    for entry in entries:
        name = entry.filename.replace("\\", "/")  # as Windows writes paths
        if problem := _problem(entry, name):
            raise ArchiveRefused(f"{entry.filename[:200]!r} in the zip {problem}.")
        if entry.is_dir() or name.endswith("/") or CLUTTER.fullmatch(name):
            continue
        if name in found:
            raise ArchiveRefused(f"{name[:200]!r} is in the zip twice; zip the folder again.")
        found[name] = entry
    return found


def _problem(entry: zipfile.ZipInfo, name: str) -> str | None:
    """Why an entry must not be read, if so."""
    mode = entry.external_attr >> 16
    if name.startswith("/") or DRIVE.match(name) or ".." in PurePosixPath(name).parts or not name.isprintable():
        return "leads out of it; zip the folder with plain names"
    if stat.S_ISLNK(mode):
        return "is a symbolic link; zip the files themselves"
    if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or not stat.S_IFMT(mode)):
        return "is not an ordinary file; leave it out"
    if NESTED.fullmatch(name):
        return "is an archive itself; unpack it first"
    if entry.flag_bits & 1:
        return "is encrypted; zip without a password"
    if entry.file_size > RATIO_MATTERS_BYTES and entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
        return f"unpacks to over {MAX_RATIO} times its size, as zip bombs do; store images without compression"
    return None


def _check_size(entry: zipfile.ZipInfo) -> None:
    if entry.file_size > MAX_ENTRY_BYTES:
        raise ArchiveRefused(
            f"{entry.filename[:200]!r} in the zip unpacks to {entry.file_size} bytes, over the limit of "
            f"{MAX_ENTRY_BYTES}; tiles are small images.",
            limit=MAX_ENTRY_BYTES,
            actual=entry.file_size,
        )
