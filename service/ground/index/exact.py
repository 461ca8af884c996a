"""Exact search on the CPU: every vector is compared, or every one in an area.

FAISS compares float16 vectors with a query in float32, in an order of its own, and gives candidates. Those are scored
again in float64, so that answers do not depend on how FAISS sums, nor on what else is asked or stored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.errors import DeviceUnavailable
from service.geo import Circle
from service.ground.index.protocol import NO_ID, Centres, Half, Ids, Vectors
from service.ground.index.rows import Chunk, Rows, Sizes, Slots, Version, half_index
from service.ground.vectors import unit

SPARE_CANDIDATES = 16
"""So many candidates beyond ``k`` are scored again; more follow by themselves where so many are as good as equal."""

MAX_TIES = 4096
"""At most so many vectors as good as equal to the k-th are scored again. Sea and sand give thousands that are the same,
and of those the first by id are the right ones. 4,096 rows are 40 MB in float64 at 1,280 dimensions."""

GATHERED_ROWS = 16_384
"""So many rows are copied together at a time, to be compared: 17 MB at 512 dimensions."""

SCATTERED = 32
"""Where fewer than one of so many rows of a chunk is wanted, copying those is quicker than passing the others over. Of
65,536 rows 128, 1,024, 2,048 and 4,096 took 0.08, 0.6, 1.2 and 2.4 ms to copy, and 0.2, 0.8, 1.3 and 2.0 in place."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some vectors: positions in a FAISS index, those in ``params`` or all, and the slots that they stand for."""

    flat: Any
    rows: int
    slots: Slots | int
    params: Any = None

    def slots_at(self, positions: Slots) -> Slots:
        """Return slots of positions."""
        return positions + self.slots if isinstance(self.slots, int) else self.slots[positions]


