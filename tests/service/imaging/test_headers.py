import io

import pytest
from PIL import Image

from service.imaging.headers import decoded_in_rows, without_pixels

START, FRAME, PROGRESSIVE = b"\xff\xd8", b"\xff\xc0\x00\x04ab", b"\xff\xc2\x00\x04ab"


def scan(channels):
    return b"\xff\xda" + (6 + 2 * channels).to_bytes(2, "big") + bytes([channels]) + bytes(2 * channels + 3)


@pytest.mark.parametrize(
    ("jpeg", "channels", "in_rows"),
    [
        (START + FRAME + scan(3), 3, True),
        (START + b"\xff\xe0\x00\x06\xff\xda\x00\x0c" + FRAME + scan(3), 3, True),
        (START + FRAME + scan(1), 1, True),
        (START + FRAME + scan(1), 3, False),  # one scan for each channel
        (START + PROGRESSIVE + scan(3), 3, False),
        (START + FRAME, 3, False),
        (START + b"\xff\x01" + scan(3), 3, False),  # a marker without length: what follows is not where it seems
        (START + b"junk" + scan(3), 3, False),
        (b"", 3, False),
    ],
)
def test_which_jpegs_are_decoded_row_by_row(jpeg, channels, in_rows):
    assert decoded_in_rows(jpeg, channels) == in_rows


@pytest.mark.parametrize("cut", [1.0, 0.7])
def test_a_png_keeps_its_header_and_notes(encode_image, ground, cut):
    exif = Image.Exif()
    exif[0x0112] = 6
    png = encode_image(ground(1, 90, 70), exif=exif)
    notes = without_pixels(png[: int(len(png) * cut)])
    assert len(notes) < 150
    image = Image.open(io.BytesIO(notes))
    assert (image.size, image.getexif()[0x0112]) == ((90, 70), 6)
