"""Windows copied between a gallery file and a Milvus collection, in either direction, and compared afterwards.

The file keeps what a photo is compared with: pixels and descriptors. The collection has the windows' vectors, for many
services. A copy changes the windows of the maps that the file has, and of no others.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from service.errors import GalleryUnusable, MapNotFound
from service.ground.index.collection import ROWS_AT_ONCE, Collection
from service.ground.index.keys import WindowKeys
from service.ground.index.milvus import MilvusIndex
from service.ground.index.tiered import USUAL_K, WANTED_RECALL, probes
from service.ground.maps import GroundMap
from service.ground.store.store import Store
from service.ground.vectors import Half, gathered, unit
from service.ground.windows import Ids, Lattice

OnRows = Callable[[int], object]

EQUAL = 1e-5
"""Scores that differ by less are equal: Milvus sums in float32, and where windows are the same either may be found."""

SAMPLE = 1024
"""The sampled queries are made of so many windows."""

RECALL_TRIES, RECALL_PAUSE_S = 10, 1.0
"""The recall is measured so many times before it counts as too low, with so many seconds between: Milvus says that all
rows are in the index some moments before its searches use it. 2.3.5 found 0.984 until then, and 1.000 afterwards."""


@dataclass(frozen=True)
class Copied:
    """What a copy has come to: windows, and the recall of the sampled queries among the best ``USUAL_K``."""

    windows: int
    recall: float


@dataclass(frozen=True)
class Tally:
    """Number of windows, and the sum of a checksum of each: the same in whatever order they come."""

    windows: int = 0
    total: int = 0

    def plus(self, keys: Sequence[str], vectors: Half) -> Tally:
        """Return the same with more windows."""
        rows = np.ascontiguousarray(vectors, "<f2")
        sums = sum(zlib.crc32(row, zlib.crc32(key.encode())) for key, row in zip(keys, rows, strict=True))
        return Tally(self.windows + len(keys), self.total + sums)


def chosen(store: Store, names: Sequence[str] = ()) -> list[GroundMap]:
    """Return the maps of a file that are searched: all, or those of these names.

    Raises:
        MapNotFound: there is none of a name.
        GalleryUnusable: it has single pictures, which are not searched in Milvus.
    """
    if store.numbers_in(None, limit=1):
        raise GalleryUnusable(
            f"The gallery {store.file.name} has single pictures, which are not searched in Milvus; delete them, or add "
            "them as a map."
        )
    live = {each.name: each for each in store.maps.all() if each.live}
    if missing := [name for name in names if name not in live]:
        raise MapNotFound(f"there is no map {missing[0]!r:.120} in {store.file.name}; aerofix map list lists them.")
    return [each for name, each in live.items() if not names or name in names]


def dim_of(store: Store) -> int:
    """Return dimensions of a file's vectors.

    Raises:
        GalleryUnusable: it has none.
    """
    for _, vectors in store.maps.windows():
        return int(vectors.shape[1])
    raise GalleryUnusable(f"The gallery {store.file.name} has no windows; add a map first: aerofix gallery add SOURCE")


def push(store: Store, maps: Sequence[GroundMap], collection: Collection, on_rows: OnRows) -> Copied:
    """Let the collection hold the windows of these maps as the file has them, and no others of these maps.

    Two that copy at once lose nothing: each writes and deletes rows of its own maps, and of one map both do the same.

    Raises:
        IndexUnavailable: Milvus does not answer.
        GalleryUnusable: it does not hold what it was given, see :func:`compare`.
    """
    collection.create()
    keys, lattice = WindowKeys.of_maps(maps), Lattice(store.window_px or 0)
    for each in maps:
        known = set[str]()
        for ids, vectors in _stored(store, each):
            names = keys.of(ids)
            collection.put(names, vectors, lattice.centres(ids))
            known.update(names)
            on_rows(len(ids))
        for found, _ in _held(store, each, keys, collection):
            collection.remove([key for key in found if key not in known])
    collection.flush()
    return compare(store, maps, collection)


def pull(store: Store, maps: Sequence[GroundMap], collection: Collection, on_rows: OnRows) -> Copied:
    """Let the file hold the windows of these maps as the collection has them, and no others of these maps.

    Raises:
        GalleryUnusable: the collection has none of a map, and the file keeps what it has; or see :func:`compare`.
        IndexUnavailable: Milvus does not answer.
    """
    collection.open()
    keys = WindowKeys.of_maps(maps)
    for each in maps:
        if not collection.count(*keys.span(each.number)):
            raise GalleryUnusable(f"Milvus holds no windows of the map {each.name!r:.120}; nothing of it was copied.")

        held = ((keys.ids(found), vectors) for found, vectors in _held(store, each, keys, collection))
        store.maps.replace_windows(each.number, gathered(held, ROWS_AT_ONCE), on_rows)
    return compare(store, maps, collection)


def compare(store: Store, maps: Sequence[GroundMap], collection: Collection) -> Copied:
    """Make sure that file and collection hold the same windows, and that they are found.

    Compared are the number of windows and a sum of checksums of each map, and the answers to sampled queries with those
    of a look at every vector in the file.

    Raises:
        GalleryUnusable: they differ; in which map, it says.
    """
    collection.settle()
    keys, windows = WindowKeys.of_maps(maps), 0
    for each in maps:
        here, there = Tally(), Tally()
        for ids, vectors in _stored(store, each):
            here = here.plus(keys.of(ids), vectors)
        for found, vectors in _held(store, each, keys, collection):
            there = there.plus(found, vectors)
        if here != there:
            raise GalleryUnusable(
                f"Milvus and the file {store.file.name} differ in the map {each.name!r:.120} after the copy: "
                f"{there.windows} and {here.windows} windows. Copy again, when nobody else changes that map."
            )
        windows += here.windows
    recall = _recall(store, maps, windows, MilvusIndex(collection, keys)) if windows else 1.0
    if recall < WANTED_RECALL:
        raise GalleryUnusable(f"Milvus finds {recall:.1%} of what it should; drop the collection and copy again.")
    return Copied(windows, recall)


def _recall(store: Store, maps: Sequence[GroundMap], total: int, index: MilvusIndex) -> float:
    """Share of the best ``USUAL_K`` of the file's windows, ``total``, that the index finds, or of as good ones."""
    rng = np.random.default_rng(1)
    wanted = np.sort(rng.choice(total, min(SAMPLE, total), replace=False))
    some, seen = [np.empty((0, dim_of(store)), np.float32)], 0
    for vectors in _vectors(store, maps):
        rows = wanted[(wanted >= seen) & (wanted < seen + len(vectors))] - seen
        some.append(unit(vectors[rows]))
        seen += len(vectors)
    queries = probes(np.concatenate(some), rng)
    best = np.full((len(queries), USUAL_K), -np.inf, np.float32)
    for vectors in _vectors(store, maps):
        scores = np.concatenate([best, queries @ unit(vectors).T], axis=1)
        best = -np.partition(-scores, USUAL_K - 1, axis=1)[:, :USUAL_K]
    count = min(USUAL_K, total)
    worst = np.sort(best, axis=1)[:, -count]
    for left in reversed(range(RECALL_TRIES)):
        found, _ = index.search(queries, count)
        recall = float(np.mean(found >= worst[:, None] - EQUAL))
        if recall >= WANTED_RECALL or not left:
            break
        time.sleep(RECALL_PAUSE_S)
    return recall


def _stored(store: Store, known: GroundMap) -> Iterable[tuple[Ids, Half]]:
    return gathered(store.maps.windows(known.number), ROWS_AT_ONCE)


def _vectors(store: Store, maps: Sequence[GroundMap]) -> Iterator[Half]:
    return (vectors for each in maps for _, vectors in _stored(store, each))


def _ids(store: Store, known: GroundMap) -> Ids:
    return np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in store.maps.windows(known.number))])


def _held(store: Store, known: GroundMap, keys: WindowKeys, collection: Collection) -> Iterator[tuple[list[str], Half]]:
    """The rows of a map in the collection, float16 again: asked for by keys that the file has now, and all between."""
    edges = keys.of(np.sort(_ids(store, known))[::ROWS_AT_ONCE])[1:]
    first, end = keys.span(known.number)
    pages = (collection.rows(low, high) for low, high in zip([first, *edges], [*edges, end], strict=True))
    return ((rows.keys, rows.vectors.astype(np.float16)) for page in pages for rows in page if rows.keys)
