import pytest

from service.imaging.formats.jpeg import read_jpeg

START, END = b"\xff\xd8", b"\xff\xd9"
FRAME, PROGRESSIVE = (bytes([0xFF, kind]) + b"\x00\x11\x08\x00\x30\x00\x40\x03" + bytes(9) for kind in (0xC0, 0xC2))
GREY = b"\xff\xc0\x00\x0b\x08\x00\x30\x00\x40\x01" + bytes(3)


def scan(channels):
    return b"\xff\xda" + (6 + 2 * channels).to_bytes(2, "big") + bytes([channels]) + bytes(2 * channels + 3)


@pytest.mark.parametrize(
    ("jpeg", "in_rows", "scans"),
    [
        (START + FRAME + scan(3) + END, True, 1),
        (START + b"\xff\xe0\x00\x06\xff\xda\x00\x0c" + FRAME + scan(3) + END, True, 1),
        (START + GREY + scan(1) + END, True, 1),
        (START + FRAME + (scan(1) + b"pixels") * 3 + END, False, 3),  # one scan for each channel
        (START + PROGRESSIVE + scan(3) + b"\xff\x00\xff\xd3" + scan(1) + END, False, 2),
        (START + PROGRESSIVE + scan(3) + b"\xff\xc4\x00\x04\xff\xd9" + scan(1) + END + scan(1), False, 2),
        (START + b"junk" + FRAME + scan(3), True, 1),
    ],
)
def test_scans_and_how_they_are_decoded(jpeg, in_rows, scans):
    header = read_jpeg(jpeg)
    assert (header.width, header.height, header.in_rows, header.scans) == (64, 48, in_rows, scans)


@pytest.mark.parametrize("jpeg", [b"", START, START + FRAME, START + scan(3), START + FRAME + END, FRAME[:7]])
def test_no_image(jpeg):
    with pytest.raises(ValueError, match=r"it has no image|its frame is missing"):
        read_jpeg(jpeg)


def test_exif_of_several_segments_and_the_first_xmp():
    def app1(body):
        return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body

    exif, xmp = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
    notes = app1(exif + b"II*\0") + app1(xmp + b"<a/>") + app1(exif + b"more") + app1(xmp + b"<b/>")
    header = read_jpeg(START + notes + FRAME + scan(3) + END)
    assert (header.exif, header.xmp) == (exif + b"II*\0more", b"<a/>")
    assert b"".join(header.pixels) == START + FRAME + scan(3) + END
