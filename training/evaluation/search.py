"""Exhaustive search of a gallery in bounded memory, with scores that are exact and ties that are defined.

Scores are cosines of embeddings rounded to multiples of 2⁻²⁵, which moves a cosine by some 1e-8, less than float32
sums do. Products of such numbers are multiples of 2⁻⁵⁰ and, for unit vectors, every partial sum fits the 53 bits of a
float64: the sum is exact in whatever order it is formed. So equal images tie, and chunk size, BLAS and the number of
threads change nothing.

**A tie counts against the model**: a wrong image with the score of a right one comes first. A model that gives every
image the same embedding gets R@1 = 0 and not luck. Among equally right or wrong images the lower row comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training.errors import TrainingError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Embeddings = NDArray[np.float32]

#: Embeddings are rounded to multiples of its inverse; see the module's docstring.
GRID = 2.0**25
#: Scores held at once. A search needs little more besides the embeddings; nine times this if all scores tie.
CHUNK_BYTES = 64 << 20
#: Queries scored at once at the least: fewer would read the whole gallery too often.
FEWEST_QUERIES = 32
#: Gallery rows turned to float64 at once.
GALLERY_ROWS = 4096
#: Half-precision models miss unit length by less than this.
UNIT_TOLERANCE = 0.01


@dataclass(frozen=True)
class Ranking:
    """What the search found for ``Q`` queries; rows are gallery rows.

    Attributes:
        ranks: per query, the ranks of its positives, ascending; 0 is the first answer.
        top: ``[Q, K]`` the best rows, best first; K is cut to the size of the gallery.
        top_score: ``[Q, K]`` their cosines.
        truth: ``[Q]`` the positive with the highest score; -1 for queries without one.
        truth_score: ``[Q]`` its cosine; NaN for queries without one.
        hit: ``[Q]`` no image scores higher than the best positive, semi-positives aside; None without semi-positives.
    """

    ranks: list[Ints]
    top: Ints
    top_score: Floats
    truth: Ints
    truth_score: Floats
    hit: NDArray[np.bool_] | None

    @property
    def first(self) -> Ints:
        """``[Q]`` rank of the first positive; the largest int64 for queries without one."""
        never = np.iinfo(np.int64).max
        return np.array([ranks[0] if len(ranks) else never for ranks in self.ranks], np.int64)


def search(
    queries: Embeddings,
    gallery: Embeddings,
    positives: Sequence[Ints],
    semi_positives: Sequence[Ints] | None = None,
    *,
    top: int = 10,
    chunk_bytes: int = CHUNK_BYTES,
) -> Ranking:
    """Rank the whole gallery for every query, a chunk of queries at a time.

    Args:
        queries: ``[Q, D]`` of unit length.
        gallery: ``[G, D]`` of unit length.
        positives: per query, the rows that are right, each once.
        semi_positives: per query, the rows that the hit rate ignores (VIGOR).
        top: best rows to keep of each query.
        chunk_bytes: bound on the scores held at once, except that ``FEWEST_QUERIES`` are always taken.

    Raises:
        TrainingError: there is nothing to search, or embeddings are not of unit length.
    """
    check_embeddings(queries, "queries")
    check_embeddings(gallery, "gallery images")
    step = max(FEWEST_QUERIES, chunk_bytes // (8 * len(gallery)))
    parts = []
    for start in range(0, len(queries), step):
        chunk = slice(start, start + step)
        semis = None if semi_positives is None else semi_positives[chunk]
        parts.append(_rank(exact_scores(queries[chunk], gallery), positives[chunk], semis, min(top, len(gallery))))
    return Ranking(
        ranks=[ranks for part in parts for ranks in part.ranks],
        top=np.concatenate([part.top for part in parts]),
        top_score=np.concatenate([part.top_score for part in parts]),
        truth=np.concatenate([part.truth for part in parts]),
        truth_score=np.concatenate([part.truth_score for part in parts]),
        hit=None if semi_positives is None else np.concatenate([part.hit for part in parts if part.hit is not None]),
    )


def exact_scores(queries: Embeddings, gallery: Embeddings) -> Floats:
    """Return cosines ``[Q, G]`` without rounding errors of summation (see the module's docstring)."""
    scores = np.empty((len(queries), len(gallery)))
    ours = _on_grid(queries)
    for start in range(0, len(gallery), GALLERY_ROWS):
        rows = slice(start, start + GALLERY_ROWS)
        scores[:, rows] = ours @ _on_grid(gallery[rows]).T
    return scores


def check_embeddings(embeddings: Embeddings, name: str) -> None:
    """Refuse what cannot be ranked.

    Raises:
        TrainingError: there are none, or one is not of unit length (NaN is not, either).
    """
    if not len(embeddings):
        raise TrainingError(f"There are no {name} to search: check the folder of the data set.")
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings))
    wrong = np.flatnonzero(~(np.abs(length - 1) <= UNIT_TOLERANCE))
    if len(wrong):
        raise TrainingError(
            f"Embedding {wrong[0]} of the {name} has length {length[wrong[0]]:.3g}, not 1: the model is broken "
            "(did training diverge?), or its file breaks the contract. Evaluate an earlier checkpoint."
        )


def _on_grid(embeddings: Embeddings) -> Floats:
    return np.rint(embeddings.astype(np.float64) * GRID) / GRID


def _rank(scores: Floats, positives: Sequence[Ints], semis: Sequence[Ints] | None, top: int) -> Ranking:
    """The ranking of a chunk from its scores ``[q, G]``."""
    truth = np.full(len(scores), -1, np.int64)
    truth_score = np.full(len(scores), np.nan)
    hit = np.zeros(len(scores), np.bool_)
    ranks = []
    for i, (row, own) in enumerate(zip(scores, positives, strict=True)):
        ranks.append(_ranks(row, own))
        if len(own):
            truth[i] = own[row[own].argmax()]
            truth_score[i] = row[truth[i]]
            better = np.count_nonzero(row > truth_score[i])
            hit[i] = better == (0 if semis is None else np.count_nonzero(row[semis[i]] > truth_score[i]))
    best, best_score = _best(scores, positives, top)
    return Ranking(ranks, best, best_score, truth, truth_score, None if semis is None else hit)


def _ranks(row: Floats, own: Ints) -> Ints:
    """Ranks of the positives of one query: those before it, plus every wrong image that scores no less."""
    rising = np.sort(row[own])
    falling = rising[::-1]
    no_less = np.array([np.count_nonzero(row >= score) for score in falling], np.int64)
    right = len(own) - np.searchsorted(rising, falling, side="left")
    return np.arange(len(own)) + no_less - right


def _best(scores: Floats, positives: Sequence[Ints], top: int) -> tuple[Ints, Floats]:
    """``(rows, scores)``, each ``[q, top]``, in the order that the module's docstring defines."""
    bar = torch.from_numpy(scores).topk(top, dim=1).values[:, -1:].numpy()
    query, row = np.nonzero(scores >= bar)  # ties at the bar are all there: top or more of each query
    score = scores[query, row]
    size = scores.shape[1]
    right = np.isin(query * size + row, np.concatenate([i * size + own for i, own in enumerate(positives)]))
    order = np.lexsort((right, -score, query))  # stable: rows keep their order
    start = np.searchsorted(query, np.arange(len(scores)))
    pick = order[start[:, None] + np.arange(top)]
    return row[pick], score[pick]
