import io

import hostile
import pytest
from PIL import Image

from service.errors import ImageTruncated
from service.imaging.formats.webp import read_webp


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("notes", [{}, {"exif": b"Exif\0\0II*\0", "xmp": b"<x/>", "icc_profile": b"profile"}])
def test_the_picture_stays_and_the_notes_go(mode, lossless, notes):
    image = hostile.picture(80).convert(mode).crop((0, 0, 80, 60))
    data = hostile.encoded(image, "WEBP", lossless=lossless, **notes)
    header = read_webp(data)
    assert (header.width, header.height) == image.size
    assert (header.exif, header.xmp) == (notes.get("exif", b""), notes.get("xmp", b""))
    plain = Image.open(io.BytesIO(b"".join(header.pixels)))
    assert plain.tobytes() == Image.open(io.BytesIO(data)).tobytes()
    assert not {"exif", "xmp", "icc_profile"} & {*plain.info}


def test_of_an_animation_the_first_frame_counts():
    frames = [hostile.picture(), Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64), "red")]
    data = hostile.encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    still = Image.open(io.BytesIO(b"".join(read_webp(data).pixels)))
    assert still.convert("RGB").tobytes() == frames[0].tobytes()


def test_a_file_shorter_than_it_says_is_truncated():
    with pytest.raises(ImageTruncated):
        read_webp(hostile.encoded(hostile.picture(), "WEBP")[:-2])


def test_no_image():
    with pytest.raises(ValueError, match="it has no image"):
        read_webp(b"RIFF\x04\0\0\0WEBP")
