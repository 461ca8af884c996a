import pytest

from service.errors import UnsupportedMediaType
from service.imaging.signatures import kind_of


def box(kind, brand=b"isom"):
    return b"\0\0\0\x18" + kind + brand + bytes(12)


@pytest.mark.parametrize(
    ("start", "what", "fix"),
    [
        (b"II*\0\x10\0\0\0CR\2\0", "raw sensor file", "send the JPEG"),
        (b"FUJIFILMCCD-RAW 0201", "raw sensor file", "send the JPEG"),
        (b"IIU\0" + bytes(20), "raw sensor file", "send the JPEG"),
        (box(b"ftyp", b"crx "), "raw sensor file", "send the JPEG"),
        (box(b"ftyp", b"heic"), "HEIC or HEIF", "export it as JPEG"),
        (box(b"ftyp", b"mif1"), "HEIC or HEIF", "export it as JPEG"),
        (box(b"ftyp", b"avif"), "AVIF", "convert it"),
        (b"\xff\x0a" + bytes(20), "JPEG XL", "convert it"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", "convert it"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", "convert it"),
        (b"GIF89a", "GIF", "convert it"),
        (b"%PDF-1.7", "document", "export the picture"),
        (box(b"ftyp"), "video", "ffmpeg"),
        (box(b"ftyp", b"qt  "), "video", "ffmpeg"),
        (box(b"moov"), "video", "ffmpeg"),
        (b"\x1aE\xdf\xa3" + bytes(20), "video", "ffmpeg"),
        (b"RIFF\0\0\0\0AVI LIST", "video", "ffmpeg"),
        ((b"G" + bytes(187)) * 3, "video", "ffmpeg"),
        (b"RIFF\0\0\0\0WAVEfmt ", "sound", "send the picture"),
        (b"PK\3\4" + bytes(20), "zip", "imports"),
        (b"\xef\xbb\xbf\n<!doctype html><html>", "web page", "send the picture"),
        (b"hello, world", "not a JPEG, PNG, WebP or TIFF", "convert it"),
        (b"", "not a JPEG, PNG, WebP or TIFF", "convert it"),
    ],
)
def test_what_is_no_image_is_told_with_what_to_do(start, what, fix):
    with pytest.raises(UnsupportedMediaType) as caught:
        kind_of(start)
    assert what in caught.value.detail
    assert fix in caught.value.detail


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WEBP"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"MM\0+\0\x08\0\0", "TIFF"),
    ],
)
def test_images_are_told_by_their_first_bytes(start, kind):
    assert kind_of(start) == kind
