"""What the gallery asks of a vector index, whichever library answers."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.geo import Circle

Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]
Half = NDArray[np.float16]
Centres = NDArray[np.float64]

NO_ID = -1
"""Pads the ids of a search that found fewer than ``k``; their scores are minus infinity."""


class VectorIndex(Protocol):
    """Nearest vectors by the cosine of their angle, optionally among those inside a circle.

    Implementations are derived from the store and can be rebuilt from it. Calls may come from several threads at
    once; a search sees each write whole or not at all.
    """

    def upsert(self, ids: Ids, vectors: Half, centres: Centres) -> None:
        """Add vectors, replacing those whose id is already there.

        Args:
            ids: shape ``[N]``, zero or above, each at most once.
            vectors: float16 as the gallery stores them, shape ``[N, D]``: of unit length but for rounding, which
                scores make good.
            centres: ``lat, lon`` in degrees, shape ``[N, 2]``.

        Raises:
            ValueError: a vector is zero or not finite; nothing is changed.
        """

    def delete(self, ids: Ids) -> None:
        """Forget vectors; ids that are not there are ignored. Shape ``[N]``."""

    def search(self, vectors: Vectors, k: int, area: Circle | None = None) -> tuple[Vectors, Ids]:
        """Find the ``k`` vectors with the largest cosine for each query.

        The answer is that of brute force over the vectors whose centre lies in ``area``; equal scores are ordered by
        id, lowest first. Where thousands of scores are as good as equal, an implementation may rank those with the
        lowest ids alone: exact where the vectors are the same, within rounding otherwise.

        Args:
            vectors: queries, unit L2 norm, shape ``[N, D]``.
            k: at least 1.
            area: search only here; None searches everywhere.

        Returns:
            ``(scores, ids)``, shape ``[N, k]`` each, best first, padded with minus infinity and :data:`NO_ID`.
        """

    def check(self) -> None:
        """Make sure that a search can be answered now.

        Raises:
            IndexUnavailable: what answers it cannot be reached.
        """

    def count(self, area: Circle | None = None) -> int:
        """Count the vectors, in ``area`` if given; waits for no search."""

    def describe(self) -> dict[str, Any]:
        """Return kind, device and size of the index, for people and for ``GET /gallery``; waits for no search."""
