import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.errors import (
    AerofixError,
    ImageTooManyPixels,
    ImageTruncated,
    ImageUndecodable,
    UnsupportedMediaType,
)
from service.imaging.decode import decode

LIMIT = 1_000_000


def png_header(width, height):
    """A PNG that announces a size and holds next to no pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_lossless_formats_come_back_exactly(ground, encode_image, format):
    image = ground(1, 50, 40)
    photo = decode(encode_image(image, format, lossless=True), LIMIT)
    np.testing.assert_array_equal(np.asarray(photo.image), np.asarray(image))
    assert (photo.width, photo.height) == (50, 40)


def test_jpeg_comes_back_closely(ground, encode_image):
    image = ground(1, 50, 40)
    photo = decode(encode_image(image, "JPEG", quality=95, subsampling=0), LIMIT)
    assert np.abs(np.asarray(photo.image, float) - np.asarray(image, float)).mean() < 4


def test_a_jpeg_with_previews_behind_it_is_a_jpeg(ground, encode_image):
    image = ground(1, 50, 40)
    data = encode_image(image, "MPO", save_all=True, append_images=[ground(2, 20, 20)])
    assert decode(data, LIMIT).image.size == (50, 40)


@pytest.mark.parametrize(
    ("useful", "expected"), [(None, 800), (400, 400), (390, 400), (200, 200), (50, 100), (801, 800)]
)
def test_a_jpeg_is_decoded_no_larger_than_useful(ground, encode_image, useful, expected):
    photo = decode(encode_image(ground(1, 800, 800), "JPEG"), LIMIT, useful)
    assert photo.image.size == (expected, expected)
    assert (photo.width, photo.height) == (800, 800)


def test_the_shorter_side_bounds_the_reduction(ground, encode_image):
    assert decode(encode_image(ground(1, 800, 100), "JPEG"), LIMIT, 100).image.size == (800, 100)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(ground, encode_image, kind, orientation):
    upright = ground(3, 48, 32)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's numbers for the inverse turns
    stored = upright if orientation == 1 else upright.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769)[0xA405] = 27  # mm
    lossless = {"lossless": True} if kind == "WEBP" else {}
    photo = decode(encode_image(stored, kind, exif=exif, **lossless), LIMIT)
    np.testing.assert_array_equal(np.asarray(photo.image), np.asarray(upright))
    assert (photo.width, photo.height) == (48, 32)
    if kind != "TIFF":  # Pillow writes no such sections into them
        assert photo.pose.hfov_deg == pytest.approx(2 * math.degrees(math.atan(18 / 27)))


def test_an_impossible_orientation_is_ignored(ground, encode_image):
    exif = Image.Exif()
    exif[0x0112] = 77
    assert decode(encode_image(ground(3, 48, 32), "PNG", exif=exif), LIMIT).image.size == (48, 32)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_every_mode_becomes_rgb(encode_image, mode, format):
    if mode == "CMYK" and format == "PNG":
        format = "JPEG"
    value = 200 << 8 if mode == "I;16" else 1 if mode == "1" else (0, 0, 0, 55) if mode == "CMYK" else None
    image = Image.new("L", (20, 20), 200).convert(mode) if value is None else Image.new(mode, (20, 20), value)
    photo = decode(encode_image(image, format), LIMIT)
    assert photo.image.mode == "RGB"
    expected = 255 if mode == "1" else 200
    assert np.abs(np.asarray(photo.image, int) - expected).max() <= 1


def test_transparent_pixels_become_grey(encode_image):
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert decode(encode_image(image), LIMIT).image.getpixel((5, 5)) == (128, 128, 128)


def test_a_palette_with_a_transparent_colour_becomes_grey_there(encode_image):
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert decode(encode_image(image, transparency=1), LIMIT).image.getpixel((5, 5)) == (128, 128, 128)


def test_floating_point_pixels_are_refused(encode_image):
    with pytest.raises(ImageUndecodable, match="floating-point"):
        decode(encode_image(Image.new("F", (20, 20), 0.5), "TIFF"), LIMIT)


@pytest.mark.parametrize(
    "data", [b"", b"hello, world", b"GIF89a" + bytes(50), b"RIFF\0\0\0\0WAVE", b"%PDF-1.7", b"BM" + bytes(60)]
)
def test_other_content_is_unsupported_whatever_its_name(data):
    with pytest.raises(UnsupportedMediaType, match="convert it"):
        decode(data, LIMIT)


def test_a_bomb_is_refused_by_its_header(monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("pixels were decoded"))
    with pytest.raises(ImageTooManyPixels) as caught:
        decode(png_header(20_000, 20_000), LIMIT)
    assert caught.value.numbers == {"limit": LIMIT, "actual": 400_000_000}


@pytest.mark.parametrize("size", [(1, 1), (15, 200), (200, 15)])
def test_tiny_images_are_refused(encode_image, size):
    with pytest.raises(ImageUndecodable, match="at least 16 pixels"):
        decode(encode_image(Image.new("RGB", size)), LIMIT)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "TIFF-LZW"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_an_image_that_ends_early_is_truncated(encode_image, format, share):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8))
    data = encode_image(noise, format.removesuffix("-LZW"), **({"compression": "tiff_lzw"} if "LZW" in format else {}))
    with pytest.raises(ImageTruncated, match="send the whole file"):
        decode(data[: int(len(data) * share)], LIMIT)


def test_a_damaged_image_is_undecodable(encode_image, ground):
    data = bytearray(encode_image(ground(1, 80, 80)))
    start = data.index(b"IDAT") + 4
    data[start : start + 60] = bytes(60)
    with pytest.raises(ImageUndecodable, match="cannot be decoded"):
        decode(bytes(data), LIMIT)


@given(
    st.binary(max_size=300), st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"RIFF\xff\0\0\0WEBP"])
)
def test_garbage_behind_a_signature_is_a_clean_error(body, signature):
    with pytest.raises(AerofixError):
        decode(signature + body, LIMIT)
