"""A lens from a flight over made-up hills: rays are cast against the hills themselves, by bisection."""

import math

import numpy as np
import pytest

from service.camera.attitude import Attitude
from service.tracking.lens import BAD_FIT, LEAST_VIEWS, VIEWS, FlightPhoto, Lens, LensTrial

TRUE = 0.5 / math.tan(math.radians(67) / 2)
STATED = Lens(0.5 / math.tan(math.radians(73.7) / 2), 0.05)


def hills(east_m, north_m):
    return 12 * np.sin(east_m / 90) + 9 * np.cos(north_m / 70 + east_m / 200) + 0.03 * east_m


def shown(rng, east_m, north_m, height_m, heading_deg, focal=TRUE, noise_m=1.5, pitch_deg=-45.0):
    """A view of the hills; its first guess is that of the stated lens over level ground."""
    photo = rng.uniform(-0.45, 0.45, 150) + 1j * rng.uniform(-0.25, 0.25, 150)
    right, down, forward = Attitude.of_angles(heading_deg, pitch_deg).matrix.T
    rays = np.outer(right, photo.real) - np.outer(down, photo.imag) + focal * forward[:, None]
    near, far = np.zeros(150), np.full(150, 2000.0)
    for _ in range(60):
        middle = (near + far) / 2
        above = height_m + middle * rays[2] > hills(east_m + middle * rays[0], north_m + middle * rays[1])
        near, far = np.where(above, middle, near), np.where(above, far, middle)
    ground = east_m + near * rays[0] + 1j * (north_m + near * rays[1])
    ground = ground + rng.normal(0, noise_m, 150) + 1j * rng.normal(0, noise_m, 150)
    guess = np.array([east_m + 15.0, north_m - 10.0, 0.85 * height_m, heading_deg + 2, 0.0, 0.0])
    return FlightPhoto(photo, ground, np.full(150, noise_m), pitch_deg, 0.0, 0.5, guess)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def flight(rng, count, **kwargs):
    return [shown(rng, 40.0 * i, 6.0 * i, 130.0, 80 + 5 * math.sin(i), **kwargs) for i in range(count)]


def test_a_flight_over_hills_tells_its_lens(rng):
    trial = LensTrial(STATED)
    for count, view in enumerate(flight(rng, 10), 1):
        trial.add(view)
        assert (trial.found is None) == (count < LEAST_VIEWS)
    assert trial.found.hfov_deg == pytest.approx(67, abs=1.5)
    assert abs(trial.found.hfov_deg - 67) < 2.5 * trial.found.hfov_sigma_deg < 6
    errors = [math.hypot(view.pose[0] - 40 * i, view.pose[1] - 6 * i) for i, view in enumerate(trial.views)]
    assert np.median(errors) < 4
    assert np.median(errors) < 2.5 * math.sqrt(np.trace(trial.covariance))


def test_a_lens_that_is_as_stated_stays(rng):
    trial = LensTrial(Lens(TRUE, 0.05))
    for view in flight(rng, 8):
        trial.add(view)
    assert trial.found.hfov_deg == pytest.approx(67, abs=1.5)


def test_a_hovering_drone_sees_one_view(rng):
    trial = LensTrial(STATED)
    for _ in range(5):
        trial.add(shown(rng, 0, 0, 130, 80))
    assert len(trial.views) == 1
    assert trial.found is None


def test_a_photo_of_another_place_is_left_out(rng):
    trial = LensTrial(STATED)
    views = flight(rng, 8)
    wild = shown(rng, 400, 300, 130, 200)
    wild.ground_m = rng.permutation(wild.ground_m)
    for view in [*views[:5], wild, *views[5:]]:
        trial.add(view)
    assert wild not in trial.views
    assert trial.found.hfov_deg == pytest.approx(67, abs=1.5)
    assert BAD_FIT > 1


def test_a_photo_that_is_not_adjusted_to_the_others_has_no_place_among_them(rng):
    trial = LensTrial(STATED)
    for view in flight(rng, 6):
        trial.add(view)
    assert trial.covariance is not None
    wild = shown(rng, 400, 300, 130, 200)
    wild.ground_m = rng.permutation(wild.ground_m)
    trial.add(wild)
    assert trial.covariance is None
    assert trial.found.hfov_deg == pytest.approx(67, abs=2)


def test_what_goes_on_from_a_copy_leaves_the_trial_as_it_was(rng):
    trial = LensTrial(STATED)
    views = flight(rng, 7)
    for view in views[:5]:
        trial.add(view)
    before, found = [view.pose.tolist() for view in trial.views], trial.found
    after = trial.copy()
    for view in views[5:]:
        after.add(view)
    assert [view.pose.tolist() for view in trial.views] == before
    assert trial.found is found
    assert (len(trial.views), len(after.views)) == (5, 7)
    assert after.found != found


def test_a_camera_of_all_heights_has_no_ground_without_end(rng):
    trial = LensTrial(STATED)
    low = flight(rng, VIEWS - 1)
    for view in low[1::2]:  # as seen from 20 km, whose every match has a piece of ground of its own
        view.ground_m, view.pose = 150 * view.ground_m, view.pose * [150, 150, 150, 1, 1, 1]
    trial.views = low
    trial.add(shown(rng, 40.0 * VIEWS, 6.0 * VIEWS, 130.0, 80))
    assert len(trial.views) < VIEWS - 5


def test_a_long_flight_keeps_its_last_photos(rng):
    trial = LensTrial(STATED)
    trial.views = flight(rng, VIEWS)
    trial.add(shown(rng, 40.0 * VIEWS, 6.0 * VIEWS, 130.0, 80))
    assert len(trial.views) == VIEWS


def test_degrees_and_shares(rng):
    wide, narrow = Lens(1.0, 0.01), Lens(1.01, 0.01)
    assert wide.hfov_deg == pytest.approx(2 * math.degrees(math.atan(0.5)))
    assert wide.hfov_deg - narrow.hfov_deg == pytest.approx(wide.hfov_sigma_deg, rel=0.02)
