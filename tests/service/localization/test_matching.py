import cmath
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoder.calibration import MIN_INLIERS
from service.localization.matching import Similarity, cell_centres, fit_similarity, mutual_neighbours

SIDE_M, CELLS = 86.0, 24
CELL_M = SIDE_M / CELLS
GRID = cell_centres(CELLS, CELLS)
SCALES = (0.4 * SIDE_M, 2.5 * SIDE_M)


def fit(photo, tile, cells=CELLS):
    """Match two maps of descriptors ``[C, cells²]``; the tile's cells lie on the ground round the origin."""
    grid = cell_centres(cells, cells)
    of_photo, of_tile = mutual_neighbours(photo.astype(np.float32), tile.astype(np.float32))
    tolerance = np.full(len(of_tile), 1.5 * SIDE_M / cells)
    return fit_similarity(grid[of_photo], SIDE_M * grid[of_tile], tolerance, SCALES)


def test_cells_are_listed_row_by_row_from_the_top_left():
    top = [-3 / 8 + 1j / 4, -1 / 8 + 1j / 4, 1 / 8 + 1j / 4, 3 / 8 + 1j / 4]
    np.testing.assert_allclose(cell_centres(2, 4), [*top, *(cell - 1j / 2 for cell in top)])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_mutual_neighbours_are_those_of_brute_force(cells, others, seed):
    rng = np.random.default_rng(seed)
    photo, tile = (rng.normal(size=(6, n)).astype(np.float32) for n in (cells, others))
    expected = set()
    for q in range(others):
        p = max(range(cells), key=lambda p: photo[:, p] @ tile[:, q])
        if max(range(others), key=lambda other: photo[:, p] @ tile[:, other]) == q:
            expected.add((p, q))
    assert set(zip(*mutual_neighbours(photo, tile), strict=True)) == expected


@settings(max_examples=60, deadline=None)
@given(
    turn_deg=st.floats(-180, 180),
    scale=st.floats(0.6, 1.8),
    shift=st.tuples(st.floats(0, 0.5), st.floats(0, 2 * math.pi)),
    seed=st.integers(0, 999),
)
def test_turn_scale_and_shift_are_found(ground_of, spoil, turn_deg, scale, shift, seed):
    ground = ground_of(seed)
    a, b = cmath.rect(scale * SIDE_M, math.radians(turn_deg)), SIDE_M * cmath.rect(*shift)
    found = fit(spoil(ground(a * GRID + b), seed), ground(SIDE_M * GRID))
    assert found.count > MIN_INLIERS
    assert 0 < found.residual < 1
    assert abs(found.b - b) < CELL_M
    assert abs((found.rotation_deg - turn_deg + 180) % 360 - 180) < 4
    assert found.scale == pytest.approx(scale * SIDE_M, rel=0.06)


def test_typical_errors_are_a_fraction_of_a_cell(ground_of, spoil):
    rng, errors = np.random.default_rng(0), []
    for seed in range(40):
        a, b = cmath.rect(SIDE_M * rng.uniform(0.6, 1.8), rng.uniform(0, 7)), SIDE_M * rng.uniform(-0.3, 0.3)
        ground = ground_of(seed)
        errors.append(abs(fit(spoil(ground(a * GRID + b), seed), ground(SIDE_M * GRID)).b - b))
    assert np.median(errors) < 0.15 * CELL_M


@pytest.mark.parametrize("cells", [24, 32])
@pytest.mark.parametrize("grain_m", [1.0, 4.0, 12.0])
def test_unrelated_ground_does_not_match(ground_of, cells, grain_m):
    grid = cell_centres(cells, cells)
    for seed in range(30):
        photo, tile = (ground_of(number, grain_m)(SIDE_M * grid) for number in (seed, 1000 + seed))
        found = fit(photo, tile, cells)
        assert found is None or found.count < MIN_INLIERS


def test_of_mirrored_ground_only_the_axis_matches(ground_of):
    """Two cells on either side of a line through the middle lie within the tolerance of their mirror image."""
    ground = ground_of(1)
    tile = ground(SIDE_M * GRID)
    assert fit(tile, tile).count == CELLS * CELLS
    assert fit(ground(SIDE_M * GRID.conj()), tile).count <= 4 * CELLS


