"""The filter against closed forms and against the textbook's matrices, written out a second time."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.geo import offset, offset_m
from service.localization.places import RASTER_SHARE, PositionError, raster_error
from service.tracking.filter import (
    GATE,
    MeasuredPosition,
    Motion,
    Shift,
    gaussian_density,
    largest_sigma_m,
    squared_distance,
)

ORIGIN = (24.26, 120.72)


def fix(east_m=0.0, north_m=0.0, sigma_m=10.0, origin=ORIGIN, error=None):
    """A fix that errs as one between tile centres does."""
    lat, lon = offset(*origin, east_m, north_m)
    return MeasuredPosition(float(lat), float(lon), error or raster_error(sigma_m, 80.0))


def metres(motion, origin=ORIGIN):
    return np.array(offset_m(*origin, motion.lat, motion.lon))


def test_a_target_that_stands_still_is_averaged():
    """Independent fixes of a point without speed: the mean of all, with variance sigma² / n."""
    rng = np.random.default_rng(0)
    places = rng.normal(0, 10, (40, 2))
    motion = Motion.start(fix(*places[0]), max_speed_m_s=1e-9)
    for n, place in enumerate(places[1:], start=2):
        motion = motion.predict(1.0, 1e-9).update(fix(*place))
        np.testing.assert_allclose(motion.position_covariance_m2, 100 / n * np.eye(2), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(metres(motion), places.mean(axis=0), atol=1e-3)


def riccati(dt_s, acceleration, sigma_m):
    """Steady covariance before an update for one axis, by iterating the textbook's equations."""
    step = np.array([[1, dt_s], [0, 1]])
    noise = acceleration**2 * np.array([[dt_s**3 / 3, dt_s**2 / 2], [dt_s**2 / 2, dt_s]])
    covariance = np.diag([1e4, 1e4])
    for _ in range(2000):
        gain = covariance[:, :1] / (covariance[0, 0] + sigma_m**2)
        covariance = step @ (covariance - gain @ covariance[:1]) @ step.T + noise
    return covariance


@pytest.mark.parametrize(("dt_s", "acceleration", "sigma_m"), [(1.0, 1.0, 10.0), (0.2, 3.0, 2.0), (5.0, 0.1, 30.0)])
def test_constant_velocity_settles_at_the_riccati_equations_solution(dt_s, acceleration, sigma_m):
    motion = Motion.start(fix(sigma_m=sigma_m), 30.0)
    for _ in range(600):
        motion = motion.predict(dt_s, acceleration).update(fix(sigma_m=sigma_m))
    before = motion.predict(dt_s, acceleration).covariance
    steady = riccati(dt_s, acceleration, sigma_m)
    for axis in (0, 1):
        np.testing.assert_allclose(before[np.ix_([axis, axis + 2], [axis, axis + 2])], steady, rtol=1e-6)
    assert before[0, 1] == pytest.approx(0, abs=1e-9)


def test_a_constant_velocity_is_found():
    motion = Motion.start(fix(sigma_m=1.0), 30.0)
    for second in range(1, 60):
        motion = motion.predict(1.0, 0.01).update(fix(6.0 * second, -8.0 * second, 1.0))
    np.testing.assert_allclose(motion.velocity_m_s, [6, -8], atol=0.01)
    np.testing.assert_allclose(metres(motion), [6 * 59, -8 * 59], atol=0.1)


