"""The likeness of a square and the ground at every place, against loops over all cells."""

import numpy as np
import pytest

from service.localization.correlation import correlate, halved, mean_of, peaks, standard, without


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def unit_cells(rng, *shape):
    cells = rng.normal(size=shape).astype(np.float32)
    return cells / np.linalg.norm(cells, axis=-3, keepdims=True)


def test_it_is_the_mean_cosine_of_all_cells_that_are_of_use(rng):
    square, ground = unit_cells(rng, 6, 4, 5), unit_cells(rng, 11, 6, 9, 10)
    shown, there = rng.random((4, 5)) < 0.8, rng.random((11, 9, 10)) < 0.9
    found = correlate(square * shown, shown, ground * there[:, None], there)
    assert found.shape == (11, 6, 6)
    for n, i, j in np.ndindex(found.shape):
        used = shown & there[n, i : i + 4, j : j + 5]
        if used.sum() < 0.6 * shown.sum():
            assert found[n, i, j] == -np.inf
        else:
            cosines = (square * ground[n, :, i : i + 4, j : j + 5]).sum(axis=0)
            assert found[n, i, j] == pytest.approx(cosines[used].mean(), abs=1e-5)


def test_what_all_descriptors_have_in_common_is_taken_out(rng):
    common = 3 * rng.normal(size=6).astype(np.float32)
    own = rng.normal(size=(2, 6, 8, 8)).astype(np.float32)
    cells, of_use = own + common[:, None, None], rng.random((2, 8, 8)) < 0.7
    mean = mean_of(cells, of_use)
    np.testing.assert_allclose(mean, cells.transpose(0, 2, 3, 1)[of_use].mean(axis=0), rtol=1e-4)
    left = without(mean, cells, of_use)
    np.testing.assert_allclose(np.linalg.norm(left, axis=1), of_use, atol=1e-4)


def test_cells_are_halved_by_fours(rng):
    cells = rng.integers(-127, 128, (6, 5, 8)).astype(np.int8)
    of_use = np.zeros((5, 8), bool)
    of_use[0, :3] = of_use[1, 0] = True
    total, used = halved(cells, of_use)
    np.testing.assert_array_equal(total, cells[:, :4].astype(float).reshape(6, 2, 2, 4, 2).sum((2, 4)))
    assert used.tolist() == [[True, False, False, False], [False] * 4]


def test_peaks_are_the_best_places_that_are_not_next_to_better_ones(rng):
    scores = rng.random((2, 20, 20))
    scores[0, 4, 4], scores[0, 5, 6], scores[1, 0, 19] = 9, 8, 7
    assert peaks(scores, 2, apart=3) == [(0, 4, 4), (1, 0, 19)]
    assert peaks(np.full((1, 3, 3), -np.inf), 2, apart=1) == []
    scores[1, 3, 3] = -np.inf
    measured = standard(scores)
    finite = measured[np.isfinite(measured)]
    assert (len(finite), finite.mean(), finite.std()) == (799, pytest.approx(0, abs=1e-9), pytest.approx(1, abs=1e-6))
