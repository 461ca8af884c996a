"""Differences between arms that share their seeds: what seeds say (paired t-test), what places say (bootstrap)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats

#: Differences within this many points count as none: a tenth of what papers of this field claim for a method.
EQUIVALENT_POINTS = 1.0
BOOTSTRAPS, SEED = 10_000, 1
#: What is compared: the claim first.
COMPARISONS = (("dphr", "plain"), ("dphr", "host"), ("plain", "host"))
MEASURES = ("ap", "recall@1")


def show(lines: list[dict[str, Any]], dated: NDArray[np.bool_]) -> None:
    """Print a table of arms and one of differences.

    Args:
        lines: a run each: ``arm``, ``seed``, ``ap`` and ``recall@1`` of each place, and ``curve`` of steps and AP.
        dated: ``[Q]``, whether a place's photos are of another date than its tile.
    """
    runs = {(line["arm"], line["seed"]): line for line in lines}
    arms = list(dict.fromkeys(line["arm"] for line in lines))
    groups = {"same date": ~dated, "other date": dated}
    table = Table(title="points; mean ± standard deviation over seeds")
    columns = (f"{name}, {kind}" for kind in groups for name in ("AP", "R@1"))
    for column in ("arm", "seeds", *columns, "steps to 90 %", "core minutes"):
        table.add_column(column)
    for arm in arms:
        mine = [line for line in lines if line["arm"] == arm]
        cells = [spread([points(r, m, g) for r in mine]) for g in groups.values() for m in MEASURES]
        steps = spread([steps_to_90_percent(r["curve"]) for r in mine], digits=0)
        table.add_row(arm, str(len(mine)), *cells, steps, f"{np.median([r['cpu_minutes'] for r in mine]):.0f}")
    Console(width=150).print(table)
    _show_differences(runs, arms, groups)


def _show_differences(
    runs: dict[tuple[str, int], dict[str, Any]], arms: list[str], groups: dict[str, NDArray[np.bool_]]
) -> None:
    table = Table(title=f"paired differences, points; equivalent: within ± {EQUIVALENT_POINTS:g}, at p < 0.05")
    for column in (
        "arms",
        "seeds",
        "places",
        "measure",
        "difference",
        "95 % by seeds",
        "p",
        "95 % by places",
        "verdict",
    ):
        table.add_column(column)
    others = tuple((arm, "host") for arm in arms if arm not in {"host", "plain", "dphr"})
    for a, b in (*COMPARISONS, *others):
        seeds = sorted({seed for arm, seed in runs if arm == a} & {seed for arm, seed in runs if arm == b})
        if len(seeds) < 2:
            continue
        for kind, chosen in groups.items():
            for measure in MEASURES:
                gap = np.array([difference(runs[a, s], runs[b, s], measure, chosen) for s in seeds])
                table.add_row(f"{a} - {b}", str(len(seeds)), kind, measure, *compare(gap))
    if table.row_count:
        Console(width=150).print(table)


def compare(gap: NDArray[np.float64]) -> tuple[str, str, str, str, str]:
    """Tell what to say of differences ``[seeds, places]`` in points.

    Returns:
        The mean; its 95 % interval and p by a paired t-test over seeds; its 95 % interval by a bootstrap over places;
        and whether the arms differ, are equivalent (two one-sided tests), or neither is shown.
    """
    by_seed = gap.mean(1)
    test = stats.ttest_1samp(by_seed, 0.0)
    low, high = test.confidence_interval(0.95)
    bounds = ((-EQUIVALENT_POINTS, "greater"), (EQUIVALENT_POINTS, "less"))
    outside = max(stats.ttest_1samp(by_seed, bound, alternative=side).pvalue for bound, side in bounds)
    by_place = gap.mean(0)
    drawn = np.random.default_rng(SEED).integers(0, len(by_place), (BOOTSTRAPS, len(by_place)))
    least, most = np.percentile(by_place[drawn].mean(1), (2.5, 97.5))
    verdict = ["differ"] if test.pvalue < 0.05 else []
    verdict += ["equivalent"] if outside < 0.05 else []
    return (
        f"{by_seed.mean():+.2f}",
        f"{low:+.2f} … {high:+.2f}",
        f"{test.pvalue:.3f}" if test.pvalue >= 0.001 else "< 0.001",
        f"{least:+.2f} … {most:+.2f}",
        ", ".join(verdict) or "not shown",
    )


def difference(
    run: dict[str, Any], other: dict[str, Any], measure: str, chosen: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return ``[places]`` in points."""
    gap: NDArray[np.float64] = 100 * (np.array(run[measure]) - np.array(other[measure]))[chosen]
    return gap


def points(run: dict[str, Any], measure: str, chosen: NDArray[np.bool_]) -> float:
    """Return the mean over places, in points."""
    return float(100 * np.array(run[measure])[chosen].mean())


def steps_to_90_percent(curve: list[list[float]]) -> float:
    """Return the first judged step with at least 90 % of the last AP."""
    return next(step for step, ap in curve if ap >= 0.9 * curve[-1][1])


def spread(values: list[float], digits: int = 1) -> str:
    """Write ``mean ± standard deviation``; without the latter for a single value."""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"
