import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from service.camera.attitude import Attitude
from service.camera.look import Look, look_of
from service.camera.pinhole import Pinhole, apply
from service.imaging.view import MAX_SIDE_PX, make_view, shrunk


def look(image, heading=None, pitch=-90.0, ground_side=None, hfov=60.0):
    camera = Pinhole(Attitude.of_angles(heading or 0.0, pitch), hfov, image.height / image.width)
    return look_of(camera, north_up=heading is not None, ground_side=ground_side)


def brightest(image):
    """Offset of the middle of the bright spot from the centre: (right, up) in the square's sides."""
    y, x = np.nonzero(np.asarray(image.convert("L")) > 128)
    return (x.mean() + 0.5) / image.width - 0.5, 0.5 - (y.mean() + 0.5) / image.height


def spot(right, up, size=201):
    """A black image with one soft bright spot."""
    image = Image.new("RGB", (size, size))
    x, y = (size - 1) / 2 + right, (size - 1) / 2 - up
    ImageDraw.Draw(image).ellipse((x - 3, y - 3, x + 3, y + 3), fill="white")
    return image


@given(heading=st.floats(0, 360), bearing=st.floats(0, 360))
def test_what_lies_at_a_bearing_is_shown_at_that_bearing(heading, bearing):
    """A spot at a compass bearing appears in the photo at bearing - heading from its top, and north-up at bearing."""
    seen = math.radians(bearing - heading)
    image = spot(60 * math.sin(seen), 60 * math.cos(seen))
    right, up = brightest(make_view(image, look(image, heading)))
    expected = 60 / 201 * math.sin(math.radians(bearing)), 60 / 201 * math.cos(math.radians(bearing))
    assert math.dist((right, up), expected) < 0.03  # the spot's radius, the rounding of its centre


@given(pitch=st.floats(-85, -40), right=st.floats(-0.3, 0.3), up=st.floats(-0.2, 0.2))
def test_a_slanting_photo_is_laid_flat(pitch, right, up):
    """A spot of the photo appears where the homography of its camera puts it."""
    image = spot(right * 201, up * 201)
    flat = look(image, pitch=pitch)
    (expected,) = apply(flat.from_photo, np.array([right + 1j * up]))
    if max(abs(expected.real), abs(expected.imag)) < 0.48:
        found = brightest(make_view(image, flat))
        assert math.dist(found, (expected.real, expected.imag)) < 0.04


def test_corners_get_the_mean_colour(ground):
    image = ground(1, 100, 100)
    mean = np.asarray(image, float).mean(axis=(0, 1))
    np.testing.assert_allclose(make_view(image, look(image, 45)).getpixel((0, 0)), mean, atol=1)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_quarter_turns_move_whole_pixels(ground, quarter):
    """A top that faces east (1) goes to the right: the image turns clockwise."""
    image = ground(1, 120, 80)
    side = look(image).side_heights * 60 / 80
    expected = np.rot90(np.asarray(image.crop((30, 10, 90, 70))), -quarter)
    turned = np.asarray(make_view(image, look(image, 90 * quarter, ground_side=side)), int)
    np.testing.assert_allclose(turned[:60, :60], expected, atol=1)  # Pillow rounds down


def test_no_heading_leaves_the_photo_and_cuts_its_centre_square(ground):
    image = ground(1, 120, 80)
    np.testing.assert_array_equal(np.asarray(make_view(image, look(image))), np.asarray(image.crop((20, 0, 100, 80))))
    upright = np.asarray(image.resize((80, 120)).crop((0, 20, 80, 100)))
    np.testing.assert_array_equal(
        np.asarray(make_view(image.resize((80, 120)), look(image.resize((80, 120))))), upright
    )


@pytest.mark.parametrize(("share", "side_px"), [(0.9, 81), (0.5, 45), (2.0, 90)])
def test_a_photo_of_more_ground_than_a_window_is_cropped_to_one(ground, share, side_px):
    image = ground(1, 160, 90)
    whole = look(image).side_heights
    assert make_view(image, look(image, ground_side=share * whole)).size == (side_px, side_px)
    half = ground(1, 80, 45)  # decoded at half its size
    assert make_view(half, look(half, ground_side=share * whole)).size[0] == pytest.approx(side_px / 2, abs=1)


def test_a_square_that_reaches_behind_the_horizon_is_drawn(ground):
    image = ground(1, 90, 90)
    to_photo = look(image, pitch=-30).to_photo @ np.diag([20.0, 20.0, 1.0])
    assert make_view(image, Look(to_photo, 1.0)).mode == "RGB"


def test_a_copy_is_shrunk_by_whole_numbers(ground):
    assert shrunk(ground(1, 200, 100), 30).size == (67, 34)
    image = ground(1, 50, 40)
    assert shrunk(image, 30) is image


def test_a_square_of_many_pixels_is_drawn_with_as_many_as_are_used(ground):
    """The same picture as a smaller photo's: what is left out was to be shrunk anyway."""
    image = ground(1, 1200, 1200)
    drawn = make_view(image, look(image, 45.0, ground_side=0.5 * look(image).side_heights))
    assert drawn.size == (MAX_SIDE_PX, MAX_SIDE_PX)
    wide = make_view(image, look(image, 45.0))
    assert MAX_SIDE_PX // 2 < wide.size[0] <= MAX_SIDE_PX
    small = make_view(image.reduce(4), look(image.reduce(4), 45.0)).resize(wide.size)
    off = np.asarray(wide, float) - np.asarray(small, float)
    assert np.abs(off).mean() < 8
