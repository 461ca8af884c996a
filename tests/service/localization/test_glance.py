import numpy as np
import pytest

from service.ground.local_maps import to_int8
from service.localization.glance import CHUNK, LIKENESS_WEIGHT, best_looking, likeness


def unit_maps(rng, *shape):
    maps = rng.normal(size=shape)
    return (maps / np.linalg.norm(maps, axis=-3, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("turns", [1, 4])
def test_likeness_is_that_of_brute_force(turns):
    """Cells 2, 4, … 24 of 28 in both directions: every second one of those within the border of 28 / 14."""
    rng = np.random.default_rng(turns)
    photo, tiles = unit_maps(rng, turns, 8, 28, 28), [to_int8(each) for each in unit_maps(rng, CHUNK + 3, 8, 28, 28)]
    found = likeness(photo, tiles)
    chosen = [(row, column) for row in range(2, 26, 2) for column in range(2, 26, 2)]
    for n in (0, CHUNK - 1, CHUNK, CHUNK + 2):
        stored = [tiles[n][:, row, column] / np.linalg.norm(tiles[n][:, row, column]) for row, column in chosen]
        for turn in range(turns):
            best = [max(cell @ photo[turn, :, row, column] for cell in stored) for row, column in chosen]
            assert found[n, turn] == pytest.approx(np.mean(best), abs=1e-5)


def test_score_and_likeness_are_weighed_by_their_spread():
    scores, alike = np.array([0.9, 0.7, 0.8, 0.6]), np.array([0.50, 0.56, 0.52, 0.58], np.float32)
    promise = (scores - 0.75) / np.std(scores) + LIKENESS_WEIGHT * (alike - 0.54) / np.std(alike)
    assert best_looking(list(scores), alike, 3) == list(np.argsort(-promise)[:3])


def test_equal_candidates_keep_their_order():
    assert best_looking([0.5] * 4, np.full(4, 0.3, np.float32), 4) == [0, 1, 2, 3]