def test_ground_of_one_look_does_not_match():
    flat = np.ones((64, CELLS * CELLS)) / 8
    found = fit(flat, flat)
    assert found is None or found.count < MIN_INLIERS


@pytest.mark.parametrize("scale", [0.3, 3.3])
def test_a_scale_out_of_range_is_never_given(ground_of, scale):
    ground = ground_of(2)
    found = fit(ground(scale * SIDE_M * GRID), ground(SIDE_M * GRID))
    assert found is None or SCALES[0] <= found.scale <= SCALES[1]


def test_the_same_maps_give_the_same_answer(ground_of, spoil):
    ground = ground_of(3)
    photo, tile = spoil(ground(SIDE_M * GRID + 9), 1), ground(SIDE_M * GRID)
    one, two = fit(photo, tile), fit(photo, tile)
    assert (one.a, one.b, one.residual) == (two.a, two.b, two.residual)
    np.testing.assert_array_equal(one.inliers, two.inliers)


@given(st.integers(0, 2**32 - 1))
def test_the_fit_is_the_weighted_least_squares_of_its_inliers(seed):
    """Against NumPy's solver, in real numbers: a.re·x − a.im·y + b.re = right, a.im·x + a.re·y + b.im = up."""
    rng = np.random.default_rng(seed)
    source = rng.uniform(-0.5, 0.5, 60) + 1j * rng.uniform(-0.5, 0.5, 60)
    tolerance = rng.uniform(0.02, 0.1, 60)
    target = cmath.rect(1.3, 2.0) * source + 0.2j + 0.3 * tolerance * (rng.normal(size=60) + 1j * rng.normal(size=60))
    target[:20] = rng.uniform(-1, 1, 20)
    found = fit_similarity(source, target, tolerance, (0.4, 2.5))
    z, t, w = (values[found.inliers] for values in (source, target, 1 / tolerance))
    ones, zeros = np.ones(len(z)), np.zeros(len(z))
    rows = np.vstack([np.column_stack([z.real, -z.imag, ones, zeros]), np.column_stack([z.imag, z.real, zeros, ones])])
    weights = np.concatenate([w, w])
    solution = np.linalg.lstsq(rows * weights[:, None], np.concatenate([t.real, t.imag]) * weights, rcond=None)[0]
    np.testing.assert_allclose([found.a.real, found.a.imag, found.b.real, found.b.imag], solution, atol=1e-9)
    off = np.abs(found.a * source + found.b - target) / tolerance
    assert found.residual == pytest.approx(np.sqrt(np.mean(off[found.inliers] ** 2)))
    assert found.count >= 30


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_matches_that_determine_nothing(count):
    here = np.zeros(count, np.complex128)
    assert fit_similarity(here, here, np.ones(count), (0.4, 2.5)) is None


def test_what_a_similarity_says_of_itself():
    found = Similarity(cmath.rect(2.0, math.radians(30)), 1j, np.array([True, False, True]), 0.4)
    assert (found.scale, found.rotation_deg, found.count) == (pytest.approx(2), pytest.approx(30), 2)


def test_a_turn_that_cannot_be_is_not_found():
    """A third of the matches agree on a quarter turn, a sixth on none: the more is found unless no turn is expected."""
    rng = np.random.default_rng(0)
    source = rng.uniform(-0.5, 0.5, 180) + 1j * rng.uniform(-0.5, 0.5, 180)
    target = rng.uniform(-50, 50, 180) + 1j * rng.uniform(-50, 50, 180)
    target[:60], target[60:90] = 100j * source[:60], 100 * source[60:90]
    free = fit_similarity(source, target, np.full(180, 1.0), (40, 250))
    level = fit_similarity(source, target, np.full(180, 1.0), (40, 250), 1 + 0j, 30.0)
    assert (free.rotation_deg, level.rotation_deg) == pytest.approx((90, 0), abs=0.1)
    assert free.count >= 60 > level.count >= 30
