"""Results as tables: rows of cells that the terminal and the report share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from training.evaluation.locate import WITHIN_M as LOCATED_WITHIN_M
from training.evaluation.metrics import WITHIN_M
from training.evaluation.protocol import Outcome

RETRIEVAL = {
    "R@1": "recall@1",
    "R@5": "recall@5",
    "R@10": "recall@10",
    "R@1%": "recall@1%",
    "AP": "ap",
    "AP plain": "ap_plain",
    "hit rate": "hit_rate",
}
#: Results of further measures, by task and name.
Found = Mapping[str, Mapping[str, Mapping[str, float]]]
#: Columns of text in a log file, whose width nobody knows.
FILE_WIDTH = 140


def retrieval_rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """Return a header and a row for each outcome, in percent; columns that nobody has are left out."""
    columns = {title: key for title, key in RETRIEVAL.items() if any(key in o.metrics for o in outcomes)}
    rows = [["task", "gallery", "queries", *columns]]
    for outcome in outcomes:
        cells = [_percent(outcome.metrics.get(key)) for key in columns.values()]
        size = f"{outcome.protocol}: {outcome.counts['gallery']:,}"
        rows.append([outcome.task.name, size, f"{outcome.counts['queries']:,}", *cells])
    return rows


def position_rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """Return a header and a row for each outcome with positions: metres of error, recall within metres."""
    rows = [["task", "gallery", "median", "mean", *(f"≤ {limit} m" for limit in WITHIN_M)]]
    for outcome in _located(outcomes):
        metres = [_metres(outcome.metrics[key]) for key in ("error_median_m", "error_mean_m")]
        shares = [_percent(outcome.metrics[f"within_{limit}m"]) for limit in WITHIN_M]
        rows.append([outcome.task.name, outcome.protocol, *metres, *shares])
    return rows


def spatial_rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """Return a header and a row for each outcome with positions: SDM@1, @3, @5 in percent, Dis@1, @3, @5."""
    located = _located(outcomes)
    names = [
        key[4:-2] for key in (located[0].metrics if located else {}) if key.startswith("sdm_") and key[-2:] == "@1"
    ]
    rows = [["task", "gallery", *(f"SDM@1/3/5 {name}" for name in names), "Dis@1/3/5"]]
    for outcome in located:
        shares = [" / ".join(_percent(outcome.metrics[f"sdm_{name}@{k}"]) for k in (1, 3, 5)) for name in names]
        metres = " / ".join(_metres(outcome.metrics[f"dis_m@{k}"]) for k in (1, 3, 5))
        rows.append([outcome.task.name, outcome.protocol, *shares, metres])
    return rows


def _located(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if "error_median_m" in outcome.metrics]


def robustness_rows(grid: Mapping[str, Any]) -> list[list[str]]:
    """Return a header and a row for each crop share, in percent."""
    rows = [["kept area", *(f"{rotation:g}°" for rotation in grid["rotations_deg"])]]
    for share, recalls in zip(grid["crop_shares"], grid["recall@1"], strict=True):
        rows.append([f"{share:.0%}", *(_percent(recall) for recall in recalls)])
    return rows


def further_tables(found: Found) -> list[tuple[str, list[list[str]]]]:
    """Return ``(title, rows)`` of what was measured further: metres in the right tile, consistency."""
    metres = [["task", "queries", "median", "mean", *(f"≤ {limit} m" for limit in LOCATED_WITHIN_M), "by its centre"]]
    alike = [["task", "OC over rotations", "FC over crops"]]
    for task, measured in found.items():
        if (located := measured.get("locate")) is not None:
            errors = [_metres(located[f"error_{key}_m"]) for key in ("median", "mean")]
            shares = [_percent(located[f"within_{limit}m"]) for limit in LOCATED_WITHIN_M]
            metres.append([task, f"{located['queries']:,.0f}", *errors, *shares, _metres(located["centre_median_m"])])
        if (scores := measured.get("consistency")) is not None:
            alike.append([task, f"{scores['orientation']:.3f}", f"{scores['coverage']:.3f}"])
    return [
        ("metres off within the right tile, by the heat map", metres),
        ("Grad-CAM maps of turned and cropped queries", alike),
    ]


def show(outcomes: Sequence[Outcome], grids: Mapping[str, Mapping[str, Any]], found: Found, title: str) -> None:
    """Print everything that was measured."""
    console = Console()
    if not console.is_terminal:
        console.width = FILE_WIDTH
    tables = [
        _table(retrieval_rows(outcomes), title),
        _table(position_rows(outcomes), "metres from the query to the first answer"),
        _table(spatial_rows(outcomes), "distances of the first K answers"),
    ]
    for name, grid in grids.items():
        heading = f"{name}: R@1 of {grid['queries']:,} turned and cropped queries, mean {_percent(grid['mean'])}"
        tables.append(_table(robustness_rows(grid), heading))
    tables += [_table(rows, heading) for heading, rows in further_tables(found)]
    console.print(Group(*(table for table in tables if table.row_count)))


def _table(rows: list[list[str]], title: str) -> Table:
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD)
    for cell in rows[0]:
        table.add_column(Text(cell), justify="left" if cell in ("task", "gallery", "kept area") else "right")
    for row in rows[1:]:
        table.add_row(*(Text(cell) for cell in row))  # Text: a data set's names may hold markup
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _metres(distance_m: float) -> str:
    return f"{distance_m:.1f} m"
