import io

import hostile
import numpy as np
import pytest
from PIL import Image

from service.errors import ImageTruncated, ImageUndecodable, UnsupportedMediaType
from service.imaging.decode import decode
from service.imaging.formats.tiff import read_tiff

GREY = [(256, 4, [64]), (257, 4, [64]), (258, 3, [8]), (259, 3, [1]), (262, 3, [1]), (277, 3, [1]), (278, 4, [64])]


def grey(*changes, strip=64 * 64, order="<", **options):
    """A TIFF of one strip; changes replace tags or come on top."""
    chosen = {tag: (tag, type_, values) for tag, type_, values in (*GREY, (279, 4, [strip]), *changes)}
    at = 8 + 2 + 12 * (len(chosen) + 1) + 4
    return hostile.tiff([*chosen.values(), (273, 4, [at])], bytes(range(64)) * 64, order)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_plain_one(order):
    header = read_tiff(grey(order=order))
    assert (header.width, header.height, header.channels) == (64, 64, 1)
    row = np.asarray(decode(grey(order=order), 10**6).image)[0, :, 0]
    np.testing.assert_array_equal(row, np.arange(64))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "tiff_lzw"},
        {"compression": "tiff_adobe_deflate"},
        {"compression": "jpeg"},
        {"strip_size": 99},
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "1", "I;16"])
def test_the_picture_stays_as_it_is(mode, options, big):
    if mode in ("P", "1", "I;16") and options.get("compression") == "jpeg":
        pytest.skip("TIFF has no JPEG of palettes, nor of 1 or 16 bits")
    image = Image.new("I;16", (64, 64), 5000) if mode == "I;16" else hostile.picture().convert(mode)
    data = hostile.encoded(image, "TIFF", big_tiff=big, **options)
    plain = Image.open(io.BytesIO(b"".join(read_tiff(data).pixels)))
    assert plain.mode == mode
    assert plain.tobytes() == Image.open(io.BytesIO(data)).tobytes()


def test_what_is_known_of_the_camera_is_copied():
    """Pillow writes no EXIF below a TIFF's directory, so this is put together of a TIFF and the EXIF of a JPEG."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 27
    exif.get_ifd(0x8769)[0x9286] = b"x" * 10**6  # a comment that is too long
    exif.get_ifd(0x8825).update({1: "N", 2: (54.0, 41.0, 42.5)})
    exif[0x010F], exif[0x0112] = "maker of cameras", 6
    exif[0x0100] = exif[0x0101] = 64
    header, read = read_tiff(exif.tobytes()[6:]), Image.Exif()
    assert len(header.exif) < 1000
    read.load(header.exif)
    assert (read[0x010F], read[0x0112]) == ("maker of cameras", 6)
    details, gps = read.get_ifd(0x8769), read.get_ifd(0x8825)
    assert (details[0xA405], gps[1], gps[2]) == (27, "N", (54.0, 41.0, 42.5))
    assert 0x9286 not in details


def test_the_camera_of_a_bigtiff():
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker of cameras", 6
    read = Image.Exif()
    read.load(read_tiff(hostile.encoded(hostile.picture(), "TIFF", exif=exif, big_tiff=True)).exif)
    assert (read[0x010F], read[0x0112]) == ("maker of cameras", 6)


@pytest.mark.parametrize(
    "sign",
    [
        [(262, 3, [32803])],  # a colour filter array
        [(262, 3, [34892])],
        [(50706, 1, b"\1\4\0\0")],
        [(259, 3, [34713])],
        [(254, 4, [1]), (330, 4, [8])],  # the first picture is a preview, the other lies below
    ],
)
def test_raw_sensor_files_are_told(sign):
    with pytest.raises(UnsupportedMediaType, match=r"raw sensor file.*send the JPEG"):
        read_tiff(grey(*sign))


def test_a_compression_that_is_not_for_photos_is_named():
    with pytest.raises(ImageUndecodable, match="compression 34661; save it with LZW"):
        read_tiff(grey((259, 3, [34661])))


def test_strips_over_each_other_are_refused():
    at = 8 + 2 + 12 * 9 + 4
    many = 64
    entries = [entry for entry in GREY if entry[0] != 278]
    strips = [(273, 4, [at] * many), (278, 4, [1]), (279, 4, [64 * 64] * many)]
    with pytest.raises(ImageUndecodable, match="over each other"):
        read_tiff(hostile.tiff([*entries, *strips], bytes(64 * 64)))


@pytest.mark.parametrize("cut", [9, 60, 200, 3000])
def test_what_lies_behind_the_end_is_missing(cut):
    with pytest.raises(ImageTruncated):
        read_tiff(grey()[:cut])


def test_a_chain_of_directories_is_not_followed():
    data = bytearray(grey())
    at = 8 + 2 + 12 * 9
    data[at : at + 4] = (8).to_bytes(4, "little")  # the first comes after itself
    assert Image.open(io.BytesIO(b"".join(read_tiff(bytes(data)).pixels))).n_frames == 1
