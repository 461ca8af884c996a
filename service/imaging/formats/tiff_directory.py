"""TIFF's directories of tags, read and written (TIFF 6.0, section 2, and BigTIFF)."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.imaging.formats.header import check_count, ends_early

MAX_TAGS = 4096
"""A camera's directory has 20 to 60 tags."""

# Bytes of a value, by type (TIFF 6.0, section 2; BigTIFF has 16 to 18).
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_UNSIGNED = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True)
class Tag:
    """An entry of a directory.

    Attributes:
        number: what it is about.
        type: of its values.
        count: of them.
        at: where they lie in the file.
        entry: as it stands in its directory.
    """

    number: int
    type: int
    count: int
    at: int
    entry: bytes

    @property
    def size(self) -> int:
        """How many bytes its values take."""
        return _SIZES.get(self.type, 0) * self.count


class TiffFile:
    """A TIFF's directories.

    Args:
        data: the file.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = "<" if data.startswith(b"II") else ">"
        self.is_big = data[2:4] in (b"+\0", b"\0+")
        # of a directory: its count, an entry, an entry's values or their address
        self.count, self.entry, self.value = ("Q", "HHQ8s", "Q") if self.is_big else ("H", "HHI4s", "I")

    def unpack(self, format: str, at: int) -> int:
        """Return a number in the file; ValueError: beyond its end."""
        try:
            return int(struct.unpack_from(self.order + format, self.data, at)[0])
        except struct.error:
            raise ends_early("TIFF", len(self.data)) from None

    def first(self) -> int:
        """Tell where the first directory lies."""
        return self.unpack(self.value, 8 if self.is_big else 4)

    def tags(self, at: int) -> dict[int, Tag]:
        """Return the tags of a directory; the first of a number counts."""
        count, width = self.unpack(self.count, at), struct.calcsize(self.order + self.entry)
        check_count("TIFF", "tags in a directory", count, MAX_TAGS, "save it again")
        at += struct.calcsize(self.order + self.count)
        found: dict[int, Tag] = {}
        for start in range(at, at + count * width, width):
            entry = self.data[start : start + width]
            if len(entry) < width:
                raise ends_early("TIFF", len(self.data))
            number, type_, values, _ = struct.unpack(self.order + self.entry, entry)
            inline = start + width - struct.calcsize(self.value)
            fits = _SIZES.get(type_, 0) * values <= struct.calcsize(self.value)
            tag = Tag(number, type_, values, inline if fits else self.unpack(self.value, inline), entry)
            found.setdefault(number, tag)
        return found

    def bytes_of(self, tag: Tag | None, limit: int) -> bytes:
        """Return the first bytes of a tag's values."""
        return b"" if tag is None else self.data[tag.at : tag.at + min(tag.size, limit)]

    def numbers(self, tag: Tag | None) -> tuple[int, ...]:
        """Return the values of a tag whose count was checked; none of one that has no whole numbers."""
        if tag is None or tag.type not in _UNSIGNED:
            return ()
        if tag.at + tag.size > len(self.data):
            raise ends_early("TIFF", len(self.data))
        return struct.unpack_from(f"{self.order}{tag.count}{_UNSIGNED[tag.type]}", self.data, tag.at)

    def number(self, tag: Tag | None, default: int) -> int:
        """Return the first value of a tag."""
        if tag is None or tag.type not in _UNSIGNED or tag.count == 0:
            return default
        return self.unpack(_UNSIGNED[tag.type], tag.at)

    def start(self, first: int) -> bytes:
        """Return the beginning of a file whose first directory lies at ``first``."""
        middle = struct.pack(self.order + "HH", 8, 0) if self.is_big else b""
        return self.data[:4] + middle + struct.pack(self.order + self.value, first)

    def directory(self, entries: Iterable[bytes]) -> bytes:
        """Return a directory of these entries, the last of its file."""
        listed = sorted(entries, key=lambda entry: struct.unpack(self.order + "H", entry[:2]))
        return struct.pack(self.order + self.count, len(listed)) + b"".join([*listed, bytes(8 if self.is_big else 4)])


class TiffCopy:
    """A TIFF of chosen tags, in the byte order of the file that they are from, and never a BigTIFF.

    Args:
        file: where the tags are from.
        limit: bytes that their values may take; those that do not fit in are left out.
    """

    def __init__(self, file: TiffFile, limit: int) -> None:
        self._file, self._room = file, limit
        self._made = bytearray(8)

    def entries(self, tags: Iterable[Tag]) -> list[bytes]:
        """Copy the values of tags; their entries."""
        return [self._entry(tag) for tag in tags if self._takes(tag)]

    def link(self, number: int, entries: Sequence[bytes]) -> bytes:
        """Return the entry of a tag that leads to a directory of these entries."""
        return self._pack("HHII", number, 4, 1, self._directory(entries))

    def finish(self, entries: Sequence[bytes]) -> bytes:
        """Return the file, with a first directory of these entries."""
        start = (b"II*\0" if self._file.order == "<" else b"MM\0*") + self._pack("I", self._directory(entries))
        return start + bytes(self._made[len(start) :])

    def _takes(self, tag: Tag) -> bool:
        is_known = tag.type <= 13  # not one of BigTIFF
        return is_known and 0 < tag.size <= self._room and tag.at + tag.size <= len(self._file.data)

    def _entry(self, tag: Tag) -> bytes:
        self._room -= tag.size
        value = self._file.bytes_of(tag, tag.size)
        if len(value) > 4:
            at = len(self._made)
            self._made += value
            value = self._pack("I", at)
        return self._pack("HHI", tag.number, tag.type, tag.count) + value.ljust(4, b"\0")

    def _directory(self, entries: Sequence[bytes]) -> int:
        self._made += bytes(len(self._made) % 2)
        at = len(self._made)
        self._made += self._pack("H", len(entries)) + b"".join([*entries, bytes(4)])
        return at

    def _pack(self, format: str, *numbers: int) -> bytes:
        return struct.pack(self._file.order + format, *numbers)
