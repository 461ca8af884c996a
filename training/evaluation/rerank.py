"""UnifyGeo's second look: the best answers again, by how well the photo fits their best position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.batch import Features
from training.data.base import Images, Task
from training.evaluation.search import Floats, Ints, Ranking
from training.methods.unifygeo import local_scores, rerank

#: Answers that are looked at again: the authors' number. Recall@5 and beyond cannot change.
LOOKED_AT = 5


def reranked(ranking: Ranking, task: Task, features: Callable[[Tensor], Features], *, batch: int = 64) -> Ranking:
    """Return the ranking with each query's first answers in the order of cosine + best local match.

    Dense descriptors are too large to keep for a gallery, so the images of the first answers are encoded again.

    Args:
        ranking: by embeddings.
        task: has the images.
        features: the model, with dense descriptors: images ``[n, 3, S, S]``, 0 to 1 → features.
        batch: queries looked at together.
    """
    depth = min(LOOKED_AT, ranking.top.shape[1])
    parts = [
        _order(ranking, task, features, slice(start, start + batch), depth)
        for start in range(0, len(task.queries), batch)
    ]
    order, score = (np.concatenate(same) for same in zip(*parts, strict=True))
    top, top_score = ranking.top.copy(), ranking.top_score.copy()
    top[:, :depth] = np.take_along_axis(top[:, :depth], order, 1)
    top_score[:, :depth] = np.take_along_axis(top_score[:, :depth], order, 1)
    place = np.argsort(order, axis=1)  # where each old rank went
    ranks = [_moved(old, where) for old, where in zip(ranking.ranks, place, strict=True)]
    hit = None if ranking.hit is None else _hit(ranking.hit, task, top[:, :depth], score)
    return replace(ranking, ranks=ranks, top=top, top_score=top_score, hit=hit)


def _hit(before: NDArray[np.bool_], task: Task, top: Ints, score: Floats) -> NDArray[np.bool_]:
    """``Ranking.hit`` by the new scores ``[Q, depth]``, best first.

    Where no positive was looked at, it stays: the same images come before the best one.
    """
    hit = before.copy()
    for i, (rows, scores) in enumerate(zip(top, score, strict=True)):
        right = np.isin(rows, task.positives[i])
        if right.any():
            better = rows[scores > scores[right].max()]
            hit[i] = task.semi_positives is None or bool(np.isin(better, task.semi_positives[i]).all())
    return hit


def _order(
    ranking: Ranking, task: Task, features: Callable[[Tensor], Features], rows: slice, depth: int
) -> tuple[Ints, Floats]:
    """New order ``[q, depth]`` of the first answers of some queries, and their sums of both scores in that order."""
    asked = ranking.top[rows, :depth]
    tiles, candidates = np.unique(asked, return_inverse=True)
    photo = features(task.queries.load(range(len(task.queries))[rows]))
    tile = _encode(task.gallery, tiles.tolist(), features, batch=len(asked))
    fits = local_scores(photo, tile, torch.from_numpy(candidates.reshape(asked.shape)))
    scores, fits = torch.from_numpy(ranking.top_score[rows, :depth]), fits.double().cpu()
    order = rerank(scores, fits)
    return order.numpy(), (scores + fits).gather(1, order).numpy()


def _encode(images: Images, rows: Sequence[int], features: Callable[[Tensor], Features], batch: int) -> Features:
    parts = [features(images.load(rows[start : start + batch])) for start in range(0, len(rows), batch)]
    tensors = [torch.cat(same) for same in zip(*(part.tensors() for part in parts), strict=True)]
    return parts[0].with_tensors(tensors)


def _moved(ranks: Ints, where: Ints) -> Ints:
    inside = ranks < len(where)
    moved: Ints = np.sort(np.concatenate([where[ranks[inside]], ranks[~inside]]))
    return moved
