"""TIFF files: what of their tags is about pixels, and what about the camera."""

from service.errors import AerofixError, ImageUndecodable, UnsupportedMediaType
from service.imaging.formats.header import MAX_NOTE_BYTES, Header, check_count, ends_early
from service.imaging.formats.tiff_directory import Tag, TiffCopy, TiffFile

MAX_PARTS = 100_000
"""There may be so many strips or tiles. One for each row is the most that is usual; 100 megapixels in tiles of 64 x 64
are 25,000."""

MAX_VALUES = 3 * 2**16
"""A tag about pixels may have so many numbers, but for the tables of strips: the longest is a palette of 16-bit
values."""

_REDUCED, _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _SAMPLES = 254, 256, 257, 259, 262, 277
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES = 273, 279, 324, 325
_SUB_IFDS, _XMP, _DNG_VERSION, _EXIF_IFD, _GPS_IFD = 330, 700, 50706, 34665, 34853
_SENSOR = (32803, 34892)  # photometric interpretations of raw files: a colour filter array, linear sensor values
_TABLES = (_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES)

# What decoding needs, and nothing else: Pillow copies all tags, and reads all numbers of some.
_ABOUT_PIXELS = (
    *(_WIDTH, _HEIGHT, 258, _COMPRESSION, _PHOTOMETRIC, 266, _SAMPLES, 278, 284, 317, 320, 322, 323),
    *(332, 338, 339, 347, 530, 531, 532, *_TABLES),
)
_ABOUT_CAMERA = (271, 272, 274, 305, 306)  # maker, model, orientation, software, date

# None, LZW, JPEG, Deflate (two numbers), PackBits, LZMA, Zstandard, WebP: they take a time that their bytes bound.
_COMPRESSIONS = (1, 5, 7, 8, 32946, 32773, 34925, 50000, 50001)

_RAW_COMPRESSIONS = (32767, 34713, 65000, 65535)  # Sony's, Nikon's, Kodak's and Pentax's

_RAW = (
    "the file is a raw sensor file (DNG or another of that kind) and not a developed picture; send the JPEG that the "
    "camera wrote beside it, or develop it into a JPEG or an 8-bit TIFF."
)


def read_tiff(data: bytes) -> Header:
    """Read what a TIFF announces of its first picture.

    Args:
        data: the file.

    Raises:
        ImageTooComplex: it has too many strips, tiles or tags.
        ImageTruncated: what it refers to lies behind its end.
        ImageUndecodable: of a compression that is not for photos, or its strips overlap.
        UnsupportedMediaType: a raw sensor file.
        ValueError: it has no size.
    """
    file = TiffFile(data)
    tags = file.tags(file.first())
    photometric = file.number(tags.get(_PHOTOMETRIC), 0)
    is_preview = file.number(tags.get(_REDUCED), 0) & 1 and _SUB_IFDS in tags  # raw files begin with one
    is_sensor = photometric in _SENSOR or file.number(tags.get(_COMPRESSION), 1) in _RAW_COMPRESSIONS
    if _DNG_VERSION in tags or is_sensor or is_preview:
        raise UnsupportedMediaType(_RAW)
    _check_parts(file, tags)
    for number in _ABOUT_PIXELS:
        if number in tags and number not in _TABLES:
            check_count("TIFF", "values in a tag", tags[number].count, MAX_VALUES, "save it again")
    kept = [tag.entry for number, tag in tags.items() if number in _ABOUT_PIXELS]
    padding = bytes(len(data) % 2)  # directories begin at even addresses
    head = file.start(len(data) + len(padding))
    return Header(
        "TIFF",
        width=file.number(tags[_WIDTH], 0) if _WIDTH in tags else 0,
        height=file.number(tags[_HEIGHT], 0) if _HEIGHT in tags else 0,
        pixels=[head, memoryview(data)[len(head) :], padding, file.directory(kept)],
        exif=_camera(file, tags),
        xmp=file.bytes_of(tags.get(_XMP), MAX_NOTE_BYTES),
        channels=file.number(tags.get(_SAMPLES), 1),
    )


def _check_parts(file: TiffFile, tags: dict[int, Tag]) -> None:
    """Refuse what would take longer to decode, or more memory, than the file's bytes explain."""
    for number in _TABLES:
        if number in tags:
            check_count("TIFF", "strips or tiles", tags[number].count, MAX_PARTS, "save it with larger strips")
    compression = file.number(tags.get(_COMPRESSION), 1)
    if compression not in _COMPRESSIONS:
        raise ImageUndecodable(
            f"the TIFF file is of compression {compression}; save it with LZW or Deflate, or as JPEG."
        )
    for where, how_long in ((_STRIPS, _STRIP_BYTES), (_TILES, _TILE_BYTES)):
        starts, sizes = file.numbers(tags.get(where)), file.numbers(tags.get(how_long))
        if any(start + size > len(file.data) for start, size in zip(starts, sizes, strict=False)):
            raise ends_early("TIFF", len(file.data))
        if sum(sizes) > 2 * len(file.data):  # some writers share strips that are alike
            raise ImageUndecodable("the strips of the TIFF file lie over each other; save it again.")


def _camera(file: TiffFile, tags: dict[int, Tag]) -> bytes:
    """What is known of the camera, as a small TIFF: EXIF as other files carry it."""
    copy = TiffCopy(file, MAX_NOTE_BYTES)
    entries = copy.entries(tags[number] for number in _ABOUT_CAMERA if number in tags)
    for number in (_EXIF_IFD, _GPS_IFD):
        if number in tags:
            try:
                below = file.tags(file.number(tags[number], 0))
            except AerofixError:  # it is a hint
                continue
            entries.append(copy.link(number, copy.entries(below.values())))
    return b"Exif\0\0" + copy.finish(entries)
