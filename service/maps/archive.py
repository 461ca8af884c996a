"""Zip files from strangers: looked through before anything is unpacked, and never unpacked to the disk."""

from __future__ import annotations

import io
import re
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from service.errors import ArchiveRefused, ImageUndecodable
from service.maps.file_tiles import FileTiles, from_csv, from_zxy

MAX_ENTRIES = 200_000
MAX_DIRECTORY_BYTES = 32 * 2**20
"""The list of entries is read whole: 200,000 of them with names of 100 characters."""

MAX_ENTRY_BYTES = MAX_DIRECTORY_BYTES
"""A tile's image is a few hundred kilobytes; a table of 200,000 rows is some 20 MB."""

MAX_UNPACKED_BYTES = 64 * 2**30
MAX_RATIO = 100
"""Images hardly shrink, a table by 10; deflate can reach 1,032."""

RATIO_MATTERS_BYTES = 2**20
"""Below, a high ratio harms nobody: an empty tile shrinks well."""

NESTED = re.compile(r".*\.(zip|7z|rar|tar|t?gz|t?bz2|t?xz|zst|jar|kmz)", re.IGNORECASE)
DRIVE = re.compile(r"[A-Za-z]:")
CLUTTER = re.compile(r"(__MACOSX/|.*/\.|\.).*")
"""What operating systems add to archives."""


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


def open_zip(path: Path, prefix: str) -> FileTiles:
    """Open a zip of ``z/x/y`` tiles, or of images with one CSV of their corners.

    Args:
        path: the file.
        prefix: start of the tile ids.

    Raises:
        ArchiveRefused: damaged, encrypted, too large when unpacked, or with links, archives or paths out of it.
        SourceUnreadable: neither of the two kinds; see ``from_zxy`` and ``from_csv``.
    """
    raw = _Bounded(path)
    try:
        archive = zipfile.ZipFile(raw)
        names = _check(archive)

        def close() -> None:
            archive.close()
            raw.close()

        def read(name: str) -> bytes:
            return _read(archive, name)

        tables = [name for name in names if name.lower().endswith(".csv")]
        if len(tables) > 1:
            raise ArchiveRefused(f"the zip holds {len(tables)} CSV files ({', '.join(tables)[:200]}); keep one.")
        if not tables:
            return from_zxy(names, read, prefix, close)
        folder = PurePosixPath(tables[0]).parent
        below = {name: _relative(name, folder) for name in names}
        by_short = {short: name for name, short in below.items()}
        return from_csv(_read(archive, tables[0]), tables[0], by_short, lambda n: read(by_short[n]), prefix, close)
    except (zipfile.BadZipFile, EOFError, UnicodeError, NotImplementedError, ValueError, OSError) as error:
        raw.close()
        raise ArchiveRefused(f"the zip file is damaged ({error}); zip it again.") from error
    except BaseException:
        raw.close()
        raise


def _check(archive: zipfile.ZipFile) -> list[str]:
    """Names of the files in an archive that is safe to read."""
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
    files = [entry for entry in entries if not entry.is_dir() and not CLUTTER.fullmatch(entry.filename)]
    for entry in entries:
        if problem := _problem(entry):
            raise ArchiveRefused(f"{entry.filename[:200]!r} in the zip {problem}.")
    return [entry.filename for entry in files]


def _problem(entry: zipfile.ZipInfo) -> str | None:
    """Why an entry must not be read, if so."""
    name, mode = entry.filename, entry.external_attr >> 16
    if name.startswith("/") or "\\" in name or DRIVE.match(name) or ".." in PurePosixPath(name).parts:
        return "leads out of it; zip the folder with plain names"
    if stat.S_ISLNK(mode):
        return "is a symbolic link; zip the files themselves"
    if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or not stat.S_IFMT(mode)):
        return "is not an ordinary file; leave it out"
    if NESTED.fullmatch(name):
        return "is an archive itself; unpack it first"
    if entry.flag_bits & 1:
        return "is encrypted; zip without a password"
    if entry.file_size > MAX_ENTRY_BYTES:
        return f"unpacks to {entry.file_size} bytes, over the limit of {MAX_ENTRY_BYTES}; tiles are small images"
    if entry.file_size > RATIO_MATTERS_BYTES and entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
        return f"unpacks to over {MAX_RATIO} times its size, as zip bombs do; store images without compression"
    return None


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    """One entry; ``zipfile`` stops at the size that the list of entries announces, and compares the checksum."""
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ImageUndecodable(f"{name} in the zip is damaged ({error}); zip it again.") from error


def _relative(name: str, folder: PurePosixPath) -> str:
    path = PurePosixPath(name)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else name