class FaissIndex:
    """A :class:`~service.ground.index.protocol.VectorIndex` that compares with every vector; exact at any size.

    Searches run side by side, wait for no writer, and see the vectors as they were when they began.

    Args:
        dim: dimensions of the vectors.
        sizes: of what is in memory.

    Raises:
        DeviceUnavailable: FAISS is not installed, or a library of it is missing.
    """

    def __init__(self, dim: int, sizes: Sizes = Sizes()) -> None:
        self._faiss = load_faiss()
        self._dim = dim
        self._rows = Rows(self._faiss, dim, sizes)
        self._writing = threading.Lock()

    @property
    def version(self) -> Version:
        """What a search that begins now sees."""
        return self._rows.version

    def upsert(self, ids: Ids, vectors: Half, centres: Centres) -> None:
        """See :meth:`VectorIndex.upsert`."""
        with self._writing:
            self._rows.upsert(ids, np.asarray(vectors, np.float16), centres)

    def delete(self, ids: Ids) -> None:
        """See :meth:`VectorIndex.delete`."""
        with self._writing:
            self._rows.delete(ids)

    def search(self, vectors: Vectors, k: int, area: Circle | None = None) -> tuple[Vectors, Ids]:
        """See :meth:`VectorIndex.search`."""
        version = self.version
        if area is None:
            return self.answers(version, vectors, k, lambda _: self.all(version))
        slots = version.inside(area)
        return self.answers(version, vectors, k, lambda _: self.some(version, slots))

    def check(self) -> None:
        """See :meth:`VectorIndex.check`; it is in this process."""

    def count(self, area: Circle | None = None) -> int:
        """See :meth:`VectorIndex.count`."""
        return self.version.live if area is None else len(self.version.inside(area))

    def describe(self) -> dict[str, Any]:
        """See :meth:`VectorIndex.describe`."""
        library = f"faiss {self._faiss.__version__}"
        return {"kind": "flat", "device": "cpu", "library": library, "dim": self._dim, "size": self.count()}

    def snapshot(self) -> tuple[Ids, Any]:
        """Return a copy of what is stored now: the ids, and a flat FAISS index of their vectors in the same order."""
        version, flat = self.version, self._faiss.IndexFlatIP(self._dim)
        for chunk, start, end in version.spans():
            slots = np.flatnonzero(version.alive[start:end]) + start - chunk.start
            flat.add(unit(chunk.vectors[slots]))
        return version.ids[: version.used][version.alive[: version.used]], flat

    def known(self, ids: Ids) -> Ids:
        """Return those of ``ids`` that are stored."""
        return ids[self.version.slots_of(ids) >= 0]

    def best_among(self, vectors: Vectors, k: int, candidates: Ids) -> tuple[Vectors, Ids]:
        """Return the ``k`` best of each query's own candidates, scored and ordered as :meth:`search` does.

        Args:
            vectors: queries, shape ``[N, D]``.
            k: at least 1.
            candidates: ids, shape ``[N, C]``, each at most once in a row; those that are not stored are passed over.
        """
        version = self.version
        slots = np.sort(version.slots_of(candidates), axis=1)
        answers = [self._ranked(version, query, k, row[row >= 0]) for query, row in zip(vectors, slots, strict=True)]
        return np.stack([scores for scores, _ in answers]), np.stack([ids for _, ids in answers])

    # for indexes that choose what is compared

    def all(self, version: Version, first: int = 0) -> Iterator[Part]:
        """Yield all vectors, or those from slot ``first`` on."""
        for chunk, start, end in version.spans(first):
            inside = range(start - chunk.start, end - chunk.start)
            alive = version.alive[start:end]
            rows = int(alive.sum())
            if rows < len(inside):
                yield self._marked(chunk, inside.start + np.flatnonzero(alive))
            else:
                selector = self._faiss.IDSelectorRange(inside.start, inside.stop)
                yield Part(chunk.flat, rows, chunk.start, self._faiss.SearchParameters(sel=selector))

    def some(self, version: Version, slots: Slots) -> Iterator[Part]:
        """Yield the vectors of these slots, which ascend."""
        scattered = []
        for chunk, part in version.by_chunk(slots):
            if len(part) * SCATTERED < len(chunk.vectors):
                scattered.append(part)
            else:
                yield self._marked(chunk, part - chunk.start)
        few = np.concatenate(scattered) if scattered else slots[:0]
        for start in range(0, len(few), GATHERED_ROWS):
            part = few[start : start + GATHERED_ROWS]
            gathered = half_index(self._faiss, self._dim)
            gathered.add_sa_codes(version.take(part).view(np.uint8))
            yield Part(gathered, len(part), part)

    def _marked(self, chunk: Chunk, rows: Slots) -> Part:
        """These rows of a chunk, where they are."""
        marks = np.zeros(len(chunk.vectors), bool)
        marks[rows] = True
        selector = self._faiss.IDSelectorBitmap(np.packbits(marks, bitorder="little"))
        return Part(chunk.flat, len(rows), chunk.start, self._faiss.SearchParameters(sel=selector))

    def best(self, version: Version, query: Vectors, k: int, parts: Iterable[Part]) -> tuple[Vectors, Ids]:
        """Return the ``k`` best of some parts for one query ``[D]``, padded.

        More than ``MAX_TIES`` whose scores differ by less than the rounding of float32 are too many to be scored again;
        those with the lowest ids stand for them, which is exact when they are equal.
        """
        slack = rounding_bound(self._dim) + 2 * version.off_unit
        found = [self._candidates(version, query[None], k, part, slack) for part in parts if part.rows]
        if not found:
            return self._ranked(version, query, k, np.empty(0, np.int64))
        rough, slots = (np.concatenate(each) for each in zip(*found, strict=True))
        if len(rough) > k:
            kth = float(np.partition(rough, -k)[-k])
            rough, slots = rough[rough >= kth - slack], slots[rough >= kth - slack]
            slots = self._first(version, rough, slots, k, kth + slack)
        return self._ranked(version, query, k, np.sort(slots))

    def answers(
        self, version: Version, vectors: Vectors, k: int, parts: Callable[[Vectors], Iterable[Part]]
    ) -> tuple[Vectors, Ids]:
        """Return the ``k`` best of the parts that each query is compared with.

        One query after the other: FAISS sums in another order for many than for one. It shares out only queries among
        threads, and a team that waits for one takes the cores from others.
        """
        self._faiss.omp_set_num_threads(1)  # of this thread
        scores = np.full((len(vectors), k), -np.inf, np.float32)
        ids = np.full((len(vectors), k), NO_ID, np.int64)
        for i, query in enumerate(np.ascontiguousarray(vectors, np.float32)):
            scores[i], ids[i] = self.best(version, query, k, parts(query))
        return scores, ids

    def _candidates(self, version: Version, query: Vectors, k: int, part: Part, slack: float) -> tuple[Vectors, Slots]:
        """Rough scores and slots of what can be among the ``k`` best of a part."""
        fetch = min(k + SPARE_CANDIDATES, part.rows)
        (rough,), (positions,) = part.flat.search(query, fetch, params=part.params)
        if fetch == part.rows or rough[-1] < rough[k - 1] - slack:
            return rough, part.slots_at(positions)
        # What was not fetched may be as good. FAISS sorts all scores in a third of the time of its range_search.
        (rough,), (positions,) = part.flat.search(query, part.rows, params=part.params)
        kth = float(rough[k - 1])
        good = rough >= kth - slack
        rough, slots = rough[good], part.slots_at(positions[good])
        kept = self._first(version, rough, slots, k, kth + slack)
        chosen = np.isin(slots, kept)
        return rough[chosen], slots[chosen]

    def _first(self, version: Version, rough: Vectors, slots: Slots, k: int, above: float) -> Slots:
        """All slots with scores ``above``, and of the rest, which are as good as equal, those with the lowest ids."""
        equal = slots[rough <= above]
        most = max(k, MAX_TIES)
        if len(equal) > most:
            equal = equal[np.argpartition(version.ids[equal], most)[:most]]
        return np.concatenate([slots[rough > above], equal])

    def _ranked(self, version: Version, query: Vectors, k: int, slots: Slots) -> tuple[Vectors, Ids]:
        """The ``k`` best of these slots, which ascend, equal scores in the order of their ids; padded."""
        best, ids = np.full(k, -np.inf, np.float32), np.full(k, NO_ID, np.int64)
        wide = version.take(slots).astype(np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        scores = (np.einsum("ij,j->i", wide, query.astype(np.float64)) / lengths).astype(np.float32)
        order = np.lexsort((version.ids[slots], -scores))[:k]
        best[: len(order)], ids[: len(order)] = scores[order], version.ids[slots[order]]
        return best, ids


def load_faiss() -> Any:
    """Return the FAISS module.

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
    """Return the largest difference of two float32 inner products of the same unit vectors, summed in any order.

    Higham, Accuracy and Stability of Numerical Algorithms (2002), section 3.1, once for each of the two.
    """
    return 2 * dim * float(np.finfo(np.float32).eps)
