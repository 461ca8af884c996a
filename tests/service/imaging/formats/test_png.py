import io
import zlib

import hostile
import pytest
from PIL import Image

from service.imaging.formats.png import read_png


def with_text(kind, body):
    return read_png(hostile.png_with(hostile.png_chunk(kind, body)))


@pytest.mark.parametrize("packed", [False, True])
def test_xmp(packed):
    text = b"<x:xmpmeta/>"
    body = b"XML:com.adobe.xmp\0" + bytes([packed, 0]) + b"en\0key\0" + (zlib.compress(text) if packed else text)
    assert with_text(b"iTXt", body).xmp == text


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt"])
def test_exif_as_it_was_written_before_it_had_a_chunk(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    given = exif.tobytes()
    text = b"\nexif\n%8d\n" % len(given) + given.hex().encode() + b"\n"
    body = b"Raw profile type exif\0" + (b"\0" + zlib.compress(text) if kind == b"zTXt" else text)
    read = Image.Exif()
    read.load(with_text(kind, body).exif)
    assert read[0x0112] == 6


@pytest.mark.parametrize("body", [b"XML:com.adobe.xmp\0\1\0\0\0damaged", b"XML:com.adobe.xmp\0"])
def test_a_damaged_text_is_none(body):
    assert with_text(b"iTXt", body).xmp == b""


def test_of_an_animation_the_picture_that_is_shown_without_it_stays():
    frames = [hostile.picture(), Image.new("RGB", (64, 64))]
    data = hostile.encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    still = Image.open(io.BytesIO(b"".join(read_png(data).pixels)))
    assert not still.is_animated
    assert still.convert("RGB").tobytes() == frames[0].tobytes()


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_no_header(data):
    with pytest.raises(ValueError, match="it has no header"):
        read_png(data)
