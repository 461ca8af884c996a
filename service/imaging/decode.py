"""Bytes → RGB, under limits that are checked before any pixel is decoded."""

import io
from dataclasses import dataclass
from typing import Literal

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from service.errors import ImageTooManyPixels, ImageTruncated, ImageUndecodable, UnsupportedMediaType
from service.imaging.exif import Pose, read_pose
from service.imaging.headers import decoded_in_rows, without_pixels
from service.imaging.pixels import to_rgb

# Pillow's own check has one limit for the process and a warning below it; ours is a setting and names the numbers.
Image.MAX_IMAGE_PIXELS = None

MIN_SIDE_PX = 16  # smaller images show nothing that tells one place from another
WEBP_SHARE = 0.5  # of the pixels that others may have: it takes the most memory for each, see below
# Bytes for each pixel while a file is decoded, at the most. Pillow has 4 for a pixel in colour, and again for what it
# converts at full size; a WebP is in libwebp twice, and once between the two; of a TIFF there may be one strip of
# everything, and a copy that Pillow turns.
_BYTES = {"JPEG": 8, "PNG": 8, "WEBP": 16, "TIFF": 12}
_COEFFICIENT_BYTES = 2  # libjpeg's, of each pixel and channel, where it cannot go row by row
_SIGNATURES = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}
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
class Photo:
    """A decoded photo.

    Attributes:
        image: RGB, turned upright by its EXIF orientation; may be smaller than the original.
        width: of the upright original, in pixels.
        height: of the upright original, in pixels.
        pose: what EXIF and XMP say about the camera.
    """

    image: Image.Image
    width: int
    height: int
    pose: Pose


