"""The vectors of an index in memory: only ever added to, so that a search reads them while others write.

A vector lives in a slot for good. Deleting marks its slot as dead, replacing does that and takes a new one, and when a
fifth is dead all move together. What a search sees is one :class:`Version`, which nothing changes: writers fill slots
that it does not know of, and leave a new version. So no search waits for a writer, nor a writer for a search.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.geo import Circle
from service.ground.index.grid import cells_of, runs_in
from service.ground.index.protocol import Centres, Half, Ids
from service.ground.vectors import lengths

Slots = NDArray[np.int64]


@dataclass(frozen=True)
class Sizes:
    """Numbers of rows.

    Attributes:
        first_chunk, last_chunk: a chunk has as many as there are already, within these bounds: 34 MB at 512 dimensions.
        sort_after: so many wait, looked through one by one, until they are sorted in with the others: a millisecond.
        move_after: so many dead ones are too few to move the others for.
    """

    first_chunk: int = 1024
    last_chunk: int = 32_768
    sort_after: int = 16_384
    move_after: int = 4096


@dataclass(frozen=True, eq=False)
class Chunk:
    """Rows ``start`` and on: ``vectors`` ``[R, D]`` is the memory of ``flat``, a FAISS index that says it is full."""

    start: int
    vectors: Half
    flat: Any


@dataclass(frozen=True, eq=False)
class Sorted:
    """Slots below ``upto``, by keys in ascending order."""

    keys: NDArray[np.int64]
    slots: NDArray[np.int32]
    upto: int = 0

    def merged(self, keys: NDArray[np.int64], slots: Slots, alive: NDArray[np.bool_], upto: int) -> Sorted:
        """Return the same with more of them, and without those that are dead."""
        old = alive[self.slots]
        known, known_slots, order = self.keys[old], self.slots[old], np.argsort(keys, kind="stable")
        at = np.searchsorted(known, keys[order])
        return Sorted(np.insert(known, at, keys[order]), np.insert(known_slots, at, slots[order]), upto)


EMPTY = Sorted(np.empty(0, np.int64), np.empty(0, np.int32))


@dataclass(frozen=True, eq=False)
class Version:
    """All rows at one moment.

    Attributes:
        chunks: of vectors, float16.
        ids, centres, alive: of each slot; there may be room for more.
        used: slots that have been given away.
        live: those that are not dead.
        off_unit: largest difference of a vector's length from 1.
        by_id, by_cell: slots in order, but for the last ones.
        moved: how often all rows have moved, after which slots mean others.
    """

    chunks: tuple[Chunk, ...]
    ids: Ids
    centres: Centres
    alive: NDArray[np.bool_]
    used: int = 0
    live: int = 0
    off_unit: float = 0.0
    by_id: Sorted = EMPTY
    by_cell: Sorted = EMPTY
    moved: int = 0

    def slots_of(self, ids: Ids) -> Slots:
        """Return slots of ids, of any shape; -1 for those that are not there."""
        flat = ids.ravel()
        found = self._lookup(flat, self.by_id.keys, self.by_id.slots)
        tail = self.by_id.upto + np.flatnonzero(self.alive[self.by_id.upto : self.used])
        if len(tail):
            order = np.argsort(self.ids[tail])
            found = np.maximum(found, self._lookup(flat, self.ids[tail][order], tail[order]))
        return found.reshape(ids.shape)

    def _lookup(self, ids: Ids, keys: NDArray[np.int64], slots: NDArray[Any]) -> Slots:
        if not len(keys):
            return np.full(len(ids), -1, np.int64)
        at = np.minimum(np.searchsorted(keys, ids), len(keys) - 1)
        return np.where((keys[at] == ids) & self.alive[slots[at]], slots[at], -1).astype(np.int64)

    def inside(self, area: Circle) -> Slots:
        """Return slots of those whose centre lies in a circle, ascending."""
        firsts, lasts = runs_in(area)
        firsts, lasts = (
            np.searchsorted(self.by_cell.keys, firsts),
            np.searchsorted(self.by_cell.keys, lasts, "right"),
        )
        runs = [self.by_cell.slots[a:b] for a, b in zip(firsts.tolist(), lasts.tolist(), strict=True) if b > a]
        near = np.concatenate([*runs, np.arange(self.by_cell.upto, self.used)]).astype(np.int64)
        near.sort()
        near = near[self.alive[near]]
        return near[area.contains(self.centres[near, 0], self.centres[near, 1])]

    def take(self, slots: Slots) -> Half:
        """Return vectors of slots, which ascend, ``[N, D]``."""
        taken, done = np.empty((len(slots), self.chunks[0].vectors.shape[1]), np.float16), 0
        for chunk, part in self.by_chunk(slots):
            np.take(chunk.vectors, part - chunk.start, axis=0, out=taken[done : done + len(part)], mode="clip")
            done += len(part)
        return taken

    def by_chunk(self, slots: Slots) -> Iterator[tuple[Chunk, Slots]]:
        """Yield chunks, and which of these slots, which ascend, are in each; without those that have none."""
        first = 0
        while first < len(slots):  # from chunk to chunk that has some, of hundreds
            chunk = self.chunks[bisect_right(self.chunks, slots[first], key=lambda each: each.start) - 1]
            end = first + int(np.searchsorted(slots[first:], chunk.start + len(chunk.vectors)))
            yield chunk, slots[first:end]
            first = end

    def spans(self, first: int = 0) -> Iterator[tuple[Chunk, int, int]]:
        """Yield chunks with the first of their slots from ``first`` on that are in use, and the end of them."""
        for chunk in self.chunks:
            start, end = max(first, chunk.start), min(self.used, chunk.start + len(chunk.vectors))
            if start < end:
                yield chunk, start, end


class Rows:
    """Makes versions; for one writer at a time.

    Args:
        faiss: the module.
        dim: dimensions of the vectors.
        sizes: of chunks and the like.
    """

    def __init__(self, faiss: Any, dim: int, sizes: Sizes) -> None:
        self._faiss, self._dim, self._sizes = faiss, dim, sizes
        self.version = self._empty()

    def _empty(self, moved: int = 0) -> Version:
        none = np.empty(0, np.int64), np.empty((0, 2)), np.empty(0, bool)
        return Version((self._chunk(0),), *none, moved=moved)

    def upsert(self, ids: Ids, vectors: Half, centres: Centres) -> None:
        """Add vectors, or replace them.

        Raises:
            ValueError: one is zero or not finite; nothing is changed.
        """
        off_unit = float(np.abs(lengths(vectors) - 1).max(initial=0.0))
        version = self._without(self.version, self.version.slots_of(ids))
        self.version = self._tidied(self._with(version, ids, vectors, centres, off_unit))

    def delete(self, ids: Ids) -> None:
        """Forget vectors."""
        self.version = self._tidied(self._without(self.version, self.version.slots_of(np.unique(ids))))

    def _without(self, version: Version, slots: Slots) -> Version:
        slots = slots[slots >= 0]
        if not len(slots):
            return version
        alive = version.alive.copy()  # searches may be reading it
        alive[slots] = False
        return replace(version, alive=alive, live=version.live - len(slots))

    def _with(self, version: Version, ids: Ids, vectors: Half, centres: Centres, off_unit: float) -> Version:
        first, used = version.used, version.used + len(ids)
        chunks = list(version.chunks)
        while used > chunks[-1].start + len(chunks[-1].vectors):
            chunks.append(self._chunk(chunks[-1].start + len(chunks[-1].vectors)))
        all_ids, places, alive = (_grown(each, first, used) for each in (version.ids, version.centres, version.alive))
        all_ids[first:used], places[first:used], alive[first:used] = ids, centres, True
        version = replace(version, used=used, live=version.live + len(ids), off_unit=max(version.off_unit, off_unit))
        version = replace(version, chunks=tuple(chunks), ids=all_ids, centres=places, alive=alive)
        for chunk, start, end in version.spans(first):
            chunk.vectors[start - chunk.start : end - chunk.start] = vectors[start - first : end - first]
        return version

    def _tidied(self, version: Version) -> Version:
        if version.used - version.live > max(self._sizes.move_after, version.live // 4):
            moved = self._empty(version.moved + 1)
            for chunk, start, end in version.spans():
                slots = start + np.flatnonzero(version.alive[start:end])
                vectors = chunk.vectors[slots - chunk.start]
                moved = self._with(moved, version.ids[slots], vectors, version.centres[slots], version.off_unit)
                moved = self._sorted(moved)
            return moved
        return self._sorted(version) if version.used - version.by_id.upto >= self._sizes.sort_after else version

    def _sorted(self, version: Version) -> Version:
        new = version.by_id.upto + np.flatnonzero(version.alive[version.by_id.upto : version.used])
        by_id = version.by_id.merged(version.ids[new], new, version.alive, version.used)
        by_cell = version.by_cell.merged(cells_of(version.centres[new]), new, version.alive, version.used)
        return replace(version, by_id=by_id, by_cell=by_cell)

    def _chunk(self, start: int) -> Chunk:
        rows = min(max(start, self._sizes.first_chunk), self._sizes.last_chunk)
        flat = half_index(self._faiss, self._dim)
        flat.codes.resize(rows * flat.code_size)
        flat.ntotal = rows
        memory = self._faiss.rev_swig_ptr(flat.codes.data(), rows * flat.code_size)
        return Chunk(start, memory.view(np.float16).reshape(rows, self._dim), flat)


def half_index(faiss: Any, dim: int) -> Any:
    """Return an empty FAISS index of float16 vectors, compared by inner products in float32."""
    return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


def _grown(array: Any, used: int, needed: int) -> Any:
    """Return ``array`` itself if it has room, else a copy of what is used with room for half as many again."""
    if len(array) >= needed:
        return array
    grown = np.empty((needed + needed // 2, *array.shape[1:]), array.dtype)
    grown[:used] = array[:used]
    return grown
