"""Embeddings as a gallery keeps them: float16, a half of what the model gives."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.ground.windows import Ids

Half = NDArray[np.float16]


def half(embeddings: Sequence[NDArray[Any]], dim: int) -> Half:
    """Stack embeddings as they are stored, ``[N, D]``.

    Raises:
        ValueError: one is of another length, zero or not finite: it has no direction.
    """
    if not len(embeddings):
        return np.empty((0, dim), np.float16)
    if any(embedding.shape != (dim,) for embedding in embeddings):
        raise ValueError(f"an embedding does not have {dim} dimensions")
    stacked = np.stack(list(embeddings)).astype(np.float16)
    lengths(stacked)
    return stacked


def unit(stored: Half) -> NDArray[np.float32]:
    """Bring rows ``[N, D]`` back to unit length after rounding to float16.

    Raises:
        ValueError: one is zero or not finite.
    """
    wide = stored.astype(np.float32)
    wide /= _lengths(wide)[:, None]
    return wide


def lengths(stored: Half) -> NDArray[np.float32]:
    """Return lengths of rows ``[N, D]``.

    Raises:
        ValueError: one is zero or not finite.
    """
    return _lengths(stored.astype(np.float32))


def _lengths(wide: NDArray[np.float32]) -> NDArray[np.float32]:
    squares = np.einsum("nd,nd->n", wide, wide)
    if not (np.isfinite(squares).all() and squares.all()):
        raise ValueError("an embedding is zero or not finite")
    return np.asarray(np.sqrt(squares), np.float32)


def gathered(chunks: Iterable[tuple[Ids, Half]], rows: int) -> Iterator[tuple[Ids, Half]]:
    """Join chunks of windows until there are so many rows or more, for what costs the same for one as for many."""
    waiting: list[tuple[Ids, Half]] = []
    count = 0
    for chunk in chunks:
        waiting.append(chunk)
        count += len(chunk[0])
        if count >= rows:
            yield np.concatenate([ids for ids, _ in waiting]), np.concatenate([part for _, part in waiting])
            waiting, count = [], 0
    if waiting:
        yield np.concatenate([ids for ids, _ in waiting]), np.concatenate([part for _, part in waiting])
