import math

import numpy as np
import pytest

from service.camera.attitude import Attitude
from service.camera.pinhole import Pinhole, apply
from service.camera.pose import Prior, solve_pose

HEIGHT_M, PLACE, HFOV_DEG, TOLERANCE_M = 120.0, 50 + 80j, 70.0, 3.0


def matches(pitch, *, heading=123.0, roll=0.0, noise_m=0.0, slope=0.0, count=200, seed=1):
    """Positions of a photo, where they lie, and the homography's centre and step to the right."""
    rng = np.random.default_rng(seed)
    camera = Pinhole(Attitude.of_angles(heading, pitch, roll), HFOV_DEG, 0.5625)

    def ground(points):
        rays = apply(camera.to_ground, points)
        # the ground rises by `slope` per metre to the east of the photo's centre
        middle = apply(camera.to_ground, np.array([0j]))[0]
        return (
            (PLACE + rays * HEIGHT_M * (1 + slope * middle.real) / (1 + slope * rays.real))
            if slope
            else (PLACE + rays * HEIGHT_M)
        )

    photo = rng.uniform(-0.5, 0.5, count) + 1j * rng.uniform(-0.28, 0.2, count)
    noise = rng.normal(0, 1, (2, count)) * noise_m
    centre, beside = ground(np.array([0j, 1e-3]))
    return photo, ground(photo) + noise[0] + 1j * noise[1], (centre, (beside - centre) / 1e-3)


def prior(pitch, pitch_sigma=0.5, hfov=HFOV_DEG, focal_sigma=0.04, **more):
    focal = 0.5 / math.tan(math.radians(hfov / 2))
    return Prior(Attitude.of_angles(0, pitch), pitch_sigma, 1.0, focal, focal_sigma, **more)


def solve(pitch, known, **how):
    photo, ground, start = matches(pitch, **how)
    return solve_pose(photo, ground, np.full(len(photo), TOLERANCE_M), known, start)


@pytest.mark.parametrize("pitch", [-90, -75, -60, -45, -35])
def test_an_exact_camera_is_found(pitch):
    pose = solve(pitch, prior(pitch))
    assert complex(pose.east_m, pose.north_m) == pytest.approx(PLACE, abs=1e-3)
    assert pose.height_m == pytest.approx(HEIGHT_M, abs=1e-3)
    assert pose.attitude.heading_deg == pytest.approx(123, abs=1e-3)
    assert pose.attitude.pitch_deg == pytest.approx(pitch, abs=1e-2)
    assert pose.hfov_deg == pytest.approx(HFOV_DEG, abs=1e-3)


@pytest.mark.parametrize("pitch", [-90, -60, -45])
def test_the_covariance_says_how_far_off_it_is(pitch):
    """Of many drawings of the noise, two thirds lie within the radius that is claimed."""
    inside = []
    for seed in range(40):
        pose = solve(pitch, prior(pitch), noise_m=1.0, seed=seed)
        off = abs(complex(pose.east_m, pose.north_m) - PLACE)
        inside.append(off < pose.sigma_m * math.sqrt(-2 * math.log(1 - 0.68)))
    assert np.mean(inside) > 0.6


def test_a_wrong_focal_length_is_found_in_a_slanting_view():
    pose = solve(-45, prior(-45, hfov=74, focal_sigma=0.05), noise_m=0.5)
    assert pose.hfov_deg == pytest.approx(HFOV_DEG, abs=1.5)
    assert complex(pose.east_m, pose.north_m) == pytest.approx(PLACE, abs=4)


def test_a_pitch_that_nobody_states_is_found_from_the_slant():
    pose = solve(-45, prior(-57, pitch_sigma=20), noise_m=0.5)
    assert pose.attitude.pitch_deg == pytest.approx(-45, abs=8)
    assert pose.sigma_m > 3 * solve(-45, prior(-45), noise_m=0.5).sigma_m


def test_on_a_slope_the_slope_is_found():
    pose = solve(-45, prior(-45, pitch_sigma=0.2, focal_sigma=0.005), slope=0.08, heading=90.0)
    assert pose.slope[0] == pytest.approx(0.08, abs=0.03)
    flat = abs(complex(pose.east_m, pose.north_m) - PLACE)
    assert flat < 4


def test_straight_down_the_height_is_as_unsure_as_the_focal_length():
    pose = solve(-90, prior(-90, focal_sigma=0.2), noise_m=0.5)
    assert math.sqrt(pose.covariance[2, 2]) == pytest.approx(0.2 * HEIGHT_M, rel=0.2)
    told = solve(-90, prior(-90, focal_sigma=0.2, height_m=120.0, height_sigma_m=2.0), noise_m=0.5)
    assert math.sqrt(told.covariance[2, 2]) == pytest.approx(2.0, rel=0.3)


def test_a_camera_that_looks_up_has_no_pose():
    assert solve(-60, prior(10)) is None
