"""The tables of re-ranking are made through the service's own steps."""

import importlib.util
from pathlib import Path

spec = importlib.util.spec_from_file_location("refine", Path(__file__).parents[2] / "benchmarks" / "refine.py")
refine = importlib.util.module_from_spec(spec)
spec.loader.exec_module(refine)


def test_a_turned_photo_is_laid_where_it_was_taken():
    side, turns, tiles, *_, agreeing, off_m = refine.times(24, 4, 10, rounds=1).split()
    assert (side, turns, tiles) == ("24", "4", "10")
    assert int(agreeing) > 100
    assert float(off_m) < 1


def test_the_same_ground_agrees_more_than_chance():
    _, _, chance, most_by_chance, fewest, _ = map(float, refine.counts(24, 6.0, rounds=1).split())
    assert chance <= most_by_chance < fewest
