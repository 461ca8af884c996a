"""How alike a square of a photo and the ground are, at every place of the square: their mean cosine over all cells.

Computed by Fourier transforms. Descriptors have much in common, whatever they show; so their mean is taken out first.
"""

from __future__ import annotations

import numpy as np
from numpy import fft
from numpy.typing import NDArray

from service.localization.matching import Floats

Cells = NDArray[np.float32]
Mask = NDArray[np.bool_]

LEAST_GROUND = 0.6
"""A place counts when ground is stored under so much of what the photo shows."""

AT_ONCE = 8
"""So many pieces of ground are transformed together: 15 MB of a model's descriptors."""


def mean_of(cells: Cells, of_use: Mask) -> Cells:
    """Return the mean descriptor ``[C]`` of cells ``[N, C, H, W]`` that are of use ``[N, H, W]``."""
    mean: Cells = np.einsum("nchw,nhw->c", cells, of_use.astype(np.float32)) / np.float32(max(1, of_use.sum()))
    return mean


def without(mean: Cells, cells: Cells, of_use: Mask) -> Cells:
    """Return descriptors ``[N, C, H, W]`` less a mean, of unit length, and 0 where they are of no use."""
    left = cells - mean[:, None, None]
    left /= np.linalg.norm(left, axis=1, keepdims=True) + np.float32(1e-6)
    left *= of_use[:, None]
    return left


def halved(cells: NDArray[np.int8] | Cells, of_use: Mask) -> tuple[Cells, Mask]:
    """Return the sums of four cells each, ``[..., H/2, W/2]``, and which have at least two that are of use."""
    down, across = cells.shape[-2] // 2, cells.shape[-1] // 2
    parts = [cells[..., i : 2 * down : 2, j : 2 * across : 2] for i in (0, 1) for j in (0, 1)]
    used = [of_use[..., i : 2 * down : 2, j : 2 * across : 2] for i in (0, 1) for j in (0, 1)]
    total = np.zeros(parts[0].shape, np.float32)
    for part in parts:
        total += part
    return total, np.sum(used, axis=0) >= 2


def correlate(square: Cells, shown: Mask, ground: Cells, there: Mask) -> Floats:
    """Return mean cosines ``[N, H - h + 1, W - w + 1]`` of what is shown to the ground; -inf over too little ground.

    Args:
        square: ``[C, h, w]``, as ``without`` gives it.
        shown: ``[h, w]``, what of it is of use.
        ground: ``[N, C, H, W]``, likewise.
        there: ``[N, H, W]``.
    """
    size = ground.shape[2:]
    down, across = (slice(side - own + 1) for side, own in zip(size, square.shape[1:], strict=True))
    transformed = fft.rfft2(square, size).conj()
    mask = fft.rfft2(shown.astype(np.float32), size).conj()
    found = []
    for start in range(0, len(ground), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        total = fft.irfft2((fft.rfft2(ground[some], size) * transformed).sum(axis=1), size)
        below = fft.irfft2(fft.rfft2(there[some].astype(np.float32), size) * mask, size)
        enough = below >= LEAST_GROUND * max(1, shown.sum())
        found.append(np.where(enough, total / np.maximum(below, 1), -np.inf)[:, down, across])
    return np.concatenate(found).astype(np.float64)


def standard(scores: Floats) -> Floats:
    """Return scores in standard deviations above their mean; -inf stays."""
    finite = scores[np.isfinite(scores)]
    return scores if not len(finite) else (scores - finite.mean()) / (finite.std() + 1e-9)


def peaks(scores: Floats, count: int, apart: int) -> list[tuple[int, int, int]]:
    """Return the best places of scores ``[N, I, J]``, at least ``apart`` places from better ones of the same piece."""
    left, found = scores.copy(), list[tuple[int, int, int]]()
    while len(found) < count:
        n, i, j = (int(each) for each in np.unravel_index(left.argmax(), left.shape))
        if not np.isfinite(left[n, i, j]):
            break
        found.append((n, i, j))
        left[n, max(0, i - apart) : i + apart + 1, max(0, j - apart) : j + apart + 1] = -np.inf
    return found
