"""The maps of a gallery: made, filled, looked at and deleted."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import MapNotFound
from service.geo import Bounds
from service.ground.blocks import Blocks
from service.ground.elevation import Elevation, Elevations, Grid
from service.ground.index.protocol import VectorIndex
from service.ground.inventory import Inventory
from service.ground.local_maps import LocalMap
from service.ground.maps import GroundMap, NewMap
from service.ground.pyramid import Cutter
from service.ground.store.imports import Step
from service.ground.store.store import Store
from service.ground.vectors import Half, gathered, half
from service.ground.windows import Ids, cells_of, key_of, maps_of, range_of, zooms_of

LOAD_ROWS = 16_384
"""So many windows are made searchable at a time: 67 MB in float32 at 512 dimensions."""

SHOWN_QUALITY = 90
"""A window that somebody looks at is a WebP of this quality."""


class Atlas:
    """The maps of a gallery. Safe to use from several threads; made by ``Gallery``, with whom it shares its parts.

    Args:
        store: the file.
        index: finds windows.
        inventory: knows them.
        blocks: keeps their descriptors at hand.
        dim: of embeddings.
    """

    def __init__(self, store: Store, index: VectorIndex, inventory: Inventory, blocks: Blocks, dim: int) -> None:
        self._store, self._index, self._inventory, self._blocks, self._dim = store, index, inventory, blocks, dim
        self._elevations = Elevations(store.maps.elevation, store.maps.elevation_grid)

    # looking

    def all(self) -> list[GroundMap]:
        """Return maps that are searched, in the order in which they were made."""
        return self._inventory.maps

    def get(self, name: str) -> GroundMap:
        """Return the map of this name.

        Raises:
            MapNotFound: there is none.
        """
        found = self.find(name)
        if found is None:
            raise MapNotFound(f"there is no map {name!r:.120}; GET /maps (aerofix map list) lists them.")
        return found

    def find(self, name: str) -> GroundMap | None:
        """Return the map of this name, or None."""
        return self._inventory.map(name)

    def by_number(self, number: int) -> GroundMap | None:
        """Return a map, also one that is not searched yet."""
        return self._inventory.map_of(number)

    def windows(self, known: GroundMap) -> int:
        """Tell how many windows a map has."""
        return len(self._inventory.windows_of(known.number))

    def size_bytes(self, known: GroundMap) -> int:
        """Tell how many bytes a map takes in the file: pixels, embeddings and descriptors."""
        embeddings = 2 * self._dim * self.windows(known)
        return self._store.maps.bytes_of(known.number) + embeddings

    def tile(self, known: GroundMap, zoom: int, x: int, y: int) -> bytes | None:
        """Read a tile of a map's pixels, a WebP file; None where the map shows nothing, and at zooms that it lacks."""
        inside = known.min_zoom <= zoom <= known.max_zoom and 0 <= x < 2**zoom and 0 <= y < 2**zoom
        return self._read(known.number, zoom, x, y) if inside else None

    def cutter(self, number: int) -> Cutter:
        """Reads the pixels of a map; for one thread at a time."""
        return Cutter(lambda zoom, x, y: self._read(number, zoom, x, y))

    def window(self, number: int) -> bytes:
        """Return the picture of a window, by its number, as a WebP file."""
        ids, lattice = np.array([number]), self._inventory.lattice
        (row,), (column,) = (part.tolist() for part in cells_of(ids))
        side, step = lattice.side_px, lattice.step_px
        cutter = self.cutter(int(maps_of(ids)[0]))
        pixels, _ = cutter.cut(int(zooms_of(ids)[0]), column * step, row * step, side, side)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "WEBP", quality=SHOWN_QUALITY)
        return out.getvalue()

    def elevation(self, known: GroundMap) -> Elevation | None:
        """Tell how high a map's ground is; None when nobody told."""
        return self._elevations.get(known.number)

    def elevation_grid(self, known: GroundMap) -> Grid | None:
        """Tell where the heights of a map's ground lie, without reading those; None when nobody told."""
        return self._elevations.grid(known.number)

    # changing

    def create(self, new: NewMap, live: bool, import_id: str) -> GroundMap:
        """Make an empty map for an import; see ``MapStore.create``."""
        with self._inventory.changing(self._store):
            made = self._store.maps.create(new, live, import_id)
            self._inventory.put_map(made)
        return made

    def grow(self, known: GroundMap, bounds: Bounds, import_id: str) -> GroundMap:
        """Note that an import lets a map cover these bounds."""
        with self._inventory.changing(self._store):
            self._store.maps.grow(known.number, bounds, import_id)
            grown = replace(known, bounds=bounds)
            self._inventory.put_map(grown)
        return grown

    def put_tiles(self, tiles: Mapping[int, bytes], step: Step) -> None:
        """Store tiles of pixels by their ids (``windows.pack``), with the import's progress in one transaction."""
        with self._inventory.changing(self._store):
            self._store.maps.put_tiles(tiles, step)

    def put_windows(
        self,
        number: int,
        ids: Ids,
        embeddings: Sequence[NDArray[np.float32]],
        blocks: Mapping[int, LocalMap],
        step: Step,
    ) -> None:
        """Store windows of a map, and blocks of descriptors, with the import's progress in one transaction.

        On return they are on the disk and, when the map is live, can be found.

        Raises:
            StorageFull, ImportStopped: nothing of it was kept.
        """
        vectors = half(embeddings, self._dim)
        with self._inventory.changing(self._store):
            self._store.maps.put_windows(number, ids, vectors, blocks, step)
            self._blocks.forget(blocks)
            known = self._inventory.map_of(number)
            if known is not None and known.live:
                self._put(number, ids, vectors)

    def finish(self, number: int) -> None:
        """Let a map be searched that was imported to replace another, which is gone then; others stay as they are."""
        with self._inventory.changing(self._store):
            known = self._inventory.map_of(number)
            if known is None or known.live:
                return
            replaced = self._store.maps.go_live(number)
            if replaced is not None:
                self._forget(replaced)
            self._inventory.put_map(replace(known, live=True))
            self._load(number)
        if replaced is not None:
            self._erase(replaced)

    def put_elevation(self, known: GroundMap, elevation: Elevation | None) -> None:
        """Store how high a map's ground is, in the place of what was known; None forgets it.

        Raises:
            MapNotFound: the map is gone.
        """
        with self._inventory.changing(self._store):
            if self._inventory.map_of(known.number) != known:
                raise MapNotFound(f"the map {known.name!r:.120} was changed meanwhile; send its elevation again.")
            self._store.maps.put_elevation(known.number, elevation)
            self._elevations.forget(known.number)

    def delete(self, number: int) -> None:
        """Delete a map; no photo finds it from then on. One that is gone is left at that."""
        with self._inventory.changing(self._store):
            if self._inventory.map_of(number) is None:
                return
            self._store.maps.hide(number)
            self._forget(number)
        self._erase(number)

    def drop_unfinished(self, needed: set[int]) -> None:
        """Delete maps that are not searched, but for those that an import goes on with: ``needed``.

        They were to replace others, or a crash left them half deleted.
        """
        for number in self._inventory.unsearched() - needed:
            self.delete(number)

    def load(self) -> None:
        """Read all maps, and make the windows of live ones searchable.

        Raises:
            GalleryUnusable: the file is damaged.
            ValueError: an embedding is.
        """
        for each in self._store.maps.all():
            self._inventory.put_map(each)
        for each in self._inventory.maps:
            self._load(each.number)

    def _load(self, number: int) -> None:
        for ids, vectors in gathered(self._store.maps.windows(number), LOAD_ROWS):
            if vectors.shape[1] != self._dim:
                raise ValueError(f"an embedding does not have {self._dim} dimensions")
            self._put(number, ids, vectors)

    def _put(self, number: int, ids: Ids, vectors: Half) -> None:
        """Make stored windows of a live map searchable."""
        if len(ids):
            self._inventory.put_windows(number, ids)
            self._index.upsert(ids, vectors, self._inventory.lattice.centres(ids))

    def _erase(self, number: int) -> None:
        """Delete what is stored of a hidden map.

        Photos under way may read it until then, and what they read would be taken for that of the next map to get the
        number.
        """
        self._store.maps.delete(number)
        self._forget_read(number)

    def _forget(self, number: int) -> None:
        self._index.delete(self._inventory.drop_map(number))
        self._forget_read(number)

    def _forget_read(self, number: int) -> None:
        self._elevations.forget(number)
        self._blocks.forget_map(*range_of(number))

    def _read(self, number: int, zoom: int, x: int, y: int) -> bytes | None:
        return self._store.maps.tile(key_of(number, zoom, y, x))
