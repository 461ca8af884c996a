"""Which places are matched a second time."""

import numpy as np
import pytest

from service.camera.known import KnownCamera
from service.ground.records import Hit
from service.ground.windows import Lattice, pack
from service.localization.looks import plan_looks
from service.localization.matching import Similarity
from service.localization.rematch import PLACES, worth_a_second
from service.localization.rerank import Matches, Seen, ranked

LATTICE, ZOOM, ROW, COLUMN = Lattice(224), 18, 400_000, 900_000
TURNED = np.exp(0.7j)


def ranking_of(supports, calibration, apart=4):
    """Candidates so many windows apart, whose matches turn the photo by 40° and have this much support."""
    ids = pack(1, ZOOM, np.full(len(supports), ROW), COLUMN + apart * np.arange(len(supports)))
    hits = [
        Hit(tile, 0.5, None, "map", int(number))
        for tile, number in zip(LATTICE.tiles(ids, {1: "map"}), ids, strict=True)
    ]
    seen = Seen(plan_looks(KnownCamera(), "fast")[0].look(1.0), np.zeros((1, 64, 28, 28), np.float32))
    rng = np.random.default_rng(0)
    square = rng.uniform(-0.5, 0.5, 100) + 1j * rng.uniform(-0.5, 0.5, 100)
    matches = []
    for hit, support in zip(hits, supports, strict=True):
        a = TURNED * hit.tile.footprint.side_m
        fit = Similarity(a, 0j, np.ones(100, bool), 0.1)
        matches.append(Matches(square, a * square, np.full(100, 5.0), seen, fit, support))
    return ranked(hits, matches, calibration, [])


def chosen(shares, calibration, **options):
    """Which candidates are matched again, by their place in the order that is given."""
    supports = [share * calibration.local.min_inliers for share in shares]
    again = worth_a_second(ranking_of(supports, calibration, **options), calibration)
    first = pack(1, ZOOM, np.array([ROW]), np.array([COLUMN]))[0]
    return [(each.hit.number - int(first)) // options.get("apart", 4) for each in again]


def test_places_without_hope_are_left(calibration):
    assert chosen([1.2, 0.9, 0.7, 0.4, 0.1], calibration) == [0, 1, 2]
    assert chosen([0.4, 0.3], calibration) == []


def test_nothing_else_is_matched_again_beside_a_place_that_is_beyond_doubt(calibration):
    assert chosen([2.5, 0.9, 0.8], calibration) == [0]


def test_of_windows_of_one_place_the_best_is_matched_again(calibration):
    assert chosen([1.2, 1.1, 1.0, 0.9], calibration, apart=1) == [0, 3]


@pytest.mark.parametrize("count", [PLACES, 2 * PLACES])
def test_so_many_places_are_matched_again_at_the_most(calibration, count):
    assert chosen(np.linspace(1.5, 1.0, count), calibration) == list(range(PLACES))


def test_nothing_was_matched(calibration):
    assert worth_a_second(ranking_of([], calibration), calibration) == []
