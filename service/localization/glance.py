"""A first look at many candidates: which of them may show what the photo shows, and in which turn?

The glance says nothing of where; it only chooses what is worth matching (``rerank``).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.ground.local_maps import LocalMap
from service.localization.matching import Floats

GLANCED = 192
"""So many candidates are looked at, by score. Half-overlapping tiles come in dozens, and the one that shows the whole
photo need not be the first of its place."""

STEP = 2
"""A glance compares every second cell of every second row, in photo and tile: a sixteenth of the products."""

CHUNK = 16
"""So many tiles of a glance share a matrix product: few enough for its result to stay in the processor's cache."""

LIKENESS_WEIGHT = 2.0
"""Likeness counts so much against score, when both have mean 0 and spread 1 over the candidates. Of 159 simulated
photos of held-out textures against 3,009 tiles, 95.6 % have the right one first at 2, 93.7 % at 1, 91.8 % at 4, and all
among the first 16 at 0.5 to 2."""

BORDER = 14
"""Cells of the outermost fourteenth of a map's side are left out: networks pad images (XFeat's with zeros), so that
descriptors there tell of the border as much as of the ground, and borders match borders."""


def likeness(photo: NDArray[np.float32], maps: Sequence[LocalMap]) -> NDArray[np.float32]:
    """Tell how alike photo and tiles are: the mean cosine of the photo's cells to the most similar one of the tile.

    Args:
        photo: unit descriptors ``[T, C, h, w]``, in T turns.
        maps: of N tiles, at least one; all of one shape, as those of one model are.

    Returns:
        ``[N, T]``.
    """
    channels, step = photo.shape[1], slice(None, None, STEP)
    seen = photo[:, :, step, step][:, :, inner_cells(*photo.shape[2:])[step, step]]  # [T, C, p]
    cells = np.ascontiguousarray(seen.transpose(1, 0, 2).reshape(channels, -1))
    inner = inner_cells(*maps[0].shape[1:])[step, step]
    alike = []
    for start in range(0, len(maps), CHUNK):
        tiles = np.stack([each[:, step, step][:, inner] for each in maps[start : start + CHUNK]])
        stored = unit(tiles.transpose(0, 2, 1), axis=2)  # [n, q, C]
        cosines = (stored.reshape(-1, channels) @ cells).reshape(len(stored), -1, len(photo), seen.shape[2])
        alike.append(cosines.max(axis=1).mean(axis=2))
    return np.concatenate(alike)


def best_looking(scores: Sequence[float], alike: NDArray[np.float32], count: int) -> list[int]:
    """Return rows of the ``count`` candidates that promise most, best first.

    Args:
        scores: cosines of N candidates.
        alike: ``[N]``, their likeness in the best turn.
        count: how many are wanted.
    """

    def standard(values: Floats) -> Floats:
        shifted: Floats = (values - values.mean()) / (values.std() + 1e-9)
        return shifted

    promise = standard(np.array(scores)) + LIKENESS_WEIGHT * standard(alike.astype(np.float64))
    return [int(row) for row in np.argsort(-promise, kind="stable")[:count]]


def inner_cells(height: int, width: int) -> NDArray[np.bool_]:
    """Return cells that are matched: all but the ``BORDER``."""
    inner = np.zeros((height, width), dtype=bool)
    down, right = height // BORDER, width // BORDER
    inner[down : height - down, right : width - right] = True
    return inner


def unit(stored: NDArray[np.int8], axis: int) -> NDArray[np.float32]:
    """Return descriptors of length 1 over ``axis``: rounding made some longer than others, which would be preferred."""
    vectors = stored.astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=axis, keepdims=True) + np.float32(1e-6)
    return vectors
