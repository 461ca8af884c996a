"""SQLite's journal beside a gallery file: it undoes a write that a crash cut off, and must be applied to no other file.

SQLite finds a journal by its name alone, and would apply it to whatever file bears the gallery's name by then. So each
file carries a stamp, in the upper bits of its header's user version (the lowest eight are the schema's): it starts anew
with every opening and is counted up as the first thing in every write. The first page in a journal is then the file's
first page as it was, and its stamp is the file's own, or the one before. An opening, a write too, changes nothing but
the stamp and SQLite's own counters. All offsets are from SQLite's file format,
https://www.sqlite.org/fileformat2.html, sections 1.3 and 3.
"""

from __future__ import annotations

import logging
import secrets
import struct
from pathlib import Path

log = logging.getLogger(__name__)

STAMPS = 2**23
"""A user version is a signed 32-bit number, and a schema takes eight bits of it."""

FOREIGN_SUFFIX = ".foreign"

_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_USER_VERSION = slice(60, 64)
_COUNTERS = (slice(24, 28), slice(92, 100))
"""Where a header's counters of changes lie, and the version of SQLite that made the last."""

_HEADER_BYTES = 100
_MAX_BYTES = 65_536
"""A sector has no more, and neither has a page."""


def new_stamp() -> int:
    """Return a stamp that no copy of the file has: one in eight million."""
    return 1 + secrets.randbelow(STAMPS - 1)


def with_stamp(version: int, stamp: int) -> int:
    """Return a user version."""
    return stamp % STAMPS << 8 | version


def schema_and_stamp(user_version: int) -> tuple[int, int]:
    """Tell what :func:`with_stamp` joined."""
    return user_version & 0xFF, user_version >> 8


def journal_of(path: Path) -> Path:
    """Tell where SQLite keeps the journal of a file."""
    return path.with_name(path.name + "-journal")


def set_foreign_aside(path: Path) -> None:
    """Give a journal another name that does not belong to the file at ``path``, so that SQLite does not find it.

    So too a write-ahead log: galleries have none. Both would be of a file that was here before.

    Raises:
        OSError: it cannot be read or renamed.
    """
    journal, log_ahead = journal_of(path), path.with_name(path.name + "-wal")
    for leftover, is_own in ((journal, _is_own), (log_ahead, _is_empty)):
        if leftover.is_file() and not is_own(path, leftover):
            aside = leftover.with_name(leftover.name + FOREIGN_SUFFIX)
            leftover.replace(aside)
            log.warning("%s is of another file than %s; it is now called %s", leftover.name, path.name, aside.name)


def _is_own(path: Path, journal: Path) -> bool:
    """Whether a journal belongs to a file, or SQLite ignores it anyway."""
    start = _first_bytes(journal, 2 * _MAX_BYTES + 4)
    if len(start) < 28 or not start.startswith(_JOURNAL_MAGIC):
        return True
    pages, sector_bytes, page_bytes = struct.unpack(">III", start[16:28])
    number, page = start[sector_bytes : sector_bytes + 4], start[sector_bytes + 4 : sector_bytes + 4 + page_bytes]
    header = _first_bytes(path, _HEADER_BYTES)
    if pages == 0:  # of the write that made the file, which had no stamp before it was opened
        return _stamp(header) == 0
    if len(page) < _HEADER_BYTES:  # nothing of the file was changed yet; applied, the journal only cuts it to its size
        return len(header) == _HEADER_BYTES and path.stat().st_size == pages * page_bytes
    if int.from_bytes(number, "big") != 1:
        return False
    is_alone = journal.stat().st_size == sector_bytes + 4 + page_bytes + 4 and path.stat().st_size == pages * page_bytes
    if is_alone and _but_for_counters(page) == _but_for_counters(_first_bytes(path, page_bytes)):
        return True
    return (_stamp(header) - _stamp(page)) % STAMPS in (0, 1)


def _but_for_counters(page: bytes) -> bytes:
    """A file's first page without what an opening changes."""
    plain = bytearray(page)
    for changed in (_USER_VERSION, *_COUNTERS):
        plain[changed] = bytes(changed.stop - changed.start)
    return bytes(plain)


def _is_empty(_: Path, log_ahead: Path) -> bool:
    return log_ahead.stat().st_size == 0


def _first_bytes(path: Path, count: int) -> bytes:
    """The start of a file, nothing of one that is not there."""
    if not path.exists():
        return b""
    with path.open("rb") as file:
        return file.read(count)


def _stamp(header: bytes) -> int:
    """The stamp in the start of a gallery's first page, 0 where there is none."""
    return schema_and_stamp(int.from_bytes(header[_USER_VERSION], "big"))[1]
