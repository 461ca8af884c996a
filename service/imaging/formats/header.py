"""What is read of an image file before it is decoded, and how much of it may be there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from service.errors import ImageTooComplex, ImageTruncated

Kind = Literal["JPEG", "PNG", "WEBP", "TIFF"]

MAX_NOTE_BYTES = 256 * 1024
"""So much is read of XMP and of EXIF; a drone's XMP takes 2 to 8 kB, its EXIF at most 64 kB."""


@dataclass(frozen=True)
class Header:
    """An image file of which nothing is decoded.

    Attributes:
        kind: of the file.
        width, height: of the image as it is stored, in pixels.
        pixels: pieces of the file that make one without metadata when they are joined.
        exif: as Pillow takes it, its first ``MAX_NOTE_BYTES``.
        xmp: its first ``MAX_NOTE_BYTES``.
        channels: of a pixel.
        scans: of a JPEG; each goes over the whole image.
        in_rows: whether it is decoded row by row; of other JPEGs libjpeg holds all coefficients (``jdmaster.c``).
    """

    kind: Kind
    width: int
    height: int
    pixels: Sequence[bytes | memoryview]
    exif: bytes = b""
    xmp: bytes = b""
    channels: int = 3
    scans: int = 1
    in_rows: bool = True


def check_count(kind: Kind, what: str, actual: int, limit: int, fix: str) -> None:
    """Refuse a file of more parts than a picture needs.

    Args:
        kind: of the file.
        what: is counted.
        actual: how many there are, as far as they were counted.
        limit: how many there may be.
        fix: what to do about it, as a clause.

    Raises:
        ImageTooComplex: there are more.
    """
    if actual > limit:
        raise ImageTooComplex(
            f"the {kind} file has more than {limit} {what}, which no camera writes; {fix}.", limit=limit, actual=actual
        )


def ends_early(kind: Kind, actual: int) -> ImageTruncated:
    """Return the error of a file that lacks its end.

    Args:
        kind: of the file.
        actual: its length in bytes.
    """
    return ImageTruncated(f"the {kind} file ends before its image does; send the whole file.", actual=actual)
