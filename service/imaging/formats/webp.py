"""WebP files, chunk by chunk (RFC 9649)."""

from service.imaging.formats.header import MAX_NOTE_BYTES, Header, check_count, ends_early

MAX_CHUNKS = 4096
"""A picture has two or three, an animation one for each frame."""

_PIXELS = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
_NOTES = 0x20 | 0x08 | 0x04  # flags of the extended header: colour profile, EXIF and XMP follow


def read_webp(data: bytes) -> Header:
    """Read what a WebP announces; of an animation the first frame counts.

    Args:
        data: the file.

    Raises:
        ImageTooComplex: it has too many chunks.
        ImageTruncated: it is shorter than it says.
        ValueError: it has no image.
    """
    length = int.from_bytes(data[4:8], "little") + 8
    if len(data) < length:
        raise ends_early("WEBP", len(data))
    whole, at = memoryview(data), 12
    kept: list[bytes | memoryview] = []
    found: dict[bytes, bytes] = {}
    for _ in range(MAX_CHUNKS):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size + size % 2
        if kind == b"VP8X" and kind not in found:
            kept.append(data[at : at + 8] + bytes([data[at + 8] & ~_NOTES]) + data[at + 9 : end])
        elif kind in _PIXELS and kind not in found:
            kept.append(whole[at:end])
        found.setdefault(kind, data[at + 8 : min(at + 8 + size, at + 8 + MAX_NOTE_BYTES)])
        at = end
        if at + 8 > length:
            break
    else:
        check_count("WEBP", "chunks", MAX_CHUNKS + 1, MAX_CHUNKS, "save it again")
    width, height = _size(found)
    pixels = sum(map(len, kept)) + 4
    exif = found.get(b"EXIF", b"")
    return Header(
        "WEBP",
        width=width,
        height=height,
        pixels=[b"RIFF" + pixels.to_bytes(4, "little") + b"WEBP", *kept],
        exif=exif if not exif or exif.startswith(b"Exif\0\0") else b"Exif\0\0" + exif,
        xmp=found.get(b"XMP ", b""),
        channels=4,
    )


def _size(found: dict[bytes, bytes]) -> tuple[int, int]:
    """Width and height in pixels, by what the file begins with: the canvas, or the only image."""
    if len(head := found.get(b"VP8X", b"")) >= 10:
        return int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1
    if len(head := found.get(b"VP8L", b"")) >= 5:
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if len(head := found.get(b"VP8 ", b"")) >= 10:
        return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF
    raise ValueError("it has no image")
