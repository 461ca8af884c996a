"""Short codes of vectors: 40 bytes for one of 512 float16 numbers, by which the best of a million are found in time.

Embeddings have few directions in which they differ much. A vector is turned into the 160 principal ones, turned at
random within these so that all count alike (Jégou et al., Product quantization for nearest neighbor search, TPAMI 2011,
section V), and each two of them become one of 16 numbers. FAISS compares 32 such codes at a time in registers (André et
al., Quick ADC, ICMR 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.ground.index.protocol import Half, Vectors
from service.ground.index.rows import Slots, Version

MOST_DIMS = 160
"""At most so many principal directions are kept. With 128 a million made vectors needed half as many candidates again
for the same recall, and with 256 codes take longer to look through than candidates to compare
(``benchmarks/index.py``)."""

DIMS_A_CODE, BITS_A_CODE = 2, 4

SAMPLE = 20_000
"""The directions and the 16 numbers are learnt from so many vectors."""

STEP_ROWS = 16_384
"""So many vectors are coded at a time, as float32."""


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes of the slots below ``upto``; nothing changes them.

    Attributes:
        turn: principal directions, ``[d, D]``.
        packed: a FAISS index of codes.
        upto: how many slots.
        moved: that of the version whose slots they are.
    """

    turn: NDArray[np.float32]
    packed: Any
    upto: int
    moved: int

    def candidates(self, query: Vectors, count: int) -> Slots:
        """Return the slots that seem best for one query ``[D]``, dead ones too, in no order."""
        _, (slots,) = self.packed.search((self.turn @ query)[None], min(count, self.upto))
        found: Slots = slots[slots >= 0]
        return found


class Coder:
    """Learns codes from the vectors of a version, and makes them; for one thread.

    Args:
        faiss: the module.
        version: has vectors to learn from.
    """

    def __init__(self, faiss: Any, version: Version) -> None:
        self._faiss = faiss
        faiss.omp_set_num_threads(1)  # of this thread: photos need the others
        self.learnt_from, self.moved, self._upto = version.live, version.moved, 0
        live = np.flatnonzero(version.alive[: version.used])
        some = np.sort(np.random.default_rng(0).choice(live, min(SAMPLE, len(live)), replace=False))
        sample = version.take(some).astype(np.float32)
        dim = sample.shape[1]
        dims = min(MOST_DIMS, dim // DIMS_A_CODE * DIMS_A_CODE)
        principal = faiss.PCAMatrix(dim, dims, 0, True)
        principal.train(sample)
        self._turn = faiss.vector_to_array(principal.A).reshape(dims, dim).copy()  # FAISS would take the mean off, too
        quantizer = faiss.IndexPQ(dims, dims // DIMS_A_CODE, BITS_A_CODE, faiss.METRIC_INNER_PRODUCT)
        quantizer.pq.cp.min_points_per_centroid = 1
        quantizer.train(sample @ self._turn.T)
        self._packed = faiss.IndexPQFastScan(quantizer)

    def codes(self, version: Version) -> Codes:
        """Return codes of all slots of a version whose rows have not moved since."""
        packed = self._faiss.clone_index(self._packed)  # searches are reading the other
        for chunk, start, end in version.spans(self._upto):
            for first in range(start - chunk.start, end - chunk.start, STEP_ROWS):
                rows = chunk.vectors[first : min(first + STEP_ROWS, end - chunk.start)]
                packed.add(self._turned(rows))
        self._packed, self._upto = packed, version.used
        return Codes(self._turn, packed, self._upto, self.moved)

    def _turned(self, rows: Half) -> Vectors:
        return np.asarray(rows.astype(np.float32) @ self._turn.T)
