import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.camera.attitude import Attitude
from service.camera.pinhole import Pinhole, apply, similarity_matrix


def pinhole(heading=0.0, pitch=-90.0, roll=0.0, hfov=70.0, aspect=0.75):
    return Pinhole(Attitude.of_angles(heading, pitch, roll), hfov, aspect)


def test_straight_down_the_photo_is_as_wide_as_its_angle():
    """At a height of 1 and 90 degrees the photo's width shows 2 of ground; north is up when the heading is 0."""
    seen = apply(pinhole(hfov=90).to_ground, pinhole().corners)
    np.testing.assert_allclose(seen, [-1 + 0.75j, 1 + 0.75j, 1 - 0.75j, -1 - 0.75j], atol=1e-12)


def test_a_photo_to_the_east():
    (top,) = apply(pinhole(heading=90, hfov=90).to_ground, np.array([0.375j]))
    assert top == pytest.approx(0.75)


def test_half_down_the_middle_is_as_far_ahead_as_the_camera_is_high():
    (middle,) = apply(pinhole(heading=90, pitch=-45).to_ground, np.array([0j]))
    assert middle == pytest.approx(1.0)


def test_what_lies_above_the_horizon_is_nowhere():
    camera = pinhole(pitch=-10, hfov=90)
    top, bottom = apply(camera.to_ground, np.array([0.3j, -0.3j]))
    assert np.isnan(top)
    assert np.isfinite(bottom)
    assert np.isnan(apply(camera.to_photo, np.array([-5j]))).all()  # ground behind the camera


@given(
    heading=st.floats(0, 360),
    pitch=st.floats(-100, -35),
    roll=st.floats(-15, 15),
    right=st.floats(-0.5, 0.5),
    up=st.floats(-0.25, 0.25),
)
def test_to_the_ground_and_back(heading, pitch, roll, right, up):
    camera = pinhole(heading, pitch, roll, hfov=60, aspect=0.5)
    points = np.array([right + 1j * up])
    np.testing.assert_allclose(apply(camera.to_photo, apply(camera.to_ground, points)), points, atol=1e-9)


def test_rays_by_hand():
    """An independent way: turn the ray of a pixel by pitch and heading, and follow it down to the ground."""
    heading, pitch, hfov, point = 30.0, -50.0, 80.0, 0.2 + 0.1j
    focal = 0.5 / math.tan(math.radians(hfov / 2))
    right, up, ahead = point.real / focal, point.imag / focal, 1.0
    tilt, turn = math.radians(pitch), math.radians(heading)
    level_ahead = ahead * math.cos(tilt) - up * math.sin(tilt)
    rising = ahead * math.sin(tilt) + up * math.cos(tilt)
    east = right * math.cos(turn) + level_ahead * math.sin(turn)
    north = level_ahead * math.cos(turn) - right * math.sin(turn)
    (found,) = apply(pinhole(heading, pitch, hfov=hfov).to_ground, np.array([point]))
    assert found == pytest.approx(complex(east, north) / -rising)


def test_a_similarity_as_a_homography():
    points = np.array([1 + 2j, -0.5j])
    np.testing.assert_allclose(apply(similarity_matrix(2j, 3 - 1j), points), 2j * points + 3 - 1j)
