"""Exact search on the CPU: a flat FAISS index and NumPy arrays beside it.

Vector number ``slot`` of the FAISS index belongs to ``_ids[slot]`` and ``_centres[slot]``. Slots stay dense: a deleted
one is filled with the last. FAISS and NumPy both grow by doubling, so that appending costs the same at any size.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import DeviceUnavailable
from service.geo import Circle
from service.ground.index.protocol import NO_ID, Centres, Ids, Vectors

SPARE_CANDIDATES = 16
"""Candidates beyond ``k`` that are scored again; more follow by themselves where so many are as good as equal."""

MAX_TIES = 4096
"""Vectors as good as equal to the k-th that are scored again. Sea and sand give thousands that are the same, and of
those the first by id are the right ones. 4,096 rows are 40 MB in float64 at 1,280 dimensions."""


class FaissIndex:
    """A :class:`~service.ground.index.protocol.VectorIndex` that compares with every vector; exact at any size.

    Searches take turns, for they are bound by memory. Writers wait for the search that runs; counting and describing
    do not.

    Args:
        dim: dimensions of the vectors.

    Raises:
        DeviceUnavailable: FAISS is not installed, or a library of it is missing.
    """

    def __init__(self, dim: int) -> None:
        self._faiss = load_faiss()
        self._flat = self._faiss.IndexFlatIP(dim)
        self._dim = dim
        self._ids: Ids = np.empty(0, np.int64)
        self._centres: Centres = np.empty((0, 2), np.float64)
        self._slot_of: dict[int, int] = {}
        self._lock = threading.Lock()  # of everything
        self._places = threading.Lock()  # of ids and centres, held for moments: taken after the other, by writers

    def upsert(self, ids: Ids, vectors: Vectors, centres: Centres) -> None:
        """See :meth:`VectorIndex.upsert`."""
        with self._lock:
            known = np.array([self._slot_of.get(id_, -1) for id_ in ids.tolist()], np.int64)
            old, new = known >= 0, known < 0
            self._stored[known[old]] = vectors[old]
            self._flat.add(np.ascontiguousarray(vectors[new], np.float32))
            first, size = len(self._slot_of), len(self._slot_of) + int(new.sum())
            with self._places:
                self._centres[known[old]] = centres[old]
                self._ids, self._centres = _grown(self._ids, size), _grown(self._centres, size)
                self._ids[first:size] = ids[new]
                self._centres[first:size] = centres[new]
                self._slot_of.update(zip(ids[new].tolist(), range(first, size), strict=True))

    def delete(self, ids: Ids) -> None:
        """See :meth:`VectorIndex.delete`."""
        with self._lock:
            size = len(self._slot_of)
            gone = set(ids.tolist()) & self._slot_of.keys()
            freed = np.array([self._slot_of[id_] for id_ in gone], np.int64)
            left = size - len(freed)
            holes = freed[freed < left]
            movers = np.setdiff1d(np.arange(left, size), freed)
            self._stored[holes] = self._stored[movers]
            self._flat.remove_ids(self._faiss.IDSelectorRange(left, size))
            with self._places:
                self._ids[holes] = self._ids[movers]
                self._centres[holes] = self._centres[movers]
                for id_ in gone:
                    del self._slot_of[id_]
                self._slot_of.update(zip(self._ids[holes].tolist(), holes.tolist(), strict=True))

    def search(self, vectors: Vectors, k: int, area: Circle | None = None) -> tuple[Vectors, Ids]:
        """See :meth:`VectorIndex.search`."""
        queries = np.ascontiguousarray(vectors, np.float32)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        ids = np.full((len(queries), k), NO_ID, np.int64)
        with self._lock:
            slots = None if area is None else self._inside(area)
            found = min(k, len(self._slot_of) if slots is None else len(slots))
            if found and len(queries):
                scores[:, :found], ids[:, :found] = self._best(queries, found, slots)
        return scores, ids

    def count(self, area: Circle | None = None) -> int:
        """See :meth:`VectorIndex.count`."""
        if area is None:
            return len(self._slot_of)
        with self._places:
            return len(self._inside(area))

    def describe(self) -> dict[str, Any]:
        """See :meth:`VectorIndex.describe`."""
        library = f"faiss {self._faiss.__version__}"
        return {"kind": "flat", "device": "cpu", "library": library, "dim": self._dim, "size": self.count()}

    def snapshot(self) -> tuple[Ids, Any]:
        """A copy of what is stored now: the ids, and a flat FAISS index of their vectors in the same order."""
        with self._lock:
            return self._ids[: len(self._slot_of)].copy(), self._faiss.clone_index(self._flat)

    def known(self, ids: Ids) -> Ids:
        """Those of ``ids`` that are stored."""
        with self._lock:
            return np.array([id_ for id_ in ids.tolist() if id_ in self._slot_of], np.int64)

    def best_among(self, vectors: Vectors, k: int, candidates: Ids) -> tuple[Vectors, Ids]:
        """The ``k`` best of each query's own candidates, scored and ordered as :meth:`search` does.

        Args:
            vectors: queries, shape ``[N, D]``.
            k: at most C.
            candidates: ids, shape ``[N, C]``, each at most once in a row; those that are not stored are passed over.
        """
        with self._lock:
            flat = [self._slot_of.get(id_, -1) for id_ in candidates.ravel().tolist()]
            slots = np.array(flat, np.int64).reshape(candidates.shape)
            there = slots >= 0
            scores = self._rescored(vectors, np.maximum(slots, 0)) if len(self._slot_of) else np.zeros(slots.shape)
        scores = np.where(there, scores, -np.inf).astype(np.float32)
        ids = np.where(there, candidates, NO_ID)
        return _ordered(scores, ids, k)

    @property
    def _stored(self) -> Vectors:
        """FAISS's own copy of the vectors, writable, shape ``[size, D]``; valid until the next add or remove."""
        size = int(self._flat.ntotal)
        if not size:
            return np.empty((0, self._dim), np.float32)
        stored: Vectors = self._faiss.rev_swig_ptr(self._flat.get_xb(), size * self._dim).reshape(size, self._dim)
        return stored

    def _inside(self, area: Circle) -> NDArray[np.int64]:
        centres = self._centres[: len(self._slot_of)]
        return np.flatnonzero(area.contains(centres[:, 0], centres[:, 1])).astype(np.int64)

    def _best(self, queries: Vectors, k: int, slots: NDArray[np.int64] | None) -> tuple[Vectors, Ids]:
        """Top ``k`` of the slots (None: all), of which there are at least ``k``.

        FAISS sums in another order for one query than for many, so it is asked one by one, and the candidates are
        scored again in float64. More than ``MAX_TIES`` whose scores differ by less than the rounding of float32 are
        too many for that; those with the lowest ids stand for them, which is exact when they are equal.
        """
        answers = [self._best_of_one(query[None], k, slots) for query in queries]
        return np.concatenate([scores for scores, _ in answers]), np.concatenate([ids for _, ids in answers])

    def _best_of_one(self, query: Vectors, k: int, slots: NDArray[np.int64] | None) -> tuple[Vectors, Ids]:
        available, parameters = int(self._flat.ntotal), None
        if slots is not None:
            available = len(slots)
            parameters = self._faiss.SearchParameters(sel=self._faiss.IDSelectorArray(slots))
        fetch = min(k + SPARE_CANDIDATES, available)
        rough, found = self._flat.search(query, fetch, params=parameters)
        reach = float(rough[0, k - 1]) - rounding_bound(self._dim)
        if fetch < available and rough[0, -1] >= reach:  # what was not fetched may reach rank k
            found = self._tied(query, float(rough[0, k - 1]), k, parameters)[None]
        return _ordered(self._rescored(query, found), self._ids[found], k)

    def _tied(self, query: Vectors, kth: float, k: int, parameters: Any) -> NDArray[np.int64]:
        """Slots of what can be among the ``k`` best, of which the last has the rough score ``kth``."""
        rounding = rounding_bound(self._dim)
        below = np.nextafter(np.float32(kth - rounding), np.float32(-np.inf))  # FAISS finds what is above, not equal
        _, rough, slots = self._flat.range_search(query, float(below), params=parameters)
        better, equal = slots[rough > kth + rounding], slots[rough <= kth + rounding]
        most = max(k, MAX_TIES)
        if len(equal) > most:
            equal = equal[np.argpartition(self._ids[equal], most)[:most]]
        return np.concatenate([better, equal])

    def _rescored(self, queries: Vectors, slots: NDArray[np.int64]) -> Vectors:
        """Inner products of each query with its own slots, shape ``[N, C]``, summed row by row in float64."""
        scores = np.empty(slots.shape, np.float32)
        stored = self._stored
        for query, row, out in zip(queries.astype(np.float64), slots, scores, strict=True):
            out[:] = (stored[row] * query).sum(axis=1)
        return scores


def load_faiss() -> Any:
    """The FAISS module.

    Raises:
        DeviceUnavailable: it is not installed, or is a GPU build without its CUDA libraries.
    """
    try:
        import faiss
    except (ImportError, RuntimeError) as error:  # the GPU build raises the latter, with the package's name
        raise DeviceUnavailable(
            f"FAISS cannot be loaded ({error}); run `pip install 'aerofix[cpu]'`, or 'aerofix[gpu]' on a GPU."
        ) from error
    return faiss


def rounding_bound(dim: int) -> float:
    """Largest difference of two float32 inner products of the same unit vectors, summed in any order.

    Higham, Accuracy and Stability of Numerical Algorithms (2002), section 3.1, once for each of the two.
    """
    return 2 * dim * float(np.finfo(np.float32).eps)


def _ordered(scores: Vectors, ids: Ids, k: int) -> tuple[Vectors, Ids]:
    """The ``k`` best of each row, equal scores in the order of their ids."""
    order = np.lexsort((ids, -scores))[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)


def _grown(array: Any, size: int) -> Any:
    """Return ``array`` itself if it has ``size`` rows, else a copy with room for twice as many."""
    if len(array) >= size:
        return array
    grown = np.empty((2 * size, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
