import io
import math
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hostile import png_chunk
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from service.errors import (
    AerofixError,
    ImageTooManyPixels,
    ImageTruncated,
    ImageUndecodable,
    UnsupportedMediaType,
)
from service.imaging.decode import decode, open_photo

LIMIT = 1_000_000


def png_header(width, height):
    """A PNG that announces a size and holds next to no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*each) for each in chunks)


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
    ("useful", "expected"), [(None, 800), (400, 400), (390, 400), (200, 200), (50, 50), (801, 800)]
)
def test_a_jpeg_is_decoded_no_larger_than_useful(ground, encode_image, useful, expected):
    photo = decode(encode_image(ground(1, 800, 800), "JPEG"), LIMIT, useful)
    assert photo.image.size == (expected, expected)
    assert (photo.width, photo.height) == (800, 800)


@pytest.mark.parametrize("useful", [None, 60, 100, 250])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{"quality": 75}, {"quality": 95, "subsampling": 0}, {"progressive": True}])
def test_a_jpeg_has_the_pixels_that_libjpeg_gives_it(ground, encode_image, mode, options, useful):
    data = encode_image(ground(1, 500, 400).convert(mode), "JPEG", **options)
    plain = Image.open(io.BytesIO(data))
    if useful is not None:
        plain.draft("RGB", (useful, useful))
    np.testing.assert_array_equal(np.asarray(decode(data, LIMIT, useful).image), np.asarray(plain.convert("RGB")))


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("useful", "expected"), [(None, (400, 300)), (301, (400, 300)), (150, (200, 150)), (90, (134, 100))]
)
def test_other_formats_are_shrunk_to_what_is_useful(ground, encode_image, format, useful, expected):
    image = ground(1, 400, 300)
    photo = decode(encode_image(image, format, lossless=True), LIMIT, useful)
    assert (photo.image.size, photo.width, photo.height) == (expected, 400, 300)
    np.testing.assert_allclose(np.asarray(photo.image), np.asarray(image.resize(expected)), atol=20)


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
    "data", [b"", b"hello, world", b"GIF89a" + bytes(50), b"RIFF\0\0\0\0WHAT", b"\0\0\0\x0cJXL ", b"BM" + bytes(60)]
)
def test_other_content_is_unsupported_whatever_its_name(data):
    with pytest.raises(UnsupportedMediaType, match="convert it"):
        decode(data, LIMIT)


def test_a_bomb_is_refused_by_its_header(monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("pixels were decoded"))
    with pytest.raises(ImageTooManyPixels) as caught:
        decode(png_header(20_000, 20_000), LIMIT)
    assert caught.value.numbers == {"limit": LIMIT, "actual": 400_000_000}


def test_a_webp_may_have_half_the_pixels(encode_image):
    data = encode_image(Image.new("RGB", (1000, 501)), "WEBP", lossless=True)
    with pytest.raises(ImageTooManyPixels, match="save it as JPEG") as caught:
        decode(data, LIMIT)
    assert caught.value.numbers == {"limit": LIMIT // 2, "actual": 501_000}
    assert decode(encode_image(Image.new("RGB", (1000, 500)), "WEBP", lossless=True), LIMIT).height == 500


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_a_header_is_read_without_the_pixels(monkeypatch, ground, encode_image, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode_image(ground(3, 48, 32), kind, exif=exif)
    if kind == "PNG":  # EXIF may lie behind the pixels
        start = data.index(b"eXIf") - 4
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        data = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    with monkeypatch.context() as patched:
        patched.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("pixels were decoded"))
        file = open_photo(data, LIMIT)
    assert (file.width, file.height) == file.decode().image.size == (32, 48)


def test_what_decoding_takes_follows_from_the_file(ground, encode_image):
    image = ground(1, 800, 800)
    jpeg, progressive = (encode_image(image, "JPEG", progressive=which) for which in (False, True))
    assert open_photo(jpeg, LIMIT).job(100).needs_bytes == 8 * 100**2
    assert open_photo(jpeg, LIMIT).job().needs_bytes == 8 * 800**2
    assert open_photo(progressive, LIMIT).job(100).needs_bytes == 8 * 100**2 + 2 * 3 * 800**2
    padded = jpeg[:2] + b"\xff" + jpeg[2:]  # allowed, but no camera does it
    assert open_photo(padded, LIMIT).job(100).needs_bytes == 8 * 100**2


MEASURE = """
import re, sys
from pathlib import Path
from service.imaging.decode import decode, open_photo

def most():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

data = Path(sys.argv[1]).read_bytes()
decode(Path(sys.argv[2]).read_bytes(), 10**8)  # loads what is needed for this format
before, file = most(), open_photo(data, 10**8)
useful = int(sys.argv[3]) or None
file.decode(useful)
print(most() - before, file.job(useful).needs_bytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("useful", [0, 256])
@pytest.mark.parametrize(
    ("mode", "format", "options"),
    [
        ("RGB", "WEBP", {"lossless": True}),
        ("RGBA", "PNG", {}),
        ("I;16", "PNG", {}),
        ("RGBA", "TIFF", {"compression": "tiff_lzw", "tiffinfo": {0x0112: 6}}),
        ("RGB", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("CMYK", "JPEG", {"progressive": True}),
    ],
)
def test_decoding_takes_no_more_memory_than_announced(tmp_path, encode_image, mode, format, options, useful):
    for name, side in (("large", 3000), ("small", 20)):
        (tmp_path / name).write_bytes(encode_image(Image.new(mode, (side, side)), format, **options))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "large"), str(tmp_path / "small"), str(useful)]
    took, announced = map(int, subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())
    assert took < announced + 2**24  # and bands, the file and the shrunk picture


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


@pytest.mark.parametrize(
    "data", [b"\xff\xd8\xff\xd9" + bytes(40), b"RIFF" + struct.pack("<I", 26) + b"WEBPnone" + bytes(18)]
)
def test_a_damaged_header_is_told_in_words(data):
    with pytest.raises(ImageUndecodable, match=r"\(it has no image\); save it again"):
        decode(data, LIMIT)


@given(
    st.binary(max_size=300), st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"RIFF\xff\0\0\0WEBP"])
)
def test_garbage_behind_a_signature_is_a_clean_error(body, signature):
    with pytest.raises(AerofixError):
        decode(signature + body, LIMIT)
