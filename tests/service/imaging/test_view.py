import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from service.imaging.decode import Photo
from service.imaging.exif import Pose
from service.imaging.view import ground_width_m, kept_share, make_view, north_up


def photo(image):
    return Photo(image, *image.size, Pose())


def brightest(image):
    """Offset of the brightest spot from the centre: (right, up) in pixels."""
    grey = np.asarray(image.convert("L"), float)
    y, x = np.unravel_index(np.argmax(grey), grey.shape)
    return x - (image.width - 1) / 2, (image.height - 1) / 2 - y


def spot(right, up, size=201):
    """A black image with one soft bright spot."""
    image = Image.new("RGB", (size, size))
    x, y = (size - 1) / 2 + right, (size - 1) / 2 - up
    ImageDraw.Draw(image).ellipse((x - 3, y - 3, x + 3, y + 3), fill="white")
    return image


@given(heading=st.floats(-360, 720), bearing=st.floats(0, 360))
def test_what_lies_at_a_bearing_is_shown_at_that_bearing(heading, bearing):
    """A spot at a compass bearing appears in the photo at bearing − heading from its top, and north-up at bearing."""
    seen = math.radians(bearing - heading)
    turned = north_up(spot(60 * math.sin(seen), 60 * math.cos(seen)), heading, 201)
    right, up = brightest(turned)
    expected = 60 * math.sin(math.radians(bearing)), 60 * math.cos(math.radians(bearing))
    assert math.dist((right, up), expected) < 6  # the spot's radius, the rounding of its centre


def test_corners_get_the_mean_colour(ground):
    image = ground(1, 100, 100)
    mean = np.asarray(image, float).mean(axis=(0, 1))
    np.testing.assert_allclose(north_up(image, 45, 100).getpixel((0, 0)), mean, atol=1)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_quarter_turns_move_whole_pixels(ground, quarter):
    """A top that faces east (1) goes to the right: the image turns clockwise."""
    image = ground(1, 120, 80)
    expected = np.rot90(np.asarray(image.crop((30, 10, 90, 70))), -quarter)
    turned = np.asarray(north_up(image, 90 * quarter, 60), int)
    np.testing.assert_allclose(turned, expected, atol=1)  # Pillow rounds down


def test_no_heading_leaves_the_photo_and_cuts_its_centre_square(ground):
    image = ground(1, 120, 80)
    np.testing.assert_array_equal(np.asarray(make_view(photo(image))), np.asarray(image.crop((20, 0, 100, 80))))
    np.testing.assert_array_equal(
        np.asarray(make_view(photo(image), heading_deg=360.0)), np.asarray(make_view(photo(image)))
    )


@pytest.mark.parametrize(
    ("short_side_m", "tile_side_m", "side_px"),
    [(112.5, 100.0, 80), (90.0, 50.0, 50), (56.25, 500.0, 90), (112.5, None, 90), (5e8, 1.0, 1)],
)
def test_a_photo_of_more_ground_than_a_tile_is_cropped_to_one(ground, short_side_m, tile_side_m, side_px):
    share = kept_share(short_side_m, tile_side_m)
    assert make_view(photo(ground(1, 160, 90)), None, share).size == (side_px, side_px)
    small = Photo(ground(1, 80, 45), 160, 90, Pose())  # decoded at half its size
    assert make_view(small, None, share).size == (max(1, side_px // 2),) * 2


def test_numbers_too_small_for_a_float_are_some_ground():
    assert 0 < kept_share(ground_width_m(1e-323, 30), 86.0) <= 1


def test_ground_width():
    assert ground_width_m(100, 90) == pytest.approx(200)
