"""The gallery as the rest of the service sees it: a file that is the truth, and a vector index derived from it."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.errors import GalleryEmpty, GalleryUnusable
from service.geo import Bounds, Circle
from service.ground.extents import Extents, bounds_of, median_side_m
from service.ground.index.gpu import make_index
from service.ground.index.protocol import NO_ID, VectorIndex
from service.ground.local_maps import LocalMap
from service.ground.store.copies import snapshot
from service.ground.store.imports import Imports, Step
from service.ground.store.store import NewRow, Store
from service.ground.tile import Tile

PAGE_BYTES = 2**20
"""Properties on a page of tiles, as JSON: a page is made and sent in one go, and a thousand tiles could have 16 MB."""

CACHED_BYTES = 2**26
"""Local descriptors that are kept at hand, those asked for last: 1,300 tiles of the default model. The photos of a
flight look at the same tiles again and again."""

LOAD_ROWS = 4096
"""Rows that are brought back to unit length at a time: 40 MB at 1,280 dimensions."""


@dataclass(frozen=True, eq=False)
class NewTile:
    """A tile to store: what it is, and what is kept of its image.

    Attributes:
        embedding: float32 ``[D]``, unit L2 norm.
        image: a JPEG or WebP file.
        local: its local descriptors, None when the model gives none.
    """

    tile: Tile
    embedding: NDArray[np.float32]
    image: bytes
    local: LocalMap | None = None


@dataclass(frozen=True)
class Hit:
    """A tile that a search found.

    Attributes:
        score: inner product of its embedding with the query's, -1 to 1.
        inliers: matches of local descriptors that agree on one position; None when it was not matched.
    """

    tile: Tile
    score: float
    inliers: int | None = None


@dataclass(frozen=True)
class GalleryInfo:
    """State of a gallery; ``bounds`` are ``(w, s, e, n)``, ``tile_side_m`` is the median. Both are None if empty."""

    count: int
    bounds: Bounds | None
    generation: int
    identity: str
    index: dict[str, Any]
    tile_side_m: float | None


@dataclass(frozen=True)
class Page:
    """Some of the tiles in an area, and the cursor of the next page, None at the end."""

    tiles: list[Tile]
    cursor: int | None


class Gallery:
    """Tiles that can be searched by embedding. Safe to use from several threads.

    Made by :meth:`open`. Embeddings are stored, and searched, as float16 brought back to unit length: a search gives
    the same scores before and after a restart.
    """

    def __init__(self, store: Store, index: VectorIndex, identity: str, embedding_dim: int) -> None:
        self._store = store
        self._index = index
        self._identity = identity
        self._dim = embedding_dim
        self._tiles: dict[int, Tile] = {}  # by number in the store, which is the id in the index
        self._numbers: dict[str, int] = {}
        self._extents = Extents()
        self._maps: OrderedDict[int, LocalMap] = OrderedDict()  # by number, those asked for last at the end
        self._write_lock = threading.Lock()  # one writer; searches go on while it waits for the disk
        self._lock = threading.Lock()  # the index and the dictionaries change together
        self._summary: tuple[int, Bounds | None, float | None] = (-1, None, None)
        self._generation = store.generation

    @classmethod
    def open(
        cls, path: Path | str, identity: str, embedding_dim: int, device: str = "cpu", read_only: bool = False
    ) -> Gallery:
        """Open a gallery file, or create it, and build its index.

        Args:
            path: the file, or ``":memory:"``.
            identity: identity stamp of the loaded model; an empty gallery adopts it.
            embedding_dim: D of the loaded model.
            device: where to search: ``auto``, ``cpu`` or ``cuda``, with the number of a GPU as in ``cuda:1``.
            read_only: only look; see ``GalleryFile``.

        Raises:
            GalleryUnusable: the file is corrupt, no gallery, or held by another process.
            ModelMismatch: its embeddings were made with another model.
            DeviceUnavailable: no such device.
            StorageFull: no space for a new file.
        """
        index = make_index(embedding_dim, device)
        store = Store(path, read_only)
        try:
            store.claim(identity)
            gallery = cls(store, index, identity, embedding_dim)
            gallery._load(path)
        except BaseException:
            store.close()
            raise
        return gallery

    def upsert(self, tiles: Sequence[NewTile], step: Step | None = None) -> list[Literal["added", "updated"]]:
        """Store tiles in one transaction; on return they are on the disk and can be found.

        Args:
            tiles: of several with one id the last stays.
            step: the import that they are of; its progress is written in the same transaction.

        Raises:
            StorageFull: the disk is full; none of them was kept.
            ImportStopped: the import was cancelled; none of them was kept.
            ValueError: an embedding is not finite, zero, or of the wrong length.
        """
        half = _half([new.embedding for new in tiles], self._dim)
        with self._write_lock:
            rows = [NewRow(new.tile, vector, new.image, new.local) for new, vector in zip(tiles, half, strict=True)]
            written = self._store.upsert(rows, step) if rows or step else []
            last = {number: position for position, (number, _) in enumerate(written)}
            self._put(list(last), [tiles[i].tile for i in last.values()], half[list(last.values())])
        return ["added" if is_new else "updated" for _, is_new in written]

    def search(self, embeddings: NDArray[np.float32], k: int, area: Circle | None = None) -> list[list[Hit]]:
        """Find the ``k`` most similar tiles for each query, best first.

        Args:
            embeddings: queries, unit L2 norm, shape ``[N, D]``.
            k: at least 1; fewer hits come back where there are fewer tiles.
            area: only tiles whose centre lies in this circle; a list is empty if none does.

        Raises:
            GalleryEmpty: there is no tile at all.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self._dim or k < 1:
            raise ValueError(f"expected queries of shape [N, {self._dim}] and k >= 1, got {embeddings.shape} and {k}")
        with self._lock:
            if not self._tiles:
                raise GalleryEmpty("The gallery holds no tiles; add a map first: aerofix gallery add SOURCE")
            scores, numbers = self._index.search(embeddings, min(k, len(self._tiles)), area)
            return [
                [Hit(self._tiles[n], score) for n, score in zip(row, row_scores, strict=True) if n != NO_ID]
                for row, row_scores in zip(numbers.tolist(), scores.tolist(), strict=True)
            ]

    def delete(self, ids: Sequence[str]) -> int:
        """Delete tiles; unknown ids are ignored. Returns how many there were; no search finds them from then on."""
        with self._write_lock:
            return self._forget(self._store.delete(ids))

    def delete_in(self, bounds: Bounds) -> int:
        """Delete the tiles whose centre lies in ``(w, s, e, n)``; see :meth:`page`. Returns how many there were."""
        with self._write_lock:
            return self._forget(self._store.delete_in(bounds))

    def count(self, area: Circle | None = None) -> int:
        """Number of tiles, or of those whose centre lies in ``area``."""
        return self._index.count(area)

    def info(self) -> GalleryInfo:
        """Describe the gallery; bounds and tile side are computed once a generation."""
        with self._lock:
            generation, count = self._generation, len(self._tiles)
            known, bounds, side_m = self._summary
            rows = None if known == generation else self._extents.rows()
        if rows is not None:
            bounds, side_m = bounds_of(rows), median_side_m(rows)
            self._summary = (generation, bounds, side_m)
        return GalleryInfo(count, bounds, generation, self._identity, self._index.describe(), side_m)

    @property
    def generation(self) -> int:
        """Number of acknowledged writes that searches know of."""
        return self._generation

    def sides_m(self) -> NDArray[np.float64]:
        """Sides of all tiles in metres, ``[N]``."""
        with self._lock:
            return self._extents.rows()[:, 4]

    def tile(self, tile_id: str) -> Tile | None:
        """The tile with this id, or None."""
        with self._lock:
            number = self._numbers.get(tile_id)
            return None if number is None else self._tiles[number]

    def page(self, bounds: Bounds | None, limit: int, cursor: int = 0) -> Page:
        """List tiles in the order of their first upsert; one that is there throughout is in exactly one page.

        Args:
            bounds: tiles whose centre lies in ``(west, south, east, north)``; west above east crosses the
                antimeridian; None for all.
            limit: tiles a page, at least 1; fewer where their properties have more than ``PAGE_BYTES``.
            cursor: that of the page before, 0 for the first.
        """
        numbers = self._store.numbers_in(bounds, after=cursor, limit=limit + 1)
        with self._lock:
            tiles = {number: self._tiles[number] for number in numbers[:limit] if number in self._tiles}
        size = 0
        for number, tile in tiles.items():
            size += len(json.dumps(dict(tile.properties)))
            if size > PAGE_BYTES and number != numbers[-1]:
                return Page([each for other, each in tiles.items() if other <= number], number)
        return Page(list(tiles.values()), numbers[limit - 1] if len(numbers) > limit else None)

    def image(self, tile_id: str) -> bytes | None:
        """The image file of a tile, JPEG or WebP, or None if there is no such tile."""
        return self._store.image(tile_id)

    def local_maps(self, ids: Sequence[str]) -> list[LocalMap | None]:
        """The local descriptors of tiles, None for those that have none or that there are none of."""
        with self._lock:
            generation = self._generation
            numbers = [self._numbers.get(tile_id, NO_ID) for tile_id in ids]
            maps = {number: self._maps[number] for number in numbers if number in self._maps}
        maps |= self._store.local_maps([number for number in numbers if number not in maps])
        with self._lock:
            if self._generation == generation:  # else they may be those of a tile that was replaced meanwhile
                for number, local in maps.items():
                    self._maps[number] = local
                    self._maps.move_to_end(number)
                    while len(self._maps) * local.nbytes > CACHED_BYTES:  # those of one model are all of one size
                        self._maps.popitem(last=False)
        return [maps.get(number) for number in numbers]

    @property
    def imports(self) -> Imports:
        """The imports that are kept with the tiles."""
        return self._store.imports

    def snapshot(self, target: Path) -> None:
        """Write a consistent, checked copy of the gallery's file, while it is in use; see ``store_copies.snapshot``."""
        snapshot(self._store, target)

    def check_place(self) -> None:
        """Make sure that the file is where it was; see ``GalleryFile.check_place``, also for what is raised."""
        self._store.file.check_place()

    def close(self) -> None:
        """Close the file and let other processes in."""
        with self._write_lock:
            self._store.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _load(self, path: Path | str) -> None:
        rows = self._store.load()
        while batch := list(islice(rows, LOAD_ROWS)):
            try:
                half = _half([row.embedding for row in batch], self._dim)
            except ValueError as error:
                raise GalleryUnusable(
                    f"The gallery file {Path(path).name} is damaged: {error}. Restore a snapshot (aerofix gallery "
                    "restore FILE), or move the file away and import the maps again."
                ) from error
            self._put([row.number for row in batch], [row.tile for row in batch], half)

    def _forget(self, numbers: list[int]) -> int:
        """Take tiles that the file no longer has from the search."""
        with self._lock:
            self._index.delete(np.array(numbers, np.int64))
            for number in numbers:
                del self._numbers[self._tiles.pop(number).id]
                self._maps.pop(number, None)
            self._extents.drop(numbers)
            self._generation = self._store.generation
        return len(numbers)

    def _put(self, numbers: list[int], tiles: list[Tile], half: NDArray[np.float16]) -> None:
        """Make stored tiles searchable; searches see all of them or none."""
        if not numbers:
            return
        ids = np.array(numbers, np.int64)
        vectors = _unit(half)
        centres = np.array([tile.footprint.centre for tile in tiles])
        generation = self._store.generation
        with self._lock:
            self._index.upsert(ids, vectors, centres)
            self._tiles.update(zip(numbers, tiles, strict=True))
            self._numbers.update((tile.id, number) for number, tile in zip(numbers, tiles, strict=True))
            self._extents.put(numbers, tiles)
            for number in numbers:
                self._maps.pop(number, None)
            self._generation = generation


def _half(embeddings: Sequence[NDArray[Any]], dim: int) -> NDArray[np.float16]:
    """Stack embeddings as they are stored, float16 of shape ``[N, D]``, refusing what has no direction."""
    if not embeddings:
        return np.empty((0, dim), np.float16)
    if any(embedding.shape != (dim,) for embedding in embeddings):
        raise ValueError(f"an embedding does not have {dim} dimensions")
    half = np.stack(embeddings).astype(np.float16)
    if not (np.isfinite(half).all() and half.any(axis=1).all()):
        raise ValueError("an embedding is zero or not finite")
    return half


def _unit(half: NDArray[np.float16]) -> NDArray[np.float32]:
    """Bring rows back to unit length after rounding to float16."""
    wide = half.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    return unit.astype(np.float32)
