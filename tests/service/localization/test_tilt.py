import cmath
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from service.camera.attitude import Attitude
from service.camera.look import Look
from service.camera.pinhole import Pinhole, apply, similarity_matrix
from service.encoder.calibration import MIN_INLIERS
from service.localization.matching import cell_centres, fit_similarity
from service.localization.refine import matched_position
from service.localization.rerank import Matches, Ranking, Seen
from service.localization.tilt import centre_sigma, fit_tilted

SIDE_M, CELLS = 86.0, 24
GRID = cell_centres(CELLS, CELLS)
TOLERANCE_M = np.full(len(GRID), 1.5 * SIDE_M / CELLS)
SCALES = (0.4 * SIDE_M, 2.5 * SIDE_M)


def ground_seen(points, *, pitch_deg, heading_deg, centre_m=0j, hfov_deg=60.0):
    """Where the rays of a pinhole camera, its square a tile wide, meet the ground."""
    half, pitch = math.tan(math.radians(hfov_deg / 2)), math.radians(pitch_deg)
    distance_m = SIDE_M / 2 / half
    right, up = 2 * half * points.real, 2 * half * points.imag
    down = math.sin(pitch) - up * math.cos(pitch)
    ahead = math.cos(pitch) + up * math.sin(pitch)
    height_m = distance_m * math.sin(pitch)
    on_axis = height_m * (right + 1j * ahead) / down - 1j * distance_m * math.cos(pitch)
    return centre_m + cmath.rect(1, -math.radians(heading_deg)) * on_axis


def spoil(ground, seed, noise_m=1.0, outliers=0.3):
    """Matches as descriptors make them: off by a metre, and a third of them anywhere."""
    rng = np.random.default_rng(seed)
    noisy = ground + noise_m * (rng.normal(size=len(ground)) + 1j * rng.normal(size=len(ground)))
    anywhere = SIDE_M * (rng.uniform(-1, 1, len(ground)) + 1j * rng.uniform(-1, 1, len(ground)))
    return np.where(rng.random(len(ground)) < outliers, anywhere, noisy)


def level(target):
    return fit_similarity(GRID, target, TOLERANCE_M, SCALES)


@settings(max_examples=30, deadline=None)
@given(
    pitch_deg=st.floats(45, 70),
    heading_deg=st.floats(0, 360),
    shift=st.tuples(st.floats(0, 0.4), st.floats(0, 2 * math.pi)),
    seed=st.integers(0, 999),
)
def test_a_tilted_view_is_laid_on_the_ground(pitch_deg, heading_deg, shift, seed):
    centre_m = SIDE_M * cmath.rect(*shift)
    target = spoil(ground_seen(GRID, pitch_deg=pitch_deg, heading_deg=heading_deg, centre_m=centre_m), seed)
    fit = level(target)
    found = fit_tilted(fit, GRID, target, TOLERANCE_M)
    assert abs(found.centre - centre_m) < 0.6
    assert abs((90 - math.degrees(cmath.phase(found.up)) - heading_deg + 180) % 360 - 180) < 2
    assert abs(found.right) == pytest.approx(SIDE_M, rel=0.03)
    assert abs(found.up) == pytest.approx(SIDE_M / math.sin(math.radians(pitch_deg)), rel=0.05)
    assert found.inliers.sum() > fit.count


def test_without_noise_it_is_exact():
    target = ground_seen(GRID, pitch_deg=50, heading_deg=30, centre_m=10 + 5j)
    found = fit_tilted(level(target), GRID, target, TOLERANCE_M)
    np.testing.assert_allclose(found(GRID), target, atol=1e-6)
    step = 1e-6  # slopes by finite differences
    ahead = ground_seen(np.array([0, step, 1j * step]), pitch_deg=50, heading_deg=30, centre_m=10 + 5j)
    assert abs(found.right - (ahead[1] - ahead[0]) / step) < 1e-3
    assert abs(found.up - (ahead[2] - ahead[0]) / step) < 1e-3
    assert found.inliers.all()


@pytest.mark.parametrize("seed", range(20))
def test_a_view_straight_down_stays_a_similarity(seed):
    target = spoil(ground_seen(GRID, pitch_deg=90, heading_deg=200), seed)
    assert fit_tilted(level(target), GRID, target, TOLERANCE_M) is None


