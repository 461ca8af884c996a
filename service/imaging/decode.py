"""Bytes → RGB, under limits that are checked before any pixel is decoded."""

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from service.errors import ImageTooManyPixels, ImageTruncated, ImageUndecodable, UnsupportedMediaType
from service.imaging.pose import Pose, read_pose

# Pillow's own check has one limit for the process and a warning below it; ours is a setting and names the numbers.
Image.MAX_IMAGE_PIXELS = None

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "MPO")  # MPO: a JPEG with previews behind it, which DJI drones write
MIN_SIDE_PX = 16  # smaller images show nothing that tells one place from another
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
_BACKGROUND = (128, 128, 128)  # under transparent pixels: mid-grey, as far from every ground as can be


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
    """A photo of which the header is read; the pixels, but for a PNG's, are not decoded yet.

    Attributes:
        width, height: upright, in pixels.
        pose: what EXIF and XMP say about the camera.
    """

    width: int
    height: int
    pose: Pose
    _image: ImageFile.ImageFile
    _orientation: int
    _data: bytes
    _kind: str

    def decode(self, useful_side_px: int | None = None) -> Photo:
        """Decode it, once.

        Args:
            useful_side_px: a JPEG may be decoded at 1/2, 1/4 or 1/8 as long as both sides keep this many pixels; None
                decodes at full size.

        Raises:
            ImageTruncated: the data ends early.
            ImageUndecodable: the data is damaged or of an unsupported kind.
        """
        try:
            if useful_side_px is not None:
                self._image.draft("RGB", (useful_side_px, useful_side_px))
            self._image.load()
            upright = _to_rgb(self._image)
            if self._orientation in _TURNS:
                upright = upright.transpose(_TURNS[self._orientation])
        except Exception as error:  # see open_photo
            raise _damaged(self._data, self._kind, error) from error
        return Photo(upright, self.width, self.height, self.pose)


def open_photo(data: bytes, max_pixels: int) -> PhotoFile:
    """Read an image file's header.

    Args:
        data: the file's bytes; its name plays no role.
        max_pixels: more than these in the header are refused.

    Raises:
        UnsupportedMediaType: not JPEG, PNG, WebP or TIFF.
        ImageTooManyPixels: the header announces more than ``max_pixels``.
        ImageTruncated: the data ends early.
        ImageUndecodable: the data is damaged, or the image smaller than 16 pixels a side.
    """
    kind = _kind(data)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # Pillow's plugins raise whatever damaged headers lead them to
        raise _damaged(data, kind, error) from error
    _check_size(image.size, max_pixels)
    try:
        if kind == "PNG":
            image.load()  # Pillow finds EXIF behind the pixels, and a second load says nothing of it
        stored = _orientation(image)
    except Exception as error:  # see above
        raise _damaged(data, kind, error) from error
    orientation = 1 if kind == "TIFF" else stored  # Pillow turns TIFFs itself, and gives the size that they will have
    width, height = image.size if orientation < 5 else image.size[::-1]  # from 5 on, a quarter turn
    return PhotoFile(width, height, read_pose(image, stored, (width, height)), image, orientation, data, kind)


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


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageTooManyPixels(
            f"the image is {width}x{height} pixels; shrink it below {max_pixels} pixels or raise "
            "AEROFIX_MAX_IMAGE_PIXELS.",
            limit=max_pixels,
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
    reason = "its header is damaged" if isinstance(error, UnidentifiedImageError) else str(error)
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


def _to_rgb(image: ImageFile.ImageFile) -> Image.Image:
    """Reduce any Pillow mode to 8-bit RGB; transparency becomes grey, 16-bit values keep their high byte."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined brightness")
    if image.mode.startswith("I"):  # "I;16" and its byte orders, or "I" holding 16-bit values
        high_byte = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return Image.fromarray(high_byte).convert("RGB")
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        background = Image.new("RGBA", shown.size, (*_BACKGROUND, 255))
        return Image.alpha_composite(background, shown).convert("RGB")
    return image.convert("RGB")
