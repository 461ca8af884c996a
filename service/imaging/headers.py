"""What Pillow does not tell of a file before its pixels are decoded: where a PNG's EXIF lies, how a JPEG is coded."""

_PNG_HEADER, _PNG_END = b"IHDR", b"\0\0\0\0IEND\xaeB`\x82"
_PNG_NOTES = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")

_START_OF_SCAN = 0xDA
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_WITHOUT_LENGTH = frozenset((*range(0xC0), *range(0xD0, 0xDA), 0xFF))  # reserved, restarts, start and end, padding


def without_pixels(png: bytes) -> bytes:
    """A PNG's header and metadata as a file: Pillow finds EXIF behind the pixels only when it has decoded them.

    Args:
        png: the file; where it is damaged or ends early, so does the result.
    """
    kept, at = [png[:8]], 8
    while (kind := png[at + 4 : at + 8]) not in (b"", b"IEND"):
        end = at + int.from_bytes(png[at : at + 4], "big") + 12  # length, kind and checksum
        if kind == _PNG_HEADER or kind in _PNG_NOTES:
            kept.append(png[at:end])
        at = end
    return b"".join([*kept, _PNG_END])


def decoded_in_rows(jpeg: bytes, channels: int) -> bool:
    """Whether libjpeg decodes a file row by row; of others it holds all coefficients (``jdmaster.c``).

    It does where the first scan has all channels and the file is not progressive, as cameras write them.

    Args:
        jpeg: the file; False where its markers cannot be followed.
        channels: as its header says.
    """
    at = 2
    while at + 4 < len(jpeg) and jpeg[at] == 0xFF and (marker := jpeg[at + 1]) not in _WITHOUT_LENGTH:
        if marker == _START_OF_SCAN:
            return jpeg[at + 4] == channels
        if marker in _PROGRESSIVE:
            return False
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return False
