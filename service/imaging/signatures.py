"""What a file is by its first bytes, whatever its name: the kinds that are decoded, and others with what to do."""

from service.errors import UnsupportedMediaType
from service.imaging.formats.header import Kind

_KINDS: tuple[tuple[bytes, Kind], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)

_RAW = (
    "a raw sensor file and not a developed picture",
    ("send the JPEG that the camera wrote beside it, or develop it into a JPEG or an 8-bit TIFF"),
)
_VIDEO = "a video", "send single frames as JPEG, for example from ffmpeg -i VIDEO -vf fps=1 frame-%04d.jpg"
_HEIF = "a HEIC or HEIF picture", 'export it as JPEG; phones write that with the setting "most compatible"'
_PICTURE = "convert it to JPEG, PNG, WebP or TIFF"
_DOCUMENT = "a document", "export the picture in it as JPEG, PNG or TIFF"

# First bytes → what such a file is, and what to do. Raw files that begin as TIFFs do are told by one more sign.
_OTHERS: tuple[tuple[bytes, tuple[str, str]], ...] = (
    (b"FUJIFILMCCD-RAW", _RAW),
    (b"IIRO", _RAW),  # Olympus
    (b"IIRS", _RAW),
    (b"MMOR", _RAW),
    (b"IIU\0", _RAW),  # Panasonic
    (b"\0MRM", _RAW),  # Minolta
    (b"FOVb", _RAW),  # Sigma
    (b"\xff\x0a", ("a JPEG XL picture", _PICTURE)),
    (b"\0\0\0\x0cJXL ", ("a JPEG XL picture", _PICTURE)),
    (b"\0\0\0\x0cjP  ", ("a JPEG 2000 picture", _PICTURE)),
    (b"\xff\x4f\xff\x51", ("a JPEG 2000 picture", _PICTURE)),
    (b"GIF8", ("a GIF", _PICTURE)),
    (b"BM", ("a BMP picture", _PICTURE)),
    (b"8BPS", ("a Photoshop document", "export it as JPEG or TIFF")),
    (b"%PDF", _DOCUMENT),
    (b"PK\3\4", ("a zip archive or an office document", "send the pictures in it one by one; maps go to imports")),
    (b"\x1aE\xdf\xa3", _VIDEO),  # Matroska, WebM
    (b"\0\0\1\xba", _VIDEO),  # MPEG
    (b"\0\0\1\xb3", _VIDEO),
    (b"FLV\1", _VIDEO),
    (b"<svg", ("a drawing (SVG)", _PICTURE)),
    (b"<?xml", ("an XML file", "send the picture itself")),
    (b"<!DOCTYPE", ("a web page", "send the picture itself, not the page that shows it")),
    (b"<html", ("a web page", "send the picture itself, not the page that shows it")),
)
_BRANDS = {  # ISO 14496-12: four letters after "ftyp" at byte 4
    b"crx ": _RAW,  # Canon's CR3
    b"avif": ("an AVIF picture", _PICTURE),
    b"avis": ("an AVIF picture", _PICTURE),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), _HEIF),
}
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # what QuickTime and MP4 begin with
_RIFF = {b"AVI ": _VIDEO, b"WAVE": ("a sound", "send the picture itself")}
_TRANSPORT_PACKET = 188  # bytes of a packet of an MPEG transport stream; each begins with a G


def kind_of(data: bytes) -> Kind:
    """Return the kind of an image file.

    Raises:
        UnsupportedMediaType: it is none that is decoded; the error says what it is, if that can be told.
    """
    for signature, kind in _KINDS:
        if data.startswith(signature):
            if kind == "TIFF" and data[8:10] == b"CR":  # Canon's CR2
                raise _unsupported(_RAW)
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    raise _unsupported(_other(data))


def _other(data: bytes) -> tuple[str, str] | None:
    """What a file of another kind is, and what to do."""
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    for signature, told in _OTHERS:
        if data.startswith(signature) or (signature[:1] == b"<" and start.lower().startswith(signature.lower())):
            return told
    if data[4:8] == b"ftyp" and data[8:12] in _BRANDS:
        return _BRANDS[data[8:12]]
    if data[4:8] in _BOXES or data[: 2 * _TRANSPORT_PACKET : _TRANSPORT_PACKET] == b"GG":
        return _VIDEO
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12])
    return None


def _unsupported(told: tuple[str, str] | None) -> UnsupportedMediaType:
    if told is None:
        return UnsupportedMediaType("the file is not a JPEG, PNG, WebP or TIFF image; convert it to one of these.")
    what, fix = told
    return UnsupportedMediaType(f"the file is {what}, not a JPEG, PNG, WebP or TIFF image; {fix}.")
