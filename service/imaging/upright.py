"""Bytes of a file whose header was checked → RGB, upright and no larger than needed.

This is what the processes that decode load, so it imports nothing but Pillow.
"""

import io
import math
import mmap
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from service.errors import AerofixError, ImageUndecodable, OutOfMemory
from service.imaging.formats.header import Kind, ends_early
from service.imaging.pixels import to_rgb

# Pillow's own check has one limit for the process and a warning below it; ours is a setting and names the numbers.
Image.MAX_IMAGE_PIXELS = None

MAX_DECODED_PIXELS = 8_000_000
"""Larger pictures are shrunk, whatever is useful of them: what is decoded outlives the decoding, in the process that
all requests share. 3,300 x 2,400 are eight pixels for each that a model looks at, along a side."""

# From EXIF orientation to the turn that makes the stored image upright (EXIF 2.32, table 6).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Decoding:
    """What is to be decoded.

    Attributes:
        kind: of the file.
        width, height: that it announces, as it is stored.
        orientation: EXIF's, 1 to 8.
        factor: by how much both sides may be divided.
        needs_bytes: memory that this takes at its peak.
    """

    kind: Kind
    width: int
    height: int
    orientation: int
    factor: int
    needs_bytes: int


def factor_for(width: int, height: int, useful_side_px: int | None) -> int:
    """Return the whole number by which both sides of a picture are divided.

    Args:
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        useful_side_px: both sides keep this many pixels, if fewer than ``MAX_DECODED_PIXELS`` are left; None: all.
    """
    useful = 1 if useful_side_px is None else max(1, min(width, height) // useful_side_px)
    return max(useful, math.ceil(math.sqrt(width * height / MAX_DECODED_PIXELS)))


def upright(data: bytes, job: Decoding) -> Image.Image:
    """Decode a picture.

    Args:
        data: the file, without metadata.
        job: what its header says, and what is wanted of it.

    Returns:
        RGB. A JPEG is shrunk by 2, 4 or 8 while it is decoded, and what is left of the factor right after it.

    Raises:
        ImageTruncated: the data ends early.
        ImageUndecodable: the data is damaged or of an unsupported kind.
        OutOfMemory: it cannot have the memory that it needs.
    """
    made: Image.Image | AerofixError
    try:
        made = _upright(data, job)
    except Exception as error:  # Pillow's plugins raise whatever damaged files lead them to
        made = problem_with(data, job.kind, error, job.needs_bytes)
    if not isinstance(made, Image.Image):
        raise made  # only here: Pillow's error holds its frames, and they the pixels, for as long as ours lives
    return made


def _upright(data: bytes, job: Decoding) -> Image.Image:
    """JPEGs with previews behind them, as DJI drones write, are among Pillow's JPEGs."""
    image = Image.open(io.BytesIO(data), formats=[job.kind])
    if image.size != (job.width, job.height):
        raise ValueError("it is of two sizes")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined brightness")
    factor = job.factor
    if job.kind == "JPEG" and factor > 1:
        shrunk = max(scale for scale in (1, 2, 4, 8) if scale <= factor)
        image.draft("RGB", (job.width // shrunk, job.height // shrunk))
        factor = factor // shrunk
    image.load()
    rgb = to_rgb(image, factor)
    return rgb.transpose(_TURNS[job.orientation]) if job.orientation in _TURNS else rgb


def problem_with(data: bytes, kind: Kind, error: Exception, needs_bytes: int = 0) -> AerofixError:
    """Explain an error that reading a file has led to.

    Args:
        data: the file.
        kind: of the file.
        error: is told as it is if it is ours, and by its words if they are about the file.
        needs_bytes: memory that decoding takes.
    """
    if isinstance(error, AerofixError):
        return error
    if isinstance(error, MemoryError) or "memory" in str(error) or not _can_have(needs_bytes):
        return out_of_memory(needs_bytes)
    if "truncated" in str(error).lower() or _ends_early(data, kind):
        return ends_early(kind, len(data))
    told = isinstance(error, OSError | SyntaxError | ValueError) and not isinstance(error, UnidentifiedImageError)
    reason = str(error) if told and str(error) else "it is damaged"  # others name the innards of a decoder
    return ImageUndecodable(f"the {kind} file cannot be decoded ({reason}); save it again as 8-bit RGB.")


def out_of_memory(needs_bytes: int) -> OutOfMemory:
    """Return the error of a picture that does not fit into memory."""
    return OutOfMemory(
        f"decoding this image takes up to {needs_bytes / 1e6:.0f} MB of memory, more than there is now; send a smaller "
        "one or a JPEG that is not progressive, or give the service more memory.",
        needs_bytes=needs_bytes,
    )


def _can_have(needs_bytes: int) -> bool:
    """Whether there is so much memory: libraries tell an allocation that failed as damage of the file."""
    try:
        mmap.mmap(-1, max(1, needs_bytes)).close()
    except (OSError, MemoryError):
        return False
    return True


def _ends_early(data: bytes, kind: Kind) -> bool:
    """Whether a file lacks its format's end."""
    if kind == "JPEG":
        return b"\xff\xd9" not in data
    return kind == "PNG" and b"IEND" not in data[-64:]
