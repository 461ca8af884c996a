"""R@1 of turned and cropped queries: what is left when the heading is unknown, or the photo shows less ground.

Rotation and crop are one resampling about the image's centre. A share is a share of the *area* that stays in view, and
the crop is scaled back to the input size. Where the turned square reaches beyond the photo, the photo is mirrored at
its border; from a share of 0.5 down, no turn does (such a square fits the inscribed circle at every angle). The grid is
our reconstruction of SinGeo's test for drone views: the paper's own shifts and crops panoramas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from training.data.base import Task
from training.evaluation.embed import Embedder, load_batches
from training.evaluation.search import Embeddings, search
from training.methods import singeo

ROTATIONS_DEG = tuple(range(0, 360, 30))
CROP_SHARES = (1.0, 0.7, 0.5, 0.3, 0.2)
#: 60 cells over all 37,855 queries of University-1652 would be 2.3 million images.
QUERIES = 1000


def robustness(
    embedder: Embedder,
    task: Task,
    gallery: Embeddings,
    *,
    rotations_deg: Sequence[float] = ROTATIONS_DEG,
    crop_shares: Sequence[float] = CROP_SHARES,
    queries: int = QUERIES,
    batch: int = 64,
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure R@1 over the grid.

    Args:
        embedder: the model.
        task: with the gallery to search.
        gallery: embeddings ``[G, D]`` of that gallery, as it is.
        rotations_deg: turns of the queries, clockwise.
        crop_shares: shares of the queries' area that stay in view, above 0, at most 1.
        queries: use at most this many, evenly spread over all.
        batch: images run at once.
        quiet: no progress bar.

    Returns:
        ``queries``, ``rotations_deg``, ``crop_shares``, ``recall@1`` (a row for each share, a column for each rotation)
        and their ``mean``.
    """
    spread = np.linspace(0, len(task.queries) - 1, min(queries, len(task.queries)))
    rows: list[int] = np.unique(spread.round().astype(int)).tolist()
    cells = [(share, rotation) for share in crop_shares for rotation in rotations_deg]
    found: list[list[Embeddings]] = [[] for _ in cells]
    batches, steps = load_batches(task.queries, rows, batch), -(-len(rows) // batch)
    for images in track(batches, f"{task.name}: robustness", steps, disable=quiet):
        for parts, (share, rotation) in zip(found, cells, strict=True):
            parts.append(embedder(turn_and_crop(images, rotation, share)))
    positives = [task.positives[row] for row in rows]
    recall = [float((search(np.concatenate(p), gallery, positives, top=1).first == 0).mean()) for p in found]
    grid = np.array(recall).reshape(len(crop_shares), len(rotations_deg))
    return {
        "queries": len(rows),
        "rotations_deg": list(rotations_deg),
        "crop_shares": list(crop_shares),
        "recall@1": grid.tolist(),
        "mean": float(grid.mean()),
    }


def turn_and_crop(images: Tensor, rotation_deg: float, crop_share: float) -> Tensor:
    """Turn the picture clockwise about its centre, keep the middle, scale that back to the full size.

    Args:
        images: ``[n, 3, S, S]``.
        rotation_deg: of the content, clockwise.
        crop_share: share of the area that stays, above 0, at most 1.
    """
    if rotation_deg % 360 == 0 and crop_share == 1:
        return images
    counter_clockwise = torch.full((len(images),), -float(rotation_deg))
    return singeo.turn_and_crop(images, counter_clockwise, side=math.sqrt(crop_share))
