"""The worst failures of a task, with their pictures and captions, ready to be drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from training.data.base import Images
from training.evaluation.embed import as_bytes
from training.evaluation.metrics import distance_m
from training.evaluation.protocol import Outcome

ANSWERS = 5
#: Side of a thumbnail, px.
THUMBNAIL_PX = 192

Mark = Literal["query", "truth", "right", "part", "wrong"]


@dataclass(frozen=True)
class Shot:
    """One picture.

    Attributes:
        picture: thumbnail, square.
        mark: what it is; answers are ``right``, ``part`` (semi-positive) or ``wrong``.
        title: such as ``answer 1``.
        name: file name or id.
        facts: short lines: place, score, distance.
    """

    picture: Image.Image
    mark: Mark
    title: str
    name: str
    facts: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """A query whose first answer is wrong.

    Attributes:
        query: row of the query.
        rank: of its first positive, 1 being the best.
        shots: query, truth, and the first answers.
    """

    query: int
    rank: int
    shots: tuple[Shot, ...]


def worst_failures(outcome: Outcome, count: int) -> list[Failure]:
    """Return failures whose first positive ranks lowest, worst first; queries without one have no truth to show."""
    first, answerable = outcome.ranking.first, outcome.ranking.truth >= 0
    failed = np.flatnonzero((first > 0) & answerable)
    worst = failed[np.argsort(-first[failed], kind="stable")][:count]
    return [Failure(int(query), int(first[query]) + 1, _shots(outcome, int(query))) for query in worst]


def _shots(outcome: Outcome, query: int) -> tuple[Shot, ...]:
    task, ranking = outcome.task, outcome.ranking
    truth = int(ranking.truth[query])
    shots = [_shot(task.queries, query, "query", "query", ())]
    score = _score(ranking.truth_score[query])
    shots.append(_shot(task.gallery, truth, "truth", "truth", (score, *_away(outcome, query, truth))))
    semis = task.semi_positives[query] if task.semi_positives is not None else ()
    for i, row in enumerate(ranking.top[query, :ANSWERS]):
        mark: Mark = "right" if row in task.positives[query] else "part" if row in semis else "wrong"
        facts = (_score(ranking.top_score[query, i]), *_away(outcome, query, int(row)))
        shots.append(_shot(task.gallery, int(row), mark, f"answer {i + 1}", facts))
    return tuple(shots)


def _shot(images: Images, row: int, mark: Mark, title: str, facts: tuple[str, ...]) -> Shot:
    picture = Image.fromarray(as_bytes(images.load([row]))[0].numpy())
    picture = picture.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    return Shot(picture, mark, title, images.name[row], (f"place {images.place[row]}", *facts))


def _score(score: float) -> str:
    return f"score {score:.3f}"


def _away(outcome: Outcome, query: int, row: int) -> tuple[str, ...]:
    """How far a gallery image lies from the query, when both have positions."""
    asked, held = outcome.task.queries.position, outcome.task.gallery.position
    if asked is None or held is None:
        return ()
    metres = float(distance_m(asked[query], held[row]))
    return (f"{metres:.0f} m away" if metres < 1000 else f"{metres / 1000:.1f} km away",)
