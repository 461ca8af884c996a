"""PNG files, chunk by chunk (W3C, PNG third edition)."""

import zlib

from service.imaging.formats.header import MAX_NOTE_BYTES, Header, check_count

MAX_CHUNKS = 100_000
"""Encoders write the pixels in chunks of 8 kB and more: 64 MB of them are 8,000."""

_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_TEXTS = (b"iTXt", b"tEXt", b"zTXt")
_EXIF = b"eXIf"
_XMP = b"XML:com.adobe.xmp\0"
_OLD_EXIF = b"Raw profile type exif\0"  # ImageMagick's, from before there was a chunk for it: hexadecimal digits


def read_png(data: bytes) -> Header:
    """Read what a PNG announces; EXIF may lie behind the pixels.

    Args:
        data: the file; what lies behind its end plays no role, nor do the further frames of an animation.

    Raises:
        ImageTooComplex: it has too many chunks.
        ValueError: it does not begin with a header.
    """
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise ValueError("it has no header")
    whole = memoryview(data)
    kept: list[bytes | memoryview] = []
    notes: dict[bytes, bytes] = {}
    at = start = 8  # those kept since ``start`` lie side by side
    for _ in range(MAX_CHUNKS):
        kind, end = data[at + 4 : at + 8], at + int.from_bytes(data[at : at + 4], "big") + 12
        if kind not in _PIXELS:
            if at > start:
                kept.append(whole[start:at])
            start = end
            _note(notes, kind, data[at + 8 : min(end - 4, at + 8 + MAX_NOTE_BYTES)])
        at = end
        if kind == b"IEND" or at >= len(data):
            break
    else:
        check_count("PNG", "chunks", MAX_CHUNKS + 1, MAX_CHUNKS, "save it again")
    exif = notes.get(_EXIF) or _old_exif(notes.get(_OLD_EXIF, b""))
    return Header(
        "PNG",
        width=int.from_bytes(data[16:20], "big"),
        height=int.from_bytes(data[20:24], "big"),
        pixels=[whole[:8], *kept, whole[start:at]],
        exif=b"Exif\0\0" + exif if exif and not exif.startswith(b"Exif\0\0") else exif,
        xmp=notes.get(_XMP, b""),
        channels=_CHANNELS.get(data[25], 4),
    )


def _note(notes: dict[bytes, bytes], kind: bytes, body: bytes) -> None:
    """Keep what is EXIF or XMP; the first of each counts, so that no more than that is unpacked."""
    if kind == b"eXIf":
        notes.setdefault(_EXIF, body)
    elif kind in _TEXTS:
        for keyword in (_XMP, _OLD_EXIF):
            if body.startswith(keyword) and keyword not in notes:
                notes[keyword] = _text(kind, body[len(keyword) :])


def _text(kind: bytes, text: bytes) -> bytes:
    """The text of a chunk, from behind its keyword on; empty where it is damaged."""
    is_packed = kind == b"zTXt"
    if kind == b"iTXt":  # two bytes that say whether it is packed, then a language and the keyword in it
        is_packed = text[:1] == b"\1"
        text = text[2:].split(b"\0", 2)[-1]
    elif is_packed:
        text = text[1:]
    try:
        return zlib.decompressobj().decompress(text, MAX_NOTE_BYTES) if is_packed else text
    except zlib.error:
        return b""


def _old_exif(text: bytes) -> bytes:
    """EXIF from hexadecimal digits, which three lines with a name and a length precede."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""
