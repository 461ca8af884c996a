"""What is said of paired differences, against a t-table and by hand."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("paired", ROOT / "benchmarks" / "paired.py")
paired = importlib.util.module_from_spec(spec)
spec.loader.exec_module(paired)
compare, difference, steps_to_90_percent = paired.compare, paired.difference, paired.steps_to_90_percent

#: Four seeds whose means are 1, 2, 3, 4 points: mean 2.5, standard error 0.6455; 3.182 is t at 0.975 and 3 degrees.
GAP = np.repeat(np.arange(1.0, 5.0)[:, None], 50, axis=1)


def test_the_interval_is_that_of_the_t_table():
    mean, by_seeds, p, by_places, verdict = compare(GAP)
    assert mean == "+2.50"
    assert by_seeds == f"{2.5 - 3.182 * 0.6455:+.2f} … {2.5 + 3.182 * 0.6455:+.2f}"
    assert float(p) == pytest.approx(0.030, abs=0.001)  # t = 3.873
    assert by_places == "+2.50 … +2.50"  # all places alike: a bootstrap over them has nothing to vary
    assert verdict == "differ"


@pytest.mark.parametrize(
    ("scale", "shift", "expected"),
    [(0.05, 0.0, "equivalent"), (0.05, 0.3, "differ, equivalent"), (3.0, 0.0, "not shown"), (0.05, 2.0, "differ")],
)
def test_equal_different_and_unknown_are_told_apart(scale, shift, expected):
    seeds = np.array([-1.0, 1.0, -0.5, 0.5, 0.2, -0.2]) * scale + shift
    assert compare(np.repeat(seeds[:, None], 9, axis=1))[-1] == expected


def test_places_vary_the_bootstrap():
    places = np.where(np.arange(400) < 200, 10.0, 0.0)
    low, high = (float(x) for x in compare(np.stack([places, places + 0.1]))[3].split(" … "))
    assert (low, high) == pytest.approx((5.05 - 1.96 * 0.25, 5.05 + 1.96 * 0.25), abs=0.06)  # 5 / √400


def test_differences_are_points_of_the_chosen_places():
    run, other = {"ap": [0.5, 0.7, 1.0]}, {"ap": [0.4, 0.9, 0.0]}
    np.testing.assert_allclose(difference(run, other, "ap", np.array([True, True, False])), [10.0, -20.0])


def test_steps_to_90_percent_of_the_last_ap():
    assert steps_to_90_percent([[50, 0.2], [100, 0.45], [150, 0.44], [200, 0.5]]) == 100


def test_the_documented_differences_are_those_of_the_kept_runs():
    """Every row of differences in docs/methods.md, worked out again from benchmarks/dphr.jsonl."""
    lines = [json.loads(line) for line in (ROOT / "benchmarks" / "dphr.jsonl").read_text().splitlines()]
    runs = {(line["arm"], line["seed"]): line for line in lines}
    places, dated = len(lines[0]["ap"]), lines[0]["dated"]
    groups = {"same date": np.arange(places) < places - dated, "other date": np.arange(places) >= places - dated}
    text = (ROOT / "docs" / "methods.md").read_text()
    rows = re.findall(r"^\| (\w+) \S (\w+) \| (same date|other date) \| (AP|R@1) \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) == 24  # six pairs of arms, two kinds of place, two measures
    for a, b, kind, name, said in rows:
        seeds = sorted({s for arm, s in runs if arm == a} & {s for arm, s in runs if arm == b})
        measure = {"AP": "ap", "R@1": "recall@1"}[name]
        gap = np.array([difference(runs[a, s], runs[b, s], measure, groups[kind]) for s in seeds])
        assert said.split(" | ") == list(compare(gap)), (a, b, kind, name)
