"""What tells one source from another: its files' names and sizes, and bytes from all over them."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

from service.errors import SourceUnreadable
from service.maps.collection import RASTER_NAME
from service.maps.folder import Folder

SAMPLES = 64
"""A source is read at so many places: one that is exported anew differs at most of them, even at the same size."""

SAMPLE_BYTES = 65_536
"""So much is read at each place; sources of up to 4 MiB are read whole."""

TABLES = {".csv", ".kml"}
"""Sources that end like this only name pictures beside them."""


def fingerprint(source: Path, but: Path) -> str:
    """Return a source's fingerprint, the same on every machine that has a copy of it.

    A large source is not read whole: what is changed in place, in an uncompressed file and without changing its size,
    is noticed only where it meets a sample.

    Args:
        source: a file or a folder.
        but: a folder whose files do not count: what is made of the source may lie in it.

    Raises:
        SourceUnreadable: the files cannot be read.
    """
    try:
        files = {name: path for name, path in _files(source).items() if but not in path.parents}
        sizes = [path.stat().st_size for path in files.values()]
        hashed = hashlib.sha256(repr(list(zip(files, sizes, strict=True))).encode())
        for path, start, length in _samples(list(files.values()), sizes):
            with path.open("rb") as file:
                file.seek(start)
                hashed.update(file.read(length))
    except OSError as error:
        raise SourceUnreadable(f"{source} cannot be read ({error.strerror}); check the path.") from error
    return hashed.hexdigest()


def _files(source: Path) -> dict[str, Path]:
    """The files of a source by their names; the name of a single file does not count."""
    if source.is_dir():
        return {name: source / name for name in Folder(source).names}
    if source.suffix.lower() in TABLES:
        names = [name for name in Folder(source.parent).names if name == source.name or RASTER_NAME.fullmatch(name)]
        return {name: source.parent / name for name in names}
    return {"": source}


def _samples(files: list[Path], sizes: list[int]) -> list[tuple[Path, int, int]]:
    """Files, where to read in them, and how much: places at equal distances when all files lie one after another."""
    ends = list(accumulate(sizes))
    total = ends[-1] if ends else 0
    count = min(SAMPLES, -(-total // SAMPLE_BYTES))
    step = (total - SAMPLE_BYTES) / max(count - 1, 1)
    found = []
    for start in [max(0, round(n * step)) for n in range(count)]:
        at, left = start, SAMPLE_BYTES
        number = bisect_right(ends, at)
        while left and number < len(files):
            inside = at - (ends[number] - sizes[number])
            length = min(left, sizes[number] - inside)
            found.append((files[number], inside, length))
            at, left, number = at + length, left - length, number + 1
    return found
