"""The gallery as the rest of the service sees it: a file that is the truth, and a vector index derived from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from service.errors import GalleryEmpty, GalleryUnusable
from service.geo import Bounds, Circle
from service.ground.atlas import Atlas
from service.ground.blocks import Blocks, even
from service.ground.index.collection import Collection
from service.ground.index.gpu import make_index
from service.ground.index.protocol import VectorIndex
from service.ground.index.shared import SharedIndex
from service.ground.inventory import FIRST_WINDOW, Inventory
from service.ground.local_maps import LocalCache, LocalMap
from service.ground.records import GalleryInfo, Hit, NewTile, Page
from service.ground.search import Found, search
from service.ground.store.copies import snapshot
from service.ground.store.imports import Imports
from service.ground.store.store import NewRow, Store
from service.ground.tile import Tile
from service.ground.vectors import Half, half
from service.ground.windows import Ids, Lattice
from service.memory import give_back
from service.settings import Settings

if TYPE_CHECKING:
    from service.encoder.contract import ModelContract

PAGE_BYTES = 2**20
"""A page of tiles has at most so many bytes of properties, as JSON: it is made and sent in one go, and a thousand tiles
could have 16 MB."""

DELETED_AT_ONCE = 500
"""So many pictures are deleted in one write: 100 MB with their descriptors. Each write looks through the area anew."""

LOAD_ROWS = 4096
"""So many rows are made searchable at a time: 40 MB in float32 at 1,280 dimensions."""

WINDOW_PX = 224
"""Windows have this side where no model says otherwise: that of the model that we ship."""


class Gallery:
    """Windows of maps and loose pictures that can be searched by embedding. Safe to use from several threads.

    Made by :meth:`open`. Embeddings are stored, and searched, as float16 brought back to unit length: a search gives
    the same scores before and after a restart. Nothing but searches waits for a search.
    """

    def __init__(
        self,
        store: Store,
        index: VectorIndex,
        identity: str,
        embedding_dim: int,
        lattice: Lattice,
        local_shape: tuple[int, int, int] | None,
    ) -> None:
        self._store, self._index = store, index
        self.read_only = store.file.read_only
        """Whether it can only be looked at."""
        self._identity, self._dim = identity, embedding_dim
        self._local_shape = None if local_shape is None else even(local_shape)
        self._inventory = Inventory(lattice, store.generation)
        self._blocks = Blocks(store.maps.blocks)
        self.maps = Atlas(store, index, self._inventory, self._blocks, embedding_dim)
        """Its maps: made, filled, looked at and deleted."""
        self._locals = LocalCache(store.local_maps)
        self._summary: tuple[int, Bounds | None, float | None] = (-1, None, None)

    @classmethod
    def of(cls, settings: Settings, contract: ModelContract, collection: Collection | None = None) -> Gallery:
        """Open the gallery that settings name for a model; see :meth:`open`, also for what is raised."""
        return cls.open(
            settings.gallery,
            contract.identity,
            contract.embedding_dim,
            settings.search_device,
            contract.image_size,
            contract.local_shape,
            collection=collection,
        )

    @classmethod
    def open(
        cls,
        path: Path | str,
        identity: str,
        embedding_dim: int,
        device: str = "cpu",
        window_px: int = WINDOW_PX,
        local_shape: tuple[int, int, int] | None = None,
        read_only: bool = False,
        collection: Collection | None = None,
    ) -> Gallery:
        """Open a gallery file, or create it, and build its index.

        Args:
            path: the file, or ``":memory:"``.
            identity: identity stamp of the loaded model; an empty gallery adopts it.
            embedding_dim: D of the loaded model.
            device: where to search: ``auto``, ``cpu`` or ``cuda``, with the number of a GPU as in ``cuda:1``.
            window_px: side S of the model's input.
            local_shape: ``[C, h, w]`` of the model's local descriptors, if it gives some.
            read_only: only look; see ``GalleryFile``.
            collection: has the vectors; the file is then only looked at.

        Raises:
            IndexUnavailable: the collection cannot be reached.
            GalleryUnusable: the file is corrupt, no gallery, or held by another process.
            ModelMismatch: its embeddings were made with another model.
            DeviceUnavailable: no such device.
            StorageFull: no space for a new file.
        """
        store = Store(path, read_only or collection is not None)
        try:
            store.claim(identity, window_px)
            index = SharedIndex.of(collection, store) if collection else make_index(embedding_dim, device)
            gallery = cls(store, index, identity, embedding_dim, Lattice(window_px), local_shape)
            gallery._load(path)
            index.check()
        except BaseException:
            store.close()
            raise
        return gallery

    # searching and looking

    def find(
        self,
        embedding: NDArray[np.float32],
        k: int,
        area: Circle | None = None,
        maps: Sequence[str] = (),
    ) -> Found:
        """Find the ``k`` most similar windows and pictures for one query ``[D]``, best first; see :meth:`search`."""
        if not len(self._inventory):
            raise GalleryEmpty("The gallery holds no tiles; add a map first: aerofix gallery add SOURCE")
        chosen = [self.maps.get(name) for name in dict.fromkeys(maps)]
        return search(self._index, embedding, min(k, len(self._inventory)), area, chosen)

    def search(
        self, embeddings: NDArray[np.float32], k: int, area: Circle | None = None, maps: Sequence[str] = ()
    ) -> list[list[Hit]]:
        """Find the ``k`` most similar windows and pictures for each query, best first.

        Args:
            embeddings: queries, unit L2 norm, shape ``[N, D]``.
            k: at least 1; fewer hits come back where there is less.
            area: only those whose centre lies in this circle; a list is empty if none does.
            maps: names; only windows of these maps. None given: all of the gallery.

        Raises:
            GalleryEmpty: there is nothing at all.
            MapNotFound: there is no such map.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self._dim or k < 1:
            raise ValueError(f"expected queries of shape [N, {self._dim}] and k >= 1, got {embeddings.shape} and {k}")
        return [self.hits(self.find(embedding, k, area, maps)) for embedding in embeddings]

    def hits(self, found: Found) -> list[Hit]:
        """Return what was found as tiles; those that were deleted meanwhile are left out."""
        tiles, names = self._inventory.tiles(found.ids.tolist()), self._inventory.map_names(found.ids)
        rows = zip(tiles, found.scores.tolist(), names, found.ids.tolist(), strict=True)
        return [Hit(tile, score, None, name, number) for tile, score, name, number in rows if tile is not None]

    def geometry(self, found: Found) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return centres ``lat, lon`` ``[N, 2]`` and sides in metres ``[N]`` of what was found."""
        return self._inventory.geometry(found.ids)

    def nearest_sides_m(self, found: Found, side_m: float) -> NDArray[np.float64]:
        """Find for each window the side of that level of its map which is nearest to ``side_m``; a picture's own."""
        return self._inventory.nearest_sides_m(found.ids, side_m)

    def count(self, area: Circle | None = None, maps: Sequence[str] = ()) -> int:
        """Count windows and pictures: all, those whose centre lies in ``area``, or those in some maps."""
        if maps:
            return self._inventory.count_in({self.maps.get(name).number for name in maps}, area)
        return len(self._inventory) if area is None else self._index.count(area)

    def info(self) -> GalleryInfo:
        """Describe the gallery; bounds and tile side are computed once a generation."""
        generation = self._inventory.generation
        known, bounds, side_m = self._summary
        if known != generation:
            bounds, side_m = self._inventory.bounds(), self._inventory.median_side_m()
            self._summary = (generation, bounds, side_m)
        count, maps = len(self._inventory), len(self._inventory.maps)
        return GalleryInfo(count, bounds, generation, self._identity, self._index.describe(), side_m, maps)

    @property
    def generation(self) -> int:
        """Number of acknowledged writes that searches know of."""
        return self._inventory.generation

    @property
    def lattice(self) -> Lattice:
        """The lattice of its windows."""
        return self._inventory.lattice

    def sides_m(self) -> NDArray[np.float64]:
        """List the sides in metres of tiles and windows: each loose picture's, and one for each level of a map."""
        return self._inventory.sides_m()[0]

    def tile(self, tile_id: str) -> Tile | None:
        """Return the tile with this id, or None; of a window that is ``MAP/zoom/row/column``."""
        number = self._inventory.id_of(tile_id)
        return None if number is None else self._inventory.tiles([number])[0]

    def page(self, bounds: Bounds | None, limit: int, cursor: int = 0) -> Page:
        """List loose pictures, in the order of their first upsert, then windows, map by map.

        One that is there throughout is in exactly one page.

        Args:
            bounds: tiles whose centre lies in ``(west, south, east, north)``; west above east crosses the
                antimeridian; None for all.
            limit: tiles a page, at least 1; fewer where their properties have more than ``PAGE_BYTES``.
            cursor: that of the page before, 0 for the first.
        """
        numbers: list[int] = []
        if cursor < FIRST_WINDOW:
            numbers = self._store.numbers_in(bounds, after=cursor, limit=limit + 1)
        if len(numbers) <= limit:
            after = max(cursor, FIRST_WINDOW - 1)
            numbers += self._inventory.windows_in(bounds, after, limit + 1 - len(numbers)).tolist()
        tiles, size = list[Tile](), 0
        for number, tile in zip(numbers[:limit], self._inventory.tiles(numbers[:limit]), strict=True):
            if tile is not None:
                tiles.append(tile)
                size += len(json.dumps(dict(tile.properties)))
                if size > PAGE_BYTES and number != numbers[-1]:
                    return Page(tiles, number)
        return Page(tiles, numbers[limit - 1] if len(numbers) > limit else None)

    def image(self, tile_id: str) -> bytes | None:
        """Return the image file of a tile, JPEG or WebP, or None if there is no such tile."""
        number = self._inventory.id_of(tile_id)
        if number is None or number < FIRST_WINDOW:
            return self._store.image(tile_id)
        return self.maps.window(number)

    def local_maps(self, hits: Sequence[Hit]) -> list[LocalMap | None]:
        """Return the local descriptors of what a search found, None for those that have none or are gone."""
        numbers = np.array([hit.number for hit in hits], np.int64)
        is_window = numbers >= FIRST_WINDOW
        windows: list[LocalMap | None] = [None] * int(is_window.sum())
        if self._local_shape is not None and len(windows):
            windows = self._blocks.windows(numbers[is_window], self._local_shape)
        loose, each = self._locals.get(numbers[~is_window].tolist()), iter(windows)
        return [
            next(each) if window else loose.get(int(number)) for number, window in zip(numbers, is_window, strict=True)
        ]

    def cells(self, number: int, zoom: int, top: int, left: int, height: int, width: int) -> LocalMap | None:
        """Return local descriptors ``[C, height, width]`` of any rectangle of a map's cells; None where there are none.

        Cell ``(i, j)`` of window ``(row, column)`` is cell ``(row · h/2 + i, column · w/2 + j)`` of its level, with
        h and w those of a window's map.

        Args:
            number: of the map, as ``windows.maps_of`` gives it.
            zoom: level.
            top: first row of cells.
            left: first column.
            height: number of rows.
            width: number of columns.
        """
        if self._local_shape is None:
            return None
        channels, *window = self._local_shape
        wanted = [(number, zoom, top, left)]
        return self._blocks.rectangles(wanted, (channels, height, width), (window[0], window[1]))[0]

    # loose pictures

    def upsert(self, tiles: Sequence[NewTile]) -> list[Literal["added", "updated"]]:
        """Store loose pictures in one transaction; on return they are on the disk and can be found.

        Args:
            tiles: of several with one id the last stays.

        Raises:
            StorageFull: the disk is full; none of them was kept.
            ValueError: an embedding is not finite, zero, or of the wrong length.
        """
        vectors = half([new.embedding for new in tiles], self._dim)
        with self._inventory.changing(self._store):
            rows = [NewRow(new.tile, vector, new.image, new.local) for new, vector in zip(tiles, vectors, strict=True)]
            written = self._store.upsert(rows) if rows else []
            last = {number: position for position, (number, _) in enumerate(written)}
            self._put(list(last), [tiles[i].tile for i in last.values()], vectors[list(last.values())])
        return ["added" if is_new else "updated" for _, is_new in written]

    def delete(self, ids: Sequence[str]) -> int:
        """Delete pictures and windows; unknown ids are ignored. Returns how many there were; no search finds them."""
        with self._inventory.changing(self._store):
            numbers = [self._inventory.id_of(tile_id) or 0 for tile_id in dict.fromkeys(ids)]
            windows = np.array([number for number in numbers if number >= FIRST_WINDOW], np.int64)
            return self._forget(self._store.delete(ids)) + self._forget_windows(windows)

    def delete_in(self, bounds: Bounds) -> int:
        """Delete pictures and windows whose centre lies in ``(w, s, e, n)``, piece by piece. Returns how many."""
        deleted, is_last = 0, False
        while not is_last:
            with self._inventory.changing(self._store):
                numbers = self._store.delete_in(bounds, DELETED_AT_ONCE)
                deleted += self._forget(numbers)
                is_last = len(numbers) < DELETED_AT_ONCE
                if is_last:
                    deleted += self._forget_windows(self._inventory.windows_in(bounds))
            self._store.file.pause()
        return deleted

    @property
    def imports(self) -> Imports:
        """The imports that are kept with the maps."""
        return self._store.imports

    def snapshot(self, target: Path, is_stopped: Callable[[], bool]) -> None:
        """Write a consistent, checked copy of the gallery's file, while it is in use; see ``copies.snapshot``."""
        snapshot(self._store, target, is_stopped)

    def check(self) -> None:
        """Make sure that the file is where it was, and that searches are answered.

        Raises:
            GalleryUnusable: the file is not; see ``GalleryFile.check_place``.
            IndexUnavailable: see ``VectorIndex.check``.
        """
        self._store.file.check_place()
        self._index.check()

    def check_writable(self) -> None:
        """Make sure that the gallery can be changed; see ``GalleryFile.check_writable``, also for what is raised."""
        self._store.file.check_writable()

    def close(self) -> None:
        """Close the file and let other processes in."""
        with self._inventory.writing:
            self._store.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _load(self, path: Path | str) -> None:
        try:
            self.maps.load()
            rows = self._store.load()
            while batch := list(islice(rows, LOAD_ROWS)):
                vectors = half([row.embedding for row in batch], self._dim)
                self._put([row.number for row in batch], [row.tile for row in batch], vectors)
            give_back()
        except ValueError as error:
            raise GalleryUnusable(
                f"The gallery file {Path(path).name} is damaged: {error}. Restore a snapshot (aerofix gallery restore "
                "FILE), or move the file away and import the maps again."
            ) from error

    def _forget(self, numbers: list[int]) -> int:
        """Take loose pictures that the file no longer has from the search."""
        self._index.delete(np.array(numbers, np.int64))
        self._inventory.drop_loose(numbers)
        self._locals.forget(numbers)
        return len(numbers)

    def _forget_windows(self, ids: Ids) -> int:
        """Delete windows, which leaves their pixels and descriptors where they are."""
        if len(ids):
            self._store.maps.delete_windows(ids)
            self._index.delete(ids)
            self._inventory.drop_windows(ids)
        return len(ids)

    def _put(self, numbers: list[int], tiles: list[Tile], vectors: Half) -> None:
        """Make stored pictures searchable."""
        if not numbers:
            return
        self._inventory.put_loose(numbers, tiles)
        centres = np.array([tile.footprint.centre for tile in tiles])
        self._index.upsert(np.array(numbers, np.int64), vectors, centres)
        self._locals.forget(numbers)
