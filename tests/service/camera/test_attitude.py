import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.camera.attitude import Attitude

HEADINGS = st.floats(0, 359.99)


def apart_deg(one, other):
    return abs((one - other + 180) % 360 - 180)


@given(heading=HEADINGS, pitch=st.floats(-89.9, 30), roll=st.floats(-179, 179))
def test_angles_come_back(heading, pitch, roll):
    found = Attitude.of_angles(heading, pitch, roll).angles_deg
    assert apart_deg(found[0], heading) < 1e-3
    assert found[1] == pytest.approx(pitch, abs=1e-6)
    assert apart_deg(found[2], roll) < 1e-3


@given(heading=HEADINGS, pitch=st.floats(-180, 180), roll=st.floats(-180, 180))
def test_the_axes_are_right_handed_and_of_length_one(heading, pitch, roll):
    matrix = Attitude.of_angles(heading, pitch, roll).matrix
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)


def test_a_camera_that_looks_north_and_half_down():
    right, down, forward = Attitude.of_angles(0, -45).matrix.T
    half = math.sqrt(0.5)
    np.testing.assert_allclose(right, [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(down, [0, -half, -half], atol=1e-12)
    np.testing.assert_allclose(forward, [0, half, -half], atol=1e-12)


def test_a_roll_to_the_right_lowers_the_right_side():
    right, _, _ = Attitude.of_angles(0, 0, 10).matrix.T
    np.testing.assert_allclose(right, [math.cos(math.radians(10)), 0, -math.sin(math.radians(10))], atol=1e-12)


@pytest.mark.parametrize(
    ("angles", "heading"),
    [
        ((20, -90, 0), 20),
        ((20, -91, 0), 20),  # past straight down
        ((200, -89, 180), 20),  # how DJI writes the same
        ((20, -90, 90), 110),  # mounted sideways
        ((20, -90, 180), 200),
        ((20, -45, 10), 20),  # rolled, it looks where it looks
    ],
)
def test_the_heading_is_that_of_the_top_edge(angles, heading):
    assert Attitude.of_angles(*angles).heading_deg == pytest.approx(heading)


def test_past_straight_down_two_ways_of_writing_are_one_matrix():
    one, other = Attitude.of_angles(20, -91, 0), Attitude.of_angles(200, -89, 180)
    np.testing.assert_allclose(one.matrix, other.matrix, atol=1e-12)


@given(heading=HEADINGS, pitch=st.floats(-89, 0))
def test_a_camera_in_the_floor_of_an_aircraft(heading, pitch):
    """With the nose lifted by 90° a camera in the floor looks ahead."""
    in_floor = Attitude.of_nadir_angles(heading, pitch + 90, 0).matrix
    np.testing.assert_allclose(in_floor, Attitude.of_angles(heading, pitch).matrix, atol=1e-12)


def test_an_aircraft_banked_to_the_right_sees_what_lies_to_its_left():
    forward = Attitude.of_nadir_angles(0, 0, 10).matrix[:, 2]
    np.testing.assert_allclose(forward, [-math.sin(math.radians(10)), 0, -math.cos(math.radians(10))], atol=1e-12)


@pytest.mark.parametrize(("orientation", "heading"), [(1, 100), (3, 280), (6, 10), (8, 190), (2, 100)])
def test_a_photo_that_is_shown_turned(orientation, heading):
    """Orientation 6: the stored top is shown on the right, so the shown top faces 90° to the left of it."""
    assert Attitude.of_angles(100).shown(orientation).heading_deg == pytest.approx(heading)


@given(heading=HEADINGS, pitch=st.floats(-80, 0), roll=st.floats(-30, 30), turn=st.floats(-360, 360))
def test_a_turn_about_the_vertical_changes_the_heading_alone(heading, pitch, roll, turn):
    turned = Attitude.of_angles(heading, pitch, roll).turned(turn).matrix
    np.testing.assert_allclose(turned, Attitude.of_angles(heading + turn, pitch, roll).matrix, atol=1e-9)