@pytest.mark.parametrize("pitch_deg", [-90.0, -45.0])
def test_the_centre_errs_as_the_matches_say(pitch_deg):
    """Against what hundreds of draws of their errors do to it."""
    rng = np.random.default_rng(0)
    view = Pinhole(Attitude.of_angles(30.0, pitch_deg), 60.0, 1.0)
    points = rng.uniform(-0.5, 0.5, 60) + 1j * rng.uniform(-0.5, 0.5, 60)
    matrix = np.diag([80.0, 80.0, 1.0]) @ view.to_ground
    matrix = matrix / matrix[2, 2]
    ground, sigma = apply(matrix, points), np.full(60, 0.5)
    drawn = []
    for _ in range(300):
        off = 0.5 * (rng.standard_normal(60) + 1j * rng.standard_normal(60))
        fitted = fit_homography(points, ground + off, matrix)
        drawn.append(complex(fitted[0, 2], fitted[1, 2]) - complex(matrix[0, 2], matrix[1, 2]))
    seen = np.sqrt(np.mean(np.abs(drawn) ** 2) / 2)
    assert centre_sigma(matrix, points, sigma) == pytest.approx(seen, rel=0.1)


def test_matches_in_a_line_do_not_tell_where_the_centre_lies():
    assert centre_sigma(np.eye(3), np.linspace(-0.5, 0.5, 30) * (1 + 0.3j), np.ones(30)) == math.inf


def fit_homography(points, ground, start):
    """Least squares by scipy's optimiser, from the truth."""

    def off(numbers):
        east_north = apply(np.append(numbers, 1.0).reshape(3, 3), points) - ground
        return np.concatenate([east_north.real, east_north.imag])

    return np.append(least_squares(off, start.ravel()[:8], x_scale="jac").x, 1.0).reshape(3, 3)


def test_few_matches_are_not_asked():
    few = slice(None, None, len(GRID) // 15)
    target = ground_seen(GRID, pitch_deg=50, heading_deg=0)[few]
    fit = fit_similarity(GRID[few], target, TOLERANCE_M[few], SCALES)
    assert fit_tilted(fit, GRID[few], target, TOLERANCE_M[few]) is None


@pytest.mark.parametrize("pitch_deg", [45, 60])
@pytest.mark.parametrize("turned_deg", [0, 45, 130, 300])
def test_the_heading_of_a_tilted_photo_that_was_turned_north_up(hit, calibration, pitch_deg, turned_deg):
    """What lies above the square's centre was ``turned_deg`` left of the photo's own top before the turn."""
    turn = cmath.rect(1, math.radians(turned_deg))
    seen = Seen(Look(similarity_matrix(turn, 0j), 1.5), np.zeros((1, 1, 1, 1), np.float32))
    target = spoil(ground_seen(turn * GRID, pitch_deg=pitch_deg, heading_deg=turned_deg + 10), 0)
    found = replace(hit(0.9), inliers=300)
    fit = fit_similarity(GRID, target, TOLERANCE_M, SCALES)
    matches = Matches(GRID, target, TOLERANCE_M, seen, fit, 300.0)
    ranking = Ranking([found], [0.9], [matches], calibration, [300.0], [])
    fix = matched_position(ranking, MIN_INLIERS)
    assert abs((fix.heading_deg - turned_deg - 10 + 180) % 360 - 180) < 2
    across = Look(similarity_matrix(1 + 0j, 0j), 1.5)  # of the photo as it was taken
    assert abs(fix.steps_m(across)[0]) == pytest.approx(SIDE_M, rel=0.03)


@pytest.mark.parametrize("direction", [1, 1j, 1 + 1j])
def test_matches_in_a_line_tell_no_tilt(direction):
    """Ground of which a single row of cells was found: no homography follows, and nothing fails."""
    source = np.linspace(-0.3, 0.3, 30) * direction
    target = ground_seen(source, pitch_deg=50, heading_deg=30)
    fit = fit_similarity(source, target, TOLERANCE_M[:30], SCALES)
    assert fit_tilted(fit, source, target, TOLERANCE_M[:30]) is None
