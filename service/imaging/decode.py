"""Bytes → what a photo is, under limits that are checked before any pixel is decoded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import ExifTags, Image

from service.errors import ImageTooManyPixels, ImageUndecodable
from service.imaging.exif import Pose, read_pose
from service.imaging.formats.header import Header, Kind
from service.imaging.formats.jpeg import read_jpeg
from service.imaging.formats.png import read_png
from service.imaging.formats.tiff import read_tiff
from service.imaging.formats.webp import read_webp
from service.imaging.signatures import kind_of
from service.imaging.upright import Decoding, factor_for, problem_with, upright

MIN_SIDE_PX = 16  # smaller images show nothing that tells one place from another
MAX_SIDE_PX = 65_500
"""No side may be longer: libjpeg, which writes the pictures of tiles that are kept, has this limit."""

WEBP_SHARE = 0.5  # of the pixels that others may have: it takes the most memory for each, see below

MANY_SCANS = 20
"""A JPEG of more scans than editors write takes as long as a large picture, and waits where those do."""

# Bytes for each pixel while a file is decoded, at the most. Pillow has 4 for a pixel in colour, and again for what it
# converts at full size; a WebP is in libwebp twice, and once between the two; of a TIFF there may be one strip of
# everything.
_BYTES = {"JPEG": 8, "PNG": 8, "WEBP": 16, "TIFF": 12}
_COEFFICIENT_BYTES = 2  # libjpeg's, of each pixel and channel, where it cannot go row by row
_READERS: dict[Kind, Callable[[bytes], Header]] = {
    "JPEG": read_jpeg,
    "PNG": read_png,
    "WEBP": read_webp,
    "TIFF": read_tiff,
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
        orientation: EXIF's, 1 to 8.
        header: of the file.
    """

    width: int
    height: int
    pose: Pose
    orientation: int
    header: Header

    @property
    def pieces(self) -> Sequence[bytes | memoryview]:
        """The file without its metadata, in pieces."""
        return self.header.pixels

    @property
    def is_slow(self) -> bool:
        """Whether decoding takes long for the size of the picture."""
        return self.header.scans > MANY_SCANS

    def job(self, useful_side_px: int | None = None) -> Decoding:
        """Return what decoding it takes; see ``decode``."""
        header, factor = self.header, factor_for(self.width, self.height, useful_side_px)
        return Decoding(header.kind, header.width, header.height, self.orientation, factor, self._needs_bytes(factor))

    def _needs_bytes(self, factor: int) -> int:
        """Memory that decoding takes at its peak, in bytes; turning a picture of full size takes a quarter more."""
        pixels, header = self.width * self.height, self.header
        if header.kind != "JPEG":
            return _BYTES[header.kind] * pixels
        waiting = 0 if header.in_rows else _COEFFICIENT_BYTES * header.channels
        scale = max(s for s in (1, 2, 4, 8) if s <= factor)
        return pixels * waiting + pixels * _BYTES["JPEG"] // scale**2

    def decode(self, useful_side_px: int | None = None) -> Photo:
        """Decode it in this process, which is for files that are trusted; others go through ``Decoders``.

        Args:
            useful_side_px: the image may be shrunk by any whole number as long as both sides keep this many pixels;
                None leaves the size, up to ``upright.MAX_DECODED_PIXELS``.

        Raises:
            ImageTruncated: the data ends early.
            ImageUndecodable: the data is damaged or of an unsupported kind.
            OutOfMemory: it does not fit into memory.
        """
        return self.photo(upright(b"".join(self.pieces), self.job(useful_side_px)))

    def photo(self, image: Image.Image) -> Photo:
        """Return the photo of which this is the decoded image."""
        return Photo(image, self.width, self.height, self.pose)


def open_photo(data: bytes, max_pixels: int) -> PhotoFile:
    """Read an image file's header and metadata, in a time that its length bounds.

    Args:
        data: the file's bytes; its name plays no role.
        max_pixels: more than these in the header are refused, of a WebP more than half of them.

    Raises:
        UnsupportedMediaType: not JPEG, PNG, WebP or TIFF, or a TIFF that is a raw sensor file.
        ImageTooManyPixels: the header announces more than that, or a side that is too long.
        ImageTooComplex: the file has more parts than a picture needs.
        ImageTruncated: the data ends early.
        ImageUndecodable: the data is damaged, or the image smaller than 16 pixels a side.
    """
    kind = kind_of(data)
    try:
        header = _READERS[kind](data)
    except Exception as error:
        raise problem_with(data, kind, error) from error
    _check_size((header.width, header.height), max_pixels, kind)
    notes = Image.new("L", (1, 1))
    notes.info = {"exif": header.exif, "xmp": header.xmp}
    orientation = _orientation(notes)
    stored = header.width, header.height
    width, height = stored if orientation < 5 else stored[::-1]  # from 5 on, a quarter turn
    return PhotoFile(width, height, read_pose(notes, orientation, (width, height)), orientation, header)


def decode(data: bytes, max_pixels: int, useful_side_px: int | None = None) -> Photo:
    """Read and decode an image file; see ``open_photo`` and ``PhotoFile.decode``."""
    return open_photo(data, max_pixels).decode(useful_side_px)


def _check_size(size: tuple[int, int], max_pixels: int, kind: Kind) -> None:
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
    if max(size) > MAX_SIDE_PX:
        raise ImageTooManyPixels(
            f"the image is {width}x{height} pixels; cut it into pictures of at most {MAX_SIDE_PX} pixels a side.",
            limit=MAX_SIDE_PX,
            actual=max(size),
        )
    if min(size) < MIN_SIDE_PX:
        raise ImageUndecodable(
            f"the image is {width}x{height} pixels; send one of at least {MIN_SIDE_PX} pixels a side.",
            limit=MIN_SIDE_PX,
            actual=min(size),
        )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1–8; 1 when there is none or it cannot be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # metadata is a hint, see pose
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