@dataclass(frozen=True)
class PhotoFile:
    """A photo of which the header is read; it holds the file, no pixels.

    Attributes:
        width, height: upright, in pixels.
        pose: what EXIF and XMP say about the camera.
    """

    width: int
    height: int
    pose: Pose
    _data: bytes
    _kind: str
    _orientation: int
    _channels: int

    def needs_bytes(self, useful_side_px: int | None = None) -> int:
        """Memory that ``decode`` takes at its peak, in bytes; turning a picture of full size takes a quarter more."""
        pixels = self.width * self.height
        if self._kind != "JPEG":
            return _BYTES[self._kind] * pixels
        waiting = 0 if decoded_in_rows(self._data, self._channels) else _COEFFICIENT_BYTES * self._channels
        scale = max(s for s in (1, 2, 4, 8) if s == 1 or s <= self._factor(useful_side_px))
        return pixels * waiting + pixels * _BYTES["JPEG"] // scale**2

    def decode(self, useful_side_px: int | None = None) -> Photo:
        """Decode it.

        Args:
            useful_side_px: the image may be shrunk as long as both sides keep this many pixels: a JPEG by 2, 4 or 8
                while it is decoded, others by any whole number right after it; None leaves the size.

        Raises:
            ImageTruncated: the data ends early.
            ImageUndecodable: the data is damaged or of an unsupported kind.
        """
        upright: Image.Image | ImageTruncated | ImageUndecodable
        try:
            upright = self._upright(useful_side_px)
        except Exception as error:  # see open_photo
            upright = _damaged(self._data, self._kind, error)
        if not isinstance(upright, Image.Image):
            raise upright  # only here: Pillow's error holds its frames, and they the pixels, for as long as ours lives
        return Photo(upright, self.width, self.height, self.pose)

    def _upright(self, useful_side_px: int | None) -> Image.Image:
        image = _open(self._data, self._kind)
        if image.mode == "F":
            raise ValueError("floating-point pixels have no defined brightness")
        if useful_side_px is not None:
            image.draft("RGB", (useful_side_px, useful_side_px))
        image.load()
        rgb = to_rgb(image, 1 if self._kind == "JPEG" else self._factor(useful_side_px))
        return rgb.transpose(_TURNS[self._orientation]) if self._orientation in _TURNS else rgb

    def _factor(self, useful_side_px: int | None) -> int:
        """By how much the sides may be divided."""
        return 1 if useful_side_px is None else max(1, min(self.width, self.height) // useful_side_px)


def open_photo(data: bytes, max_pixels: int) -> PhotoFile:
    """Read an image file's header.

    Args:
        data: the file's bytes; its name plays no role.
        max_pixels: more than these in the header are refused, of a WebP more than half of them.

    Raises:
        UnsupportedMediaType: not JPEG, PNG, WebP or TIFF.
        ImageTooManyPixels: the header announces more than that.
        ImageTruncated: the data ends early.
        ImageUndecodable: the data is damaged, or the image smaller than 16 pixels a side.
    """
    kind = _kind(data)
    try:
        image = _open(data, kind)
        notes = _open(without_pixels(data), kind) if kind == "PNG" else image
    except Exception as error:  # Pillow's plugins raise whatever damaged headers lead them to
        raise _damaged(data, kind, error) from error
    _check_size(image.size, max_pixels, kind)
    stored = _orientation(notes)
    orientation = 1 if kind == "TIFF" else stored  # Pillow turns TIFFs itself, and gives the size that they will have
    width, height = image.size if orientation < 5 else image.size[::-1]  # from 5 on, a quarter turn
    pose = read_pose(notes, stored, (width, height))
    return PhotoFile(width, height, pose, data, kind, orientation, len(image.getbands()))


def decode(data: bytes, max_pixels: int, useful_side_px: int | None = None) -> Photo:
    """Read and decode an image file; see ``open_photo`` and ``PhotoFile.decode``."""
    return open_photo(data, max_pixels).decode(useful_side_px)


def _kind(data: bytes) -> str:
    for kind, signatures in _SIGNATURES.items():
        if data.startswith(signatures):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    raise UnsupportedMediaType("the file is not a JPEG, PNG, WebP or TIFF image; convert it to one of these.")


def _open(data: bytes, kind: str) -> ImageFile.ImageFile:
    """Read the header. JPEGs with previews behind them, as DJI drones write, are among Pillow's JPEGs."""
    return Image.open(io.BytesIO(data), formats=[kind])


def _check_size(size: tuple[int, int], max_pixels: int, kind: str) -> None:
    width, height = size
    is_webp = kind == "WEBP"
    limit = int(max_pixels * WEBP_SHARE) if is_webp else max_pixels
    if width * height > limit:
        raise ImageTooManyPixels(
            f"the image is {width}x{height} pixels; shrink it below {limit} pixels or raise AEROFIX_MAX_IMAGE_PIXELS"
            f"{', of which a WebP may have half; or save it as JPEG.' if is_webp else '.'}",
            limit=limit,
            actual=width * height,
        )
    if min(size) < MIN_SIDE_PX:
        raise ImageUndecodable(
            f"the image is {width}x{height} pixels; send one of at least {MIN_SIDE_PX} pixels a side.",
            limit=MIN_SIDE_PX,
            actual=min(size),
        )


def _damaged(data: bytes, kind: str, error: Exception) -> ImageTruncated | ImageUndecodable:
    """Tell a file that ends early from one that is damaged: the first is worth sending again."""
    if "truncated" in str(error).lower() or _ends_early(data, kind):
        return ImageTruncated(f"the {kind} file ends before its image does; send the whole file.", actual=len(data))
    told = isinstance(error, OSError | SyntaxError | ValueError) and not isinstance(error, UnidentifiedImageError)
    reason = str(error) if told and str(error) else "it is damaged"  # others name the innards of a decoder
    return ImageUndecodable(f"the {kind} file cannot be decoded ({reason}); save it again as 8-bit RGB.")


def _ends_early(data: bytes, kind: str) -> bool:
    """Whether a file lacks its format's end, or points beyond it."""
    if kind == "JPEG":
        return b"\xff\xd9" not in data
    if kind == "PNG":
        return b"IEND" not in data[-64:]
    if kind == "WEBP":
        return len(data) < int.from_bytes(data[4:8], "little") + 8
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    return len(data) < int.from_bytes(data[4:8], order) + 2  # a TIFF starts with the offset of its directory


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1–8; 1 when there is none or it cannot be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # metadata is a hint, see pose
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
