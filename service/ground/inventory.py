"""What is in the gallery, in memory: loose pictures as tiles, windows of maps as numbers.

One writer at a time changes it, and readers take no lock: they see whole objects that are replaced, never changed.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from service.geo import Bounds, Circle, union_bounds
from service.ground.extents import Extents
from service.ground.maps import GroundMap
from service.ground.store.store import Store
from service.ground.tile import Tile
from service.ground.windows import TILE_ID, Ids, Lattice, key_of, maps_of, range_of

FIRST_WINDOW = range_of(1)[0]
"""Ids below this are numbers of loose pictures."""

PAGE_CHUNK = 65_536
"""The centres of so many windows are looked at together when a page of them is made."""

Floats = NDArray[np.float64]


class Inventory:
    """Tiles and windows by their ids.

    Args:
        lattice: of the windows.
        generation: number of acknowledged writes.

    Attributes:
        writing: held by the one writer, also while it waits for the disk; no reader waits for it.
        generation: number of acknowledged writes that searches know of.
    """

    def __init__(self, lattice: Lattice, generation: int) -> None:
        self.lattice, self.generation = lattice, generation
        self.writing = threading.Lock()
        self._loose: dict[int, Tile] = {}  # by number in the store, which is the id in the index
        self._numbers: dict[str, int] = {}
        self._extents = Extents()
        self._extents_lock = threading.Lock()
        self._maps: dict[int, GroundMap] = {}
        self._windows: dict[int, Ids] = {}  # of each live map, sorted

    # what is there

    def __len__(self) -> int:
        return len(self._loose) + sum(map(len, self._windows.values()))

    @property
    def maps(self) -> list[GroundMap]:
        """Maps that are searched, in the order in which they were made."""
        live = (each for each in self._maps.values() if each.live)
        return sorted(live, key=lambda each: (each.created_at, each.number))

    def map(self, name: str) -> GroundMap | None:
        """Return the map of this name that is searched."""
        return next((each for each in self.maps if each.name == name), None)

    def map_of(self, number: int) -> GroundMap | None:
        """Return the map with this number, searched or not."""
        return self._maps.get(number)

    def unsearched(self) -> set[int]:
        """Return numbers of maps that are not searched yet."""
        return {number for number, each in self._maps.items() if not each.live}

    def windows_of(self, number: int) -> Ids:
        """Return the ids of a map's windows, ascending."""
        return self._windows.get(number, np.empty(0, np.int64))

    def count_in(self, numbers: Iterable[int], area: Circle | None) -> int:
        """Count the windows of some maps, or of those of them whose centre lies in ``area``."""
        total = 0
        for number in numbers:
            ids = self.windows_of(number)
            for start in range(0, len(ids), PAGE_CHUNK):
                some = ids[start : start + PAGE_CHUNK]
                total += len(some) if area is None else int(area.contains(*self.lattice.centres(some).T).sum())
        return total

    def id_of(self, tile_id: str) -> int | None:
        """Find the id of a loose picture, or of a window called ``MAP/zoom/row/column``; None if there is none."""
        number = self._numbers.get(tile_id)
        if number is not None or (window := TILE_ID.fullmatch(tile_id)) is None:
            return number
        known = self.map(window["map"])
        zoom, row, column = (int(window[part]) for part in ("zoom", "row", "column"))
        if known is None or zoom not in known.levels or max(row, column) >= 2**22:
            return None
        wanted = key_of(known.number, zoom, row, column)
        ids = self.windows_of(known.number)
        at = int(np.searchsorted(ids, wanted))
        return wanted if at < len(ids) and ids[at] == wanted else None

    def tiles(self, ids: Sequence[int]) -> list[Tile | None]:
        """Return loose pictures and windows as tiles, in this order; None for those that are gone."""
        numbers = np.asarray(ids, np.int64)
        names = {number: each.name for number, each in self._maps.items()}
        is_window = numbers >= FIRST_WINDOW
        windows = iter(self.lattice.tiles(numbers[is_window], names))
        loose = self._loose
        return [
            next(windows) if window else loose.get(number)
            for number, window in zip(numbers.tolist(), is_window.tolist(), strict=True)
        ]

    def map_names(self, ids: Ids) -> list[str | None]:
        """Return the map of each id; None for loose pictures."""
        known = self._maps
        return [known[number].name if number in known else None for number in maps_of(ids).tolist()]

    def geometry(self, ids: Ids) -> tuple[Floats, Floats]:
        """Return centres ``lat, lon`` ``[N, 2]`` and sides in metres ``[N]``; NaN for loose pictures that are gone."""
        centres, sides_m = np.full((len(ids), 2), np.nan), np.full(len(ids), np.nan)
        is_window = ids >= FIRST_WINDOW
        centres[is_window] = self.lattice.centres(ids[is_window])
        sides_m[is_window] = self.lattice.sides_m(ids[is_window])
        for i in np.flatnonzero(~is_window).tolist():
            tile = self._loose.get(int(ids[i]))
            if tile is not None:
                centres[i], sides_m[i] = tile.footprint.centre, tile.footprint.side_m
        return centres, sides_m

    def nearest_sides_m(self, ids: Ids, side_m: float) -> Floats:
        """Find for each window the side of that level of its map which is nearest to ``side_m``; a picture's own."""
        nearest_m = self.geometry(ids)[1]
        numbers = maps_of(ids)
        for each in self.maps:
            levels_m = [self.lattice.side_m(zoom, each.lat) for zoom in each.levels]
            if levels_m:
                nearest_m[numbers == each.number] = min(levels_m, key=lambda level_m: abs(math.log(level_m / side_m)))
        return nearest_m

    def sides_m(self) -> tuple[Floats, NDArray[np.int64]]:
        """List the sides in metres, and how many tiles or windows have each: of a map's level, one for all."""
        with self._extents_lock:
            loose = self._extents.rows()[:, 4]
        sides, counts = [loose], [np.ones(len(loose), np.int64)]
        for each in self.maps:
            ids = self.windows_of(each.number)
            edges = np.array([range_of(each.number, zoom) for zoom in each.levels]).reshape(-1, 2)
            found = np.searchsorted(ids, edges[:, 1], "right") - np.searchsorted(ids, edges[:, 0])
            sides.append(np.array([self.lattice.side_m(zoom, each.lat) for zoom in each.levels])[found > 0])
            counts.append(found[found > 0].astype(np.int64))
        return np.concatenate(sides), np.concatenate(counts)

    def median_side_m(self) -> float | None:
        """Return the median of the sides of all tiles and windows, metres; None when there is nothing."""
        sides_m, counts = self.sides_m()
        if not len(sides_m):
            return None
        order = np.argsort(sides_m)
        reached = np.cumsum(counts[order])
        return float(sides_m[order][np.searchsorted(reached, reached[-1] / 2)])

    def bounds(self) -> Bounds | None:
        """Return the smallest bounds of all maps and loose pictures; None when there is nothing."""
        with self._extents_lock:
            rows = self._extents.rows()[:, :4]
        rows = np.vstack([rows, *(np.array([each.bounds]) for each in self.maps)])
        return union_bounds(rows) if len(rows) else None

    def windows_in(self, bounds: Bounds | None, after: int = 0, limit: int | None = None) -> Ids:
        """Return ids above ``after`` of windows whose centre lies in ``(west, south, east, north)``, ascending."""
        found, count = [np.empty(0, np.int64)], 0
        for number in sorted(self._windows):
            ids = self._windows[number]
            ids = ids[np.searchsorted(ids, after, "right") :]
            for start in range(0, len(ids), PAGE_CHUNK):
                some = ids[start : start + PAGE_CHUNK]
                if bounds is not None:
                    some = some[_inside(self.lattice.centres(some), bounds)]
                found.append(some)
                count += len(some)
                if limit is not None and count >= limit:
                    return np.concatenate(found)[:limit]
        return np.concatenate(found)

    # changes, by one writer at a time

    @contextmanager
    def changing(self, store: Store) -> Iterator[None]:
        """Be the one writer; what the block has written is known to searches when it ends."""
        with self.writing:
            yield
            self.generation = store.generation

    def put_loose(self, numbers: Sequence[int], tiles: Sequence[Tile]) -> None:
        """Add or replace loose pictures."""
        with self._extents_lock:
            self._extents.put(numbers, tiles)
        self._loose.update(zip(numbers, tiles, strict=True))
        self._numbers.update((tile.id, number) for number, tile in zip(numbers, tiles, strict=True))

    def drop_loose(self, numbers: Sequence[int]) -> None:
        """Forget loose pictures that are there."""
        for number in numbers:
            del self._numbers[self._loose.pop(number).id]
        with self._extents_lock:
            self._extents.drop(numbers)

    def put_map(self, made: GroundMap) -> None:
        """Add or replace a map; its windows stay."""
        self._maps = self._maps | {made.number: made}

    def drop_map(self, number: int) -> Ids:
        """Forget a map. Returns the ids of its windows."""
        self._maps = {key: value for key, value in self._maps.items() if key != number}
        gone = self.windows_of(number)
        self._windows = {key: value for key, value in self._windows.items() if key != number}
        return gone

    def put_windows(self, number: int, ids: Ids) -> None:
        """Add windows of a map; those that are there stay."""
        known, new = self.windows_of(number), np.sort(ids)
        at = np.searchsorted(known, new)
        is_new = known[np.minimum(at, len(known) - 1)] != new if len(known) else np.ones(len(new), bool)
        self._windows = self._windows | {number: np.insert(known, at[is_new], new[is_new])}

    def drop_windows(self, ids: Ids) -> None:
        """Forget windows."""
        changed = {
            number: np.setdiff1d(self.windows_of(number), ids, assume_unique=True)
            for number in np.unique(maps_of(ids)).tolist()
        }
        self._windows = self._windows | changed


def _inside(centres: Floats, bounds: Bounds) -> NDArray[np.bool_]:
    west, south, east, north = bounds
    lat, lon = centres.T
    along = (lon >= west) & (lon <= east) if west <= east else (lon >= west) | (lon <= east)
    inside: NDArray[np.bool_] = along & (lat >= south) & (lat <= north)
    return inside
