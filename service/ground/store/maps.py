"""The maps in a gallery file: their rows, pixels, windows and descriptors."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from service.errors import InvalidParameter
from service.geo import Bounds
from service.ground.elevation import Elevation, Grid
from service.ground.local_maps import LocalMap, pack, unpack
from service.ground.maps import GroundMap, NewMap
from service.ground.store.file import GalleryFile
from service.ground.store.imports import Step
from service.ground.vectors import Half
from service.ground.windows import MAX_MAP, Ids, maps_of, number_of, range_of

if TYPE_CHECKING:
    from service.ground.store.store import Store

AT_ONCE = 1000
"""So many blocks are asked for in one query: SQLite takes 32,766 values."""

CHECKED_AT_ONCE = 4096
"""So many rows of a table are read between two turns of other threads, when all of it is checked."""

DELETED_AT_ONCE = {"pixels": 500, "blocks": 500, "windows": 50}
"""So many rows of a map are deleted in one write: about 10 MB, a tenth of a second."""

_COLUMNS = (
    "name, origin, west, south, east, north, gsd_m, date, levels, overlap, min_zoom, max_zoom, number, live, created_at"
)


class MapStore:
    """The maps in a gallery file; errors are those of ``GalleryFile``.

    Args:
        store: whose file they are in, and whose transactions they share.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._file = store, store.file
        self._last_number: int | None = None

    def all(self) -> list[GroundMap]:
        """Return the maps, by number."""
        found = []
        for row in self._file.rows(f"SELECT {_COLUMNS} FROM maps ORDER BY number"):  # noqa: S608 - constants
            name, origin, west, south, east, north, gsd_m, date, levels, overlap, *zooms, number, live, created = row
            bounds, levels = (west, south, east, north), tuple(json.loads(levels))
            new = NewMap(name, origin, bounds, gsd_m, date, levels, bool(overlap), *zooms)
            found.append(GroundMap(**vars(new), number=number, live=bool(live), created_at=created))
        return found

    def create(self, new: NewMap, live: bool, import_id: str) -> GroundMap:
        """Make an empty map for an import; without ``live`` it is one that is to replace another.

        Its number is the next free one after the last that was given: a search that began before a map was deleted must
        not take another for it.

        Raises:
            InvalidParameter: there are too many maps.
        """
        created_at = datetime.now(UTC).isoformat(timespec="seconds")
        with self._store.changing() as db:
            taken = {number for (number,) in self._file.rows("SELECT number FROM maps")}
            last = max(taken, default=0) if self._last_number is None else self._last_number
            numbers = chain(range(last + 1, MAX_MAP + 1), range(1, last + 1))
            number = next((n for n in numbers if n not in taken), None)
            if number is None:
                raise InvalidParameter(
                    f"The gallery holds {MAX_MAP} maps already; delete some (aerofix map delete MAP), add pieces of "
                    "one area as one map, or use a second gallery.",
                    limit=MAX_MAP,
                )
            self._last_number = number
            made = GroundMap(**vars(new), number=number, live=live, created_at=created_at)
            values = [new.name, new.origin, *new.bounds, new.gsd_m, new.date, json.dumps(new.levels), new.overlap]
            values += [new.min_zoom, new.max_zoom, number, live, created_at]
            db.execute(f"INSERT INTO maps ({_COLUMNS}) VALUES ({', '.join('?' * len(values))})", values)  # noqa: S608
            self._store.imports.set_map(import_id, number)
            self._store.next_generation()
        return made

    def grow(self, number: int, bounds: Bounds, import_id: str) -> None:
        """Give a map the bounds that it will have when an import has extended it."""
        with self._store.changing() as db:
            query = "UPDATE maps SET west = ?, south = ?, east = ?, north = ? WHERE number = ?"
            db.execute(query, (*bounds, number))
            self._store.imports.set_map(import_id, number)
            self._store.next_generation()

    def go_live(self, number: int) -> int | None:
        """Let a map be searched from now on, in the place of the one of its name.

        Returns:
            That one's number. It is hidden, and to be deleted.
        """
        with self._store.changing() as db:
            name = self._file.one("SELECT name FROM maps WHERE number = ?", number)
            replaced = self._file.one("SELECT number FROM maps WHERE name = ? AND live", name)
            if replaced is not None:
                db.execute("UPDATE maps SET live = 0 WHERE number = ?", (replaced,))
            db.execute("UPDATE maps SET live = 1 WHERE number = ?", (number,))
            self._store.next_generation()
        return None if replaced is None else int(replaced)

    def hide(self, number: int) -> None:
        """Let a map not be searched any more; the next start deletes it if nobody has before."""
        with self._store.changing() as db:
            db.execute("UPDATE maps SET live = 0 WHERE number = ?", (number,))
            self._store.next_generation()

    def delete(self, number: int) -> None:
        """Delete a hidden map and all that belongs to it, piece by piece: others read and write in between."""
        within = "id BETWEEN ? AND ?"
        for table, key, where, values in (
            ("pixels", "id", within, range_of(number)),
            ("blocks", "id", within, range_of(number)),
            ("windows", "number", "map = ?", (number,)),
        ):
            some = f"SELECT {key} FROM {table} WHERE {where} LIMIT {DELETED_AT_ONCE[table]}"  # noqa: S608 - constants
            while self._delete(f"DELETE FROM {table} WHERE {key} IN ({some})", values):  # noqa: S608
                self._file.pause()
        with self._store.changing() as db:
            self._forget_reembedded(number)
            db.execute("DELETE FROM elevations WHERE map = ?", (number,))
            db.execute("DELETE FROM maps WHERE number = ?", (number,))

    def put_tiles(self, tiles: Mapping[int, bytes], step: Step) -> None:
        """Store tiles by their id (``windows.pack``), with the import's progress.

        Raises:
            ImportStopped: the import was cancelled; nothing was kept.
        """
        with self._store.changing():
            self._put_blobs("pixels", "image", tiles)
            for number in {number_of(key) for key in tiles}:
                self._forget_reembedded(number)
            self._store.imports.advance(step, 0, 0)

    def put_windows(self, number: int, ids: Ids, embeddings: Half, blocks: Mapping[int, LocalMap], step: Step) -> int:
        """Store windows, replacing those that are there, and blocks, with the import's progress.

        Returns:
            How many of the windows were not there before.

        Raises:
            ImportStopped: the import was cancelled; nothing was kept.
        """
        with self._store.changing() as db:
            self._forget_reembedded(number)
            known = self._cut_out(number, ids)
            if len(ids):
                db.execute(
                    "INSERT INTO windows (map, ids, embeddings, checksum) VALUES (?, ?, ?, ?)",
                    (number, *packed(ids, embeddings)),
                )
                self._store.next_generation()
            self._put_blobs("blocks", "local", {key: pack(local) for key, local in blocks.items()})
            self._store.imports.advance(step, len(ids) - known, known)
        return len(ids) - known

    def replace_windows(self, number: int, parts: Iterable[tuple[Ids, Half]], on_rows: Callable[[int], object]) -> None:
        """Put other windows in the place of all that a map has, in one write; pixels and descriptors stay.

        Args:
            number: of the map.
            parts: windows with their embeddings.
            on_rows: told how many windows of each part are written.
        """
        with self._store.changing() as db:
            self._forget_reembedded(number)
            db.execute("DELETE FROM windows WHERE map = ?", (number,))
            query = "INSERT INTO windows (map, ids, embeddings, checksum) VALUES (?, ?, ?, ?)"
            for ids, embeddings in parts:
                db.execute(query, (number, *packed(ids, embeddings)))
                on_rows(len(ids))
            self._store.next_generation()

    def delete_windows(self, ids: Ids) -> None:
        """Delete windows of one or several maps; pixels and descriptors stay."""
        with self._store.changing():
            for number in np.unique(maps_of(ids)).tolist():
                first, last = range_of(number)
                self._forget_reembedded(number)
                self._cut_out(number, ids[(ids >= first) & (ids <= last)])
            self._store.next_generation()

    def windows(self, number: int | None = None) -> Iterator[tuple[Ids, Half]]:
        """Read windows and their embeddings in the order in which they were written: of one map, or of all live ones.

        Raises:
            GalleryUnusable: the file is corrupt.
        """
        which = "map = ?" if number is not None else "map IN (SELECT number FROM maps WHERE live)"
        query = f"SELECT number, ids, embeddings, checksum FROM windows WHERE {which} ORDER BY number"  # noqa: S608
        with self._file.lock, self._file.errors():
            for row, ids, embeddings, check in self._file.db.execute(query, () if number is None else (number,)):
                if not isinstance(ids, bytes) or zlib.crc32(embeddings, zlib.crc32(ids)) != check or not ids:
                    self._file.corrupt(f"the windows of row {row} cannot be read")
                numbers = np.frombuffer(ids, "<i8").astype(np.int64)
                yield numbers, np.frombuffer(embeddings, "<f2").reshape(len(numbers), -1)

    def tile(self, key: int) -> bytes | None:
        """Return a stored tile.

        Raises:
            GalleryUnusable: the file is corrupt.
        """
        for image, check in self._file.rows("SELECT image, checksum FROM pixels WHERE id = ?", (key,)):
            return self._file.whole(image, check, f"the pixels of row {key}")
        return None

    def blocks(self, keys: list[int]) -> dict[int, LocalMap]:
        """Return those of these blocks that are there.

        Raises:
            GalleryUnusable: the file is corrupt.
        """
        found: dict[int, LocalMap] = {}
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            query = f"SELECT id, local, checksum FROM blocks WHERE id IN ({', '.join('?' * len(some))})"  # noqa: S608
            for key, local, check in self._file.rows(query, some):
                found[key] = read_local(self._file, key, local, check)
        return found

    def bytes_of(self, number: int) -> int:
        """Return bytes that a map's pixels and descriptors take; 0 when it is gone."""
        return int(self._file.one("SELECT bytes FROM maps WHERE number = ?", number) or 0)

    def put_elevation(self, number: int, elevation: Elevation | None) -> None:
        """Store the heights of a map's ground in the place of those that it has; None: it has none any more."""
        rows = []
        if elevation is not None:  # packed before anybody has to wait for it
            blob = zlib.compress(elevation.heights_m.astype("<f4").tobytes())
            grid = json.dumps(asdict(elevation.grid))
            rows.append((number, grid, len(elevation.heights_m), blob, zlib.crc32(blob)))
        with self._store.changing() as db:
            db.execute("DELETE FROM elevations WHERE map = ?", (number,))
            db.executemany("INSERT INTO elevations VALUES (?, ?, ?, ?, ?)", rows)
            self._store.next_generation()

    def elevation(self, number: int) -> Elevation | None:
        """Return the heights of a map's ground, None when it has none.

        Raises:
            GalleryUnusable: they are damaged.
        """
        query = "SELECT grid, rows, heights, checksum FROM elevations WHERE map = ?"
        for grid, rows, blob, check in self._file.rows(query, (number,)):
            what = f"the elevation of map {number}"
            try:
                heights = np.frombuffer(zlib.decompress(self._file.whole(blob, check, what)), "<f4")
                return Elevation(Grid(**json.loads(grid)), heights.reshape(rows, -1).astype(np.float32))
            except (ValueError, TypeError, zlib.error) as error:
                self._file.corrupt(f"{what} cannot be read", error)
        return None

    def elevation_grid(self, number: int) -> Grid | None:
        """Tell where the heights of a map's ground lie, without those; None when it has none.

        Raises:
            GalleryUnusable: it is damaged.
        """
        found = self._file.one("SELECT grid FROM elevations WHERE map = ?", number)
        try:
            return None if found is None else Grid(**json.loads(found))
        except (ValueError, TypeError) as error:
            self._file.corrupt(f"the elevation of map {number} cannot be read", error)

    def check(self) -> int:
        """Read everything of all maps; returns the number of windows.

        Raises:
            GalleryUnusable: something is damaged, which it names.
        """
        count = 0
        maps = self.all()
        for each in maps:
            for ids, _ in self.windows(each.number):
                first, last = range_of(each.number)
                if ids.min() < first or ids.max() > last:
                    self._file.corrupt(f"the map {each.name} lists windows of another")
                count += len(ids) if each.live else 0
            self.elevation(each.number)
        for table, column in (("pixels", "image"), ("blocks", "local")):
            known = " OR ".join(["0", *(f"id BETWEEN {first} AND {last}" for first, last in _ranges(maps))])
            if self._file.one(f"SELECT EXISTS (SELECT 1 FROM {table} WHERE NOT ({known}))"):  # noqa: S608
                self._file.corrupt(f"it has {table} of maps that it does not list")
            last = 0
            query = f"SELECT id, {column}, checksum FROM {table} WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608
            while rows := self._file.rows(query, (last, CHECKED_AT_ONCE)):
                last = rows[-1][0]
                for key, blob, check in rows:
                    self._file.whole(blob, check, f"row {key} of its {table}")
        if self._file.one("SELECT EXISTS (SELECT 1 FROM elevations WHERE map NOT IN (SELECT number FROM maps))"):
            self._file.corrupt("it has elevations of maps that it does not list")
        if self._file.one("SELECT EXISTS (SELECT 1 FROM windows WHERE map NOT IN (SELECT number FROM maps))"):
            self._file.corrupt("it has windows of maps that it does not list")
        return count

    def _put_blobs(self, table: str, column: str, blobs: Mapping[int, bytes]) -> None:
        """Store blobs in the place of those of the same ids, and count the bytes, inside a transaction."""
        db, keys = self._file.db, list(blobs)
        grown: Counter[int] = Counter()
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            query = f"SELECT id, length({column}) FROM {table} WHERE id IN ({', '.join('?' * len(some))})"  # noqa: S608
            for key, size in self._file.rows(query, some):
                grown[number_of(key)] -= size
        for key, blob in blobs.items():
            grown[number_of(key)] += len(blob)
        rows = [(key, blob, zlib.crc32(blob)) for key, blob in blobs.items()]
        db.executemany(f"REPLACE INTO {table} VALUES (?, ?, ?)", rows)  # noqa: S608 - constants
        changes = [(size, number) for number, size in grown.items()]
        db.executemany("UPDATE maps SET bytes = bytes + ? WHERE number = ?", changes)

    def _delete(self, query: str, values: tuple[int, ...]) -> int:
        """Delete rows in one write; returns how many."""
        with self._store.changing() as db:
            return db.execute(query, values).rowcount

    def _forget_reembedded(self, number: int) -> None:
        """Drop what an interrupted embedding with another model has of a map that changes, inside a transaction."""
        if not self._file.one("SELECT EXISTS (SELECT 1 FROM reembedded_pieces WHERE map = ?)", number):
            return
        for table in ("reembedded_windows", "reembedded_pieces"):
            self._file.db.execute(f"DELETE FROM {table} WHERE map = ?", (number,))  # noqa: S608 - constants
        self._file.db.execute("DELETE FROM reembedded_blocks WHERE id BETWEEN ? AND ?", range_of(number))

    def _cut_out(self, number: int, ids: Ids) -> int:
        """Take windows out of the rows that list them, inside the caller's transaction. Returns how many there were."""
        found = 0
        for row, listed in self._file.rows("SELECT number, ids FROM windows WHERE map = ?", (number,)):
            known = np.frombuffer(listed, "<i8")
            gone = np.isin(known, ids)
            if not gone.any():
                continue
            found += int(gone.sum())
            if gone.all():
                self._file.db.execute("DELETE FROM windows WHERE number = ?", (row,))
                continue
            embeddings = np.frombuffer(self._file.one("SELECT embeddings FROM windows WHERE number = ?", row), "<f2")
            left = embeddings.reshape(len(known), -1)[~gone]
            query = "UPDATE windows SET ids = ?, embeddings = ?, checksum = ? WHERE number = ?"
            self._file.db.execute(query, (*packed(known[~gone], left), row))
        return found


def read_local(file: GalleryFile, row: int, blob: object, check: int) -> LocalMap:
    """Return the stored descriptors.

    Raises:
        GalleryUnusable: they are damaged.
    """
    what = f"the descriptors of row {row}"
    try:
        return unpack(file.whole(blob, check, what))
    except ValueError as error:
        file.corrupt(f"{what} cannot be read", error)


def packed(ids: Ids, embeddings: Half) -> tuple[bytes, bytes, int]:
    """Return the columns of a row of windows."""
    one, two = ids.astype("<i8").tobytes(), np.ascontiguousarray(embeddings).astype("<f2").tobytes()
    return one, two, zlib.crc32(two, zlib.crc32(one))


def _ranges(maps: list[GroundMap]) -> list[tuple[int, int]]:
    return [range_of(each.number) for each in maps]
