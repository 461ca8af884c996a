import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.camera.attitude import Attitude
from service.camera.look import FAR_HEIGHTS, look_of
from service.camera.pinhole import Pinhole, apply

EDGE = np.array([-0.5 + 0.5j, 0.5 + 0.5j, 0.5 - 0.5j, -0.5 - 0.5j])


def pinhole(heading=0.0, pitch=-90.0, roll=0.0, hfov=70.0, aspect=0.75):
    return Pinhole(Attitude.of_angles(heading, pitch, roll), hfov, aspect)


def on_ground(camera, look, points):
    """Ground in camera heights at positions of the square."""
    return apply(camera.to_ground, apply(look.to_photo, points))


@pytest.mark.parametrize("heading", [0.0, 33.0])
def test_straight_down_it_is_the_centre_square(heading):
    look = look_of(pinhole(heading), north_up=False)
    np.testing.assert_allclose(apply(look.to_photo, EDGE), 0.75 * EDGE, atol=1e-12)


def test_with_a_heading_the_top_is_north():
    look = look_of(pinhole(90), north_up=True)
    (top,) = apply(look.to_photo, np.array([0.5j]))
    assert top == pytest.approx(-0.375)  # north is to the left of a camera that looks east


@given(
    heading=st.floats(0, 359),
    pitch=st.floats(-95, -30),
    roll=st.floats(-10, 10),
    hfov=st.floats(30, 90),
    north_up=st.booleans(),
)
def test_the_square_is_a_square_of_ground(heading, pitch, roll, hfov, north_up):
    camera = pinhole(heading, pitch, roll, hfov, 0.6)
    look = look_of(camera, north_up=north_up)
    corners = on_ground(camera, look, EDGE)
    sides = np.abs(np.roll(corners, -1) - corners)
    np.testing.assert_allclose(sides, look.side_heights, rtol=1e-6)
    right = (corners[1] - corners[0]) / look.side_heights
    camera_right = np.exp(-1j * np.radians(camera.attitude.heading_deg))
    assert right == pytest.approx(1.0 if north_up else camera_right, abs=1e-6)


@given(pitch=st.floats(-90, -40), hfov=st.floats(50, 80))
def test_the_photo_fills_most_of_the_square(pitch, hfov):
    look = look_of(pinhole(0, pitch, hfov=hfov), north_up=False)
    side = (np.arange(20) + 0.5) / 20 - 0.5
    assert look.shown((side + 1j * side[:, None]).ravel()).mean() > 0.85


def test_a_photo_to_the_horizon_ends_where_it_is_of_use():
    corners = on_ground(pinhole(0, -20), look_of(pinhole(0, -20), north_up=False), EDGE)
    assert corners.imag.max() == pytest.approx(FAR_HEIGHTS)


def test_a_smaller_square_has_the_same_middle():
    whole, part = (look_of(pinhole(0, -60), north_up=False, ground_side=side) for side in (None, 0.5))
    assert part.side_heights == 0.5
    middle = np.array([0j])
    np.testing.assert_allclose(apply(part.to_photo, middle), apply(whole.to_photo, middle))


def test_from_the_photo_and_back():
    look = look_of(pinhole(0, -45), north_up=False)
    np.testing.assert_allclose(apply(look.from_photo, apply(look.to_photo, EDGE)), EDGE, atol=1e-9)
    assert np.isnan(apply(look_of(pinhole(0, -20), north_up=False).from_photo, np.array([0.37j]))).all()