@given(st.floats(0.01, 20), st.floats(0.01, 20), st.floats(0.01, 5))
def test_a_time_may_be_cut_into_steps(first_s, second_s, acceleration):
    motion = Motion.start(fix(), 30.0).predict(1.0, 1.0).update(fix(5, 3))
    whole = motion.predict(first_s + second_s, acceleration)
    parts = motion.predict(first_s, acceleration).predict(second_s, acceleration)
    np.testing.assert_allclose(parts.covariance, whole.covariance, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(metres(parts), metres(whole), atol=1e-3)


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_updates_equal_the_information_form(seed):
    """P⁻¹ + Hᵀ R⁻¹ H, an independent way to the same posterior; with a bias in the state."""
    rng = np.random.default_rng(seed)
    motion = Motion.start(fix(), 20.0).predict(2.0, 1.0, grain_m=20.0)
    measured = fix(*rng.normal(0, 20, 2), float(rng.uniform(1, 30)))
    after = motion.update(measured)
    shows, white = measured.matrix, measured.white_m2
    information = np.linalg.inv(motion.covariance) + shows.T @ np.linalg.inv(white) @ shows
    np.testing.assert_allclose(np.linalg.inv(after.covariance), information, rtol=1e-5, atol=1e-5)
    mean = np.concatenate([np.zeros(2), motion.velocity_m_s, motion.bias])
    gap = np.array(offset_m(motion.lat, motion.lon, measured.lat, measured.lon)) - shows @ mean
    change = np.linalg.solve(information, shows.T @ np.linalg.solve(white, gap))
    np.testing.assert_allclose(offset_m(motion.lat, motion.lon, after.lat, after.lon), change[:2], atol=1e-3)
    np.testing.assert_allclose(after.velocity_m_s, motion.velocity_m_s + change[2:4], atol=1e-6)


def test_what_photos_err_by_alone_averages_out():
    """Matched fixes of one spot: their own errors are as many opinions, whatever they share with all others."""
    error = PositionError(own_m=0.5, common_m=2.0)
    motion = Motion.start(fix(error=error), max_speed_m_s=1e-9)
    for _ in range(24):
        motion = motion.predict(1.0, 1e-9).update(fix(error=error))
    np.testing.assert_allclose(motion.position_covariance_m2, 0.25 / 25 * np.eye(2), rtol=1e-6, atol=1e-9)


def test_photos_of_one_spot_are_one_opinion():
    """Hovering, the shared part of the error never averages out: its share of the variance stays."""
    motion = Motion.start(fix(), max_speed_m_s=1e-6)
    for _ in range(300):
        motion = motion.predict(1.0, 1e-6, grain_m=20.0).update(fix())
    assert largest_sigma_m(motion.position_covariance_m2) == pytest.approx(10 * math.sqrt(RASTER_SHARE), rel=0.01)


def test_the_stated_error_of_correlated_fixes_is_the_real_one():
    """Fixes with the errors that the filter assumes: the squared Mahalanobis distance of its own error averages 2."""
    rng, grain_m, step_m, distances = np.random.default_rng(1), 20.0, 10.0, []
    keep = math.exp(-step_m / grain_m)
    for _ in range(400):
        bias, motion = rng.normal(size=2), None
        for second in range(12):
            error = 10 * (math.sqrt(RASTER_SHARE) * bias + math.sqrt(1 - RASTER_SHARE) * rng.normal(size=2))
            bias = keep * bias + math.sqrt(1 - keep**2) * rng.normal(size=2)
            measured = fix(step_m * second + error[0], error[1])
            if motion is None:
                motion = Motion.start(measured, 30)
            shift = Shift(step_m + rng.normal(0, 0.5), rng.normal(0, 0.5), 0.5, 1.0)
            motion = motion.predict(1.0, 1.0, grain_m, shift).update(measured) if second else motion
        distances.append(squared_distance(metres(motion) - [step_m * second, 0], motion.position_covariance_m2))
    assert np.mean(distances) == pytest.approx(2, abs=0.35)  # 3.5 standard errors of the mean of 400 chi-squares


def test_a_measured_shift_moves_the_point_and_tells_its_speed():
    motion = Motion.start(fix(sigma_m=5.0), 30.0)
    before = motion.position_covariance_m2
    for _ in range(10):
        motion = motion.predict(1.0, 1.0, shift=Shift(9.0, -3.0, 0.5, 1.0))
    np.testing.assert_allclose(metres(motion), [90, -30], atol=0.1)
    np.testing.assert_allclose(motion.velocity_m_s, [9, -3], atol=0.5)
    np.testing.assert_allclose(motion.position_covariance_m2, before + 10 * 0.25 * np.eye(2), rtol=1e-6)


def test_an_impossible_shift_is_left_out():
    motion = Motion.start(fix(sigma_m=1.0), 30.0)
    for second in range(1, 30):
        motion = motion.predict(1.0, 0.1).update(fix(10.0 * second, 0.0, 1.0))
    wild = motion.predict(1.0, 0.1, shift=Shift(-40.0, 0.0, 0.5, 1.0))
    plain = motion.predict(1.0, 0.1)
    assert (wild.lat, wild.lon) == (plain.lat, plain.lon)
    np.testing.assert_array_equal(wild.covariance, plain.covariance)


def test_a_track_goes_on_over_the_antimeridian():
    origin = (10.0, 179.9995)
    motion = Motion.start(fix(0, 0, 1.0, origin), 30.0)
    for second in range(1, 30):
        motion = motion.predict(1.0, 0.1).update(fix(10.0 * second, 0.0, 1.0, origin))
    assert -180 <= motion.lon < -179.99
    np.testing.assert_allclose(metres(motion, origin), [290, 0], atol=1)


def test_the_gate_is_the_chi_square_quantile():
    """Brute force: 99 of 100 fixes of the expected kind pass, however the ellipse lies."""
    rng = np.random.default_rng(2)
    covariance = np.array([[90.0, 40.0], [40.0, 30.0]])
    gaps = rng.multivariate_normal([0, 0], covariance, 200_000)
    inverse = np.linalg.inv(covariance)
    brute = np.einsum("ni,ij,nj->n", gaps, inverse, gaps)
    assert np.mean(brute <= GATE) == pytest.approx(0.99, abs=0.001)
    np.testing.assert_allclose([squared_distance(gap, covariance) for gap in gaps[:100]], brute[:100])


def test_the_density_has_unit_mass():
    covariance = np.array([[9.0, 4.0], [4.0, 5.0]])
    axis = np.arange(-20, 20, 0.5)
    mass = sum(gaussian_density(np.array([x, y]), covariance) for x in axis for y in axis) * 0.25
    assert mass == pytest.approx(1, abs=1e-3)


def test_two_photos_at_almost_the_same_moment_tell_no_speed():
    motion = Motion.start(fix(sigma_m=5.0), 30.0).predict(1e-200, 1.0, shift=Shift(1.0, 0.0, 0.5, 1.0))
    assert np.isfinite([motion.lat, motion.lon, *motion.velocity_m_s]).all()
    assert np.isfinite(motion.covariance).all()
