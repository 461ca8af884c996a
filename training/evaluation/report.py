"""The sheet of failures: a folder with index.html, thumbnails and sheet.png that needs no network and no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from training.evaluation.failures import Failure, Shot, worst_failures
from training.evaluation.protocol import Outcome
from training.evaluation.sheet import draw_sheet
from training.evaluation.tables import (
    Found,
    further_tables,
    position_rows,
    retrieval_rows,
    robustness_rows,
    spatial_rows,
)

#: Failures shown of each task in the page, and in the picture.
SHOWN, DRAWN = 24, 8
MARKS = {"query": "", "truth": "", "right": "✓ right", "part": "~ part of the place", "wrong": "✗ wrong"}

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<h1>{title}</h1>
{tables}
{sections}
</body>
</html>
"""


def write_report(
    folder: Path,
    title: str,
    outcomes: Sequence[Outcome],
    grids: Mapping[str, Mapping[str, Any]] | None = None,
    found: Found | None = None,
) -> None:
    """Write ``index.html``, ``thumbnails/*.jpg`` and ``sheet.png``; files of an earlier report are overwritten.

    Args:
        folder: made if it is missing.
        title: what was judged on what.
        outcomes: everything measured, for the tables; each task's first outcome gives its failures.
        grids: robustness by task.
        found: what was measured further.
    """
    thumbnails = folder / "thumbnails"
    thumbnails.mkdir(parents=True, exist_ok=True)
    shown = list({outcome.task.name: outcome for outcome in reversed(outcomes)}.values())[::-1]
    failures = [worst_failures(outcome, SHOWN) for outcome in shown]
    sections = []
    for number, (outcome, worst) in enumerate(zip(shown, failures, strict=True)):
        grid = (grids or {}).get(outcome.task.name)
        sections.append(_section(outcome, worst, number, thumbnails) + (_robustness(grid) if grid else ""))
    page = PAGE.format(
        title=escape(title),
        style=Path(__file__).with_name("report.css").read_text(encoding="utf-8"),
        tables="".join(_table(rows(outcomes)) for rows in (retrieval_rows, position_rows, spatial_rows))
        + "".join(_further(heading, rows) for heading, rows in further_tables(found or {})),
        sections="\n".join(sections),
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    drawn = [(_heading(outcome), worst[:DRAWN]) for outcome, worst in zip(shown, failures, strict=True)]
    draw_sheet(title, drawn).save(folder / "sheet.png")


def _heading(outcome: Outcome) -> str:
    return f"{outcome.task.name.replace('_', ' ')}, {outcome.protocol} gallery"


def _section(outcome: Outcome, worst: list[Failure], number: int, thumbnails: Path) -> str:
    missed = round((1 - outcome.metrics["recall@1"]) * outcome.counts["queries"])
    note = f"{missed} of {outcome.counts['queries']} queries are not answered right at once"
    note += f"; the worst {len(worst)} of them, worst first." if worst else "."
    articles = [_article(failure, number, outcome.counts["gallery"], thumbnails) for failure in worst]
    return "\n".join([f"<h2>{escape(_heading(outcome))}</h2>\n<p>{note}</p>", *articles])


def _robustness(grid: Mapping[str, Any]) -> str:
    note = f"R@1 of {grid['queries']} queries, turned clockwise about their centre and cropped to a share of their area"
    return f"\n<p>{note}.</p>\n{_table(robustness_rows(grid))}"


def _further(heading: str, rows: list[list[str]]) -> str:
    return f"\n<p>{escape(heading[0].upper() + heading[1:])}.</p>\n{_table(rows)}" if len(rows) > 1 else ""


def _article(failure: Failure, number: int, gallery: int, thumbnails: Path) -> str:
    figures = []
    for i, shot in enumerate(failure.shots):
        file = f"{number}-{failure.query}-{i}.jpg"  # names of a data set never become file names
        shot.picture.save(thumbnails / file, quality=88)
        figures.append(_figure(shot, f"{thumbnails.name}/{file}"))
    heading = f"right at rank {failure.rank} <span>of {gallery} · {escape(failure.shots[0].name)}</span>"
    return f'<article>\n<h3>{heading}</h3>\n<div class="shots">\n' + "\n".join(figures) + "\n</div>\n</article>"


def _figure(shot: Shot, link: str) -> str:
    title = " ".join(word for word in (shot.title, MARKS[shot.mark]) if word)
    facts = "".join(f"<br>{escape(fact)}" for fact in shot.facts)
    return (
        f'<figure class="{shot.mark}"><img src="{link}" width="192" height="192" loading="lazy" alt="{title}">'
        f'<figcaption><b>{title}</b><span class="name" title="{escape(shot.name)}">{escape(shot.name)}</span>'
        f"{facts.removeprefix('<br>')}</figcaption></figure>"
    )


def _table(rows: list[list[str]]) -> str:
    """A table from rows of cells, the first being the header; nothing when there is only that."""
    if len(rows) < 2:
        return ""
    head, *body = rows
    cells = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"]
    for first, *rest in body:
        cells.append(f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>")
    return '<div class="scroll"><table>\n' + "\n".join(cells) + "\n</table></div>\n"
