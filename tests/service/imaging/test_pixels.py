import numpy as np
import pytest
from PIL import Image

from service.imaging import pixels
from service.imaging.pixels import to_rgb


def picture(mode, width, height):
    rng = np.random.default_rng(0)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 2**16, (height, width), dtype=np.uint16))
    return Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA").convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "P", "1", "I;16"])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_bands_leave_no_trace(monkeypatch, mode, factor):
    image = picture(mode, 67, 101)
    whole = np.asarray(to_rgb(image, factor))
    assert whole.shape == (-(-101 // factor), -(-67 // factor), 3)
    monkeypatch.setattr(pixels, "BAND_PX", 200)
    np.testing.assert_array_equal(np.asarray(to_rgb(image, factor)), whole)


def test_a_smaller_pixel_is_the_mean_of_those_it_stands_for():
    image = picture("RGB", 60, 40)
    means = np.asarray(image, float).reshape(10, 4, 15, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(np.asarray(to_rgb(image, 4)), means, atol=0.51)


def test_what_is_transparent_does_not_colour_its_neighbours():
    image = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    image.putpixel((0, 0), (0, 200, 0, 255))
    assert to_rgb(image, 2).getpixel((0, 0)) == (96, 146, 96)  # a quarter of it, and three of grey


def test_plain_rgb_is_not_copied():
    image = picture("RGB", 20, 20)
    assert to_rgb(image) is image
