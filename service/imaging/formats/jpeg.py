"""JPEG files, marker by marker (ITU-T T.81, annex B)."""

import re

from service.imaging.formats.header import MAX_NOTE_BYTES, Header, check_count

MAX_SEGMENTS = 4096
"""Segments may hold 64 kB each: the thermal image in a drone's JPEG takes some dozens of them."""

MAX_TABLES = 256
"""There may be so many segments that are no metadata: a frame, four quantization and eight Huffman tables, and those
that scans change."""

MAX_SCANS = 100
"""Editors write about ten scans of a progressive JPEG, optimizers some dozens; libtiff has this limit, too."""

# A marker with its code, but for the restarts and the zeros that belong to pixels. The bytes before it are skipped, as
# libjpeg does. Looked for in windows, for the interpreter is held while one is searched.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_WINDOW = 2**18

_START, _END, _SCAN, _COMMENT = 0xD8, 0xD9, 0xDA, 0xFE
_JFIF, _APP1, _ADOBE = 0xE0, 0xE1, 0xEE  # the first and the last say how colours are stored
_METADATA = (*range(0xE0, 0xF0), _COMMENT)
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


def read_jpeg(data: bytes) -> Header:
    """Read what a JPEG announces.

    Args:
        data: the file; what lies behind the first image, such as previews, plays no role.

    Raises:
        ImageTooComplex: it has too many segments or scans.
        ValueError: it has no image.
    """
    whole = memoryview(data)
    kept: list[bytes | memoryview] = [whole[:2]]
    notes: dict[bytes, bytes] = {}
    frame, is_progressive, at, tables = b"", False, 2, 0
    for _ in range(MAX_SEGMENTS):
        at, marker = _next_marker(data, at)
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _SCAN:
            break
        if marker in (_END, _START) or end > len(data):
            raise ValueError("it has no image")
        if marker == _APP1:
            _note(notes, data[at + 4 : end])
        if marker not in _METADATA or marker in (_JFIF, _ADOBE):
            tables += marker not in _METADATA
            check_count("JPEG", "tables", tables, MAX_TABLES, "save it again")
            kept.append(whole[at:end])
        if marker in _FRAMES:
            frame, is_progressive = data[at + 4 : end], marker in _PROGRESSIVE
        at = end
    else:
        check_count("JPEG", "segments", MAX_SEGMENTS + 1, MAX_SEGMENTS, "save it without metadata")
    if len(frame) < 6:
        raise ValueError("its frame is missing")
    channels = frame[5]
    in_rows = not is_progressive and data[at + 4 : at + 5] == bytes([channels])  # all channels are in the first scan
    return Header(
        "JPEG",
        width=int.from_bytes(frame[3:5], "big"),
        height=int.from_bytes(frame[1:3], "big"),
        pixels=[*kept, whole[at:]],
        exif=notes.get(_EXIF, b""),
        xmp=notes.get(_XMP, b""),
        channels=channels,
        scans=1 if in_rows else _count_scans(data, end),
        in_rows=in_rows,
    )


def _next_marker(data: bytes, at: int) -> tuple[int, int]:
    """Where the next marker is, and its code."""
    for start in range(at, len(data), _WINDOW):
        if found := _MARKER.search(data, start, start + _WINDOW + 1):  # a marker may lie across the border
            return found.start(), data[found.start() + 1]
    return len(data), _END


def _note(notes: dict[bytes, bytes], segment: bytes) -> None:
    """Keep what is EXIF or XMP. EXIF may go on in further segments; of several XMPs the first counts."""
    if segment.startswith(_EXIF):
        if (room := MAX_NOTE_BYTES - len(so_far := notes.get(_EXIF, _EXIF))) > 0:
            notes[_EXIF] = so_far + segment[len(_EXIF) :][:room]
    elif segment.startswith(_XMP):
        notes.setdefault(_XMP, segment[len(_XMP) :])


def _count_scans(data: bytes, at: int) -> int:
    """The scans of the first image, the first of which begins its pixels at ``at``."""
    scans = 1
    for _ in range(MAX_SEGMENTS):
        at, marker = _next_marker(data, at)
        if marker == _END:
            return scans
        scans += marker == _SCAN
        check_count("JPEG", "scans", scans, MAX_SCANS, "save it again, not progressive")
        at += 2 + (0 if marker in (0x01, _START) else int.from_bytes(data[at + 2 : at + 4], "big"))
    check_count("JPEG", "segments", MAX_SEGMENTS + 1, MAX_SEGMENTS, "save it again, not progressive")
    return scans
