"""How many positions of a photo agree with a window: a plain measure of descriptors that the service cannot move.

Cells that are each other's nearest are matched; a turn, scale and shift through two matches is tried 300 times, and the
best one counts its matches within 1.5 cells. The service does more (``service/localization/``); this stays as it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TRIES = 300
TOLERANCE_CELLS = 1.5
SHORTEST_CELLS = 4.0
SCALES = (0.4, 2.5)
BORDER = 2  # cells at the edge are left out: networks pad pictures

Complex = NDArray[np.complex128]


def cells(local: NDArray[np.float32]) -> tuple[NDArray[np.float32], Complex]:
    """Return unit descriptors ``[P, C]`` of a map's inner cells, ``[C, h, w]``, and where they lie, right + i·down."""
    inner = local[:, BORDER:-BORDER, BORDER:-BORDER]
    rows, columns = np.mgrid[: inner.shape[1], : inner.shape[2]]
    flat = inner.reshape(len(local), -1).T
    return flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-9), (columns + 1j * rows).ravel()


def agreeing(photo: NDArray[np.float32], window: NDArray[np.float32]) -> int:
    """Find the matches of two maps ``[C, h, w]`` that one similarity explains."""
    (one, at), (other, to) = cells(photo), cells(window)
    cosines = one @ other.T
    best = cosines.argmax(1)
    mutual = np.flatnonzero(cosines.argmax(0)[best] == np.arange(len(best)))
    source, target = at[mutual], to[best[mutual]]
    if len(source) < 2:
        return 0
    first, second = np.random.default_rng(0).integers(len(source), size=(2, 3 * TRIES))
    across = source[second] - source[first]
    far = np.abs(across) >= SHORTEST_CELLS
    turn = (target[second] - target[first])[far] / across[far]
    sound = (np.abs(turn) >= SCALES[0]) & (np.abs(turn) <= SCALES[1])
    turn, first = turn[sound][:TRIES], first[far][sound][:TRIES]
    if not len(turn):
        return 0
    shift = target[first] - turn * source[first]
    off = np.abs(turn[:, None] * source + shift[:, None] - target)
    return int((off <= TOLERANCE_CELLS).sum(1).max())


def most_agreeing(turns: NDArray[np.float32], window: NDArray[np.float32]) -> int:
    """Return the best of a photo's four quarter turns ``[4, C, h, w]``."""
    return max(agreeing(turn, window) for turn in turns)


def auroc(right: NDArray[np.int64], wrong: NDArray[np.int64]) -> float:
    """Return the probability that a right one has more than a wrong one; ties count half."""
    gap = np.asarray(right)[:, None] - np.asarray(wrong)[None]
    return float((gap > 0).mean() + (gap == 0).mean() / 2)
