"""The gallery's file: one SQLite database, the only copy that counts, and the only place with SQL.

A write is acknowledged after it is committed and synced (WAL, ``synchronous=FULL``): it survives ``kill -9`` and a
power cut. SQLite's exclusive locking mode keeps other processes out for as long as the file is open.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from service.errors import AerofixError, GalleryUnusable, ModelMismatch, StorageFull
from service.gallery.tile import Footprint, Tile
from service.geo import Bounds

MEMORY = ":memory:"
APPLICATION_ID = 0x41464958
"""ASCII "AFIX", in the header of every gallery file (``PRAGMA application_id``)."""

NO_ACCESS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR)

SCHEMA_VERSION = 1
SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO meta VALUES ('identity', NULL), ('generation', 0);
-- AUTOINCREMENT: the number of a deleted tile never comes back, so it can be a page cursor and an index id.
CREATE TABLE tiles (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    corners TEXT NOT NULL,      -- JSON, four [lat, lon] clockwise from top-left
    gsd_m REAL NOT NULL,
    lat REAL NOT NULL,          -- of the centre
    lon REAL NOT NULL,
    properties TEXT NOT NULL,   -- JSON object
    generation INTEGER NOT NULL,
    embedding BLOB NOT NULL     -- little-endian float16
);
-- What only one tile at a time is asked for lies apart, so that a start does not read through it.
CREATE TABLE details (
    number INTEGER PRIMARY KEY REFERENCES tiles,
    thumbnail BLOB NOT NULL,    -- JPEG
    local BLOB                  -- int8 descriptors of the model's `local` head, if it has one
);
CREATE VIRTUAL TABLE centres USING rtree (number, south, north, west, east);
PRAGMA application_id = 0x41464958;
PRAGMA user_version = 1;
COMMIT;
"""


@dataclass(frozen=True)
class Row:
    """A tile as it is stored: its number in the file and its embedding, float16 of shape ``[D]``."""

    number: int
    tile: Tile
    embedding: NDArray[np.float16]


class Store:
    """An open gallery file. Safe to use from several threads; one transaction at a time.

    Args:
        path: the file; created if missing. ``":memory:"`` keeps everything in memory and nothing on disk.

    Raises:
        GalleryUnusable: the file is no gallery, corrupt, of another schema version, held by another process, or its
            folder cannot be written.
        StorageFull: no space for a new file.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        self._lock = threading.RLock()
        with self._errors():
            self._db = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            with self._errors():
                self._prepare()
        except AerofixError:
            self._db.close()
            raise

    @property
    def identity(self) -> str | None:
        """Identity stamp of the model that made the embeddings; None before the first."""
        value = self._one("SELECT value FROM meta WHERE key = 'identity'")
        return None if value is None else str(value)

    @property
    def generation(self) -> int:
        """Number of acknowledged writes."""
        return int(str(self._one("SELECT value FROM meta WHERE key = 'generation'")))

    def claim(self, identity: str) -> None:
        """Make sure that the stored embeddings are of the model with this stamp; an empty gallery adopts it.

        Raises:
            ModelMismatch: there are tiles of another model.
        """
        with self._transaction():
            stored = self.identity
            if stored != identity and self._one("SELECT EXISTS (SELECT 1 FROM tiles)"):
                raise ModelMismatch(
                    f"The gallery {self._path} was made with the model {stored}, but {identity} is loaded. Start with "
                    "that model, or embed the gallery again with this one: aerofix gallery reembed",
                    gallery=str(stored),
                    model=identity,
                )
            self._db.execute("UPDATE meta SET value = ? WHERE key = 'identity'", (identity,))

    def upsert(self, tiles: Sequence[tuple[Tile, NDArray[np.float16], bytes]]) -> list[tuple[int, bool]]:
        """Write tiles in one transaction, replacing those with the same id.

        Args:
            tiles: tile, embedding of shape ``[D]``, JPEG thumbnail.

        Returns:
            For each tile its number, and whether it is new.

        Raises:
            StorageFull: the disk is full; none of the tiles was kept.
        """
        with self._transaction():
            generation = self._next_generation()
            return [self._write(tile, embedding, thumbnail, generation) for tile, embedding, thumbnail in tiles]

    def delete(self, ids: Sequence[str]) -> list[int]:
        """Delete tiles in one transaction; unknown ids are ignored. Returns the numbers of those deleted."""
        with self._transaction():
            numbers = []
            for tile_id in ids:
                row = self._db.execute("DELETE FROM tiles WHERE id = ? RETURNING number", (tile_id,)).fetchone()
                if row:
                    self._db.execute("DELETE FROM details WHERE number = ?", row)
                    self._db.execute("DELETE FROM centres WHERE number = ?", row)
                    numbers.append(int(row[0]))
            if numbers:
                self._next_generation()
            return numbers

    def load(self) -> Iterator[Row]:
        """Read all tiles with their embeddings, by number.

        Raises:
            GalleryUnusable: the file is corrupt.
        """
        with self._lock, self._errors():
            query = "SELECT number, id, corners, gsd_m, properties, embedding FROM tiles ORDER BY number"
            for number, tile_id, corners, gsd_m, properties, embedding in self._db.execute(query):
                try:
                    top_left, top_right, bottom_right, bottom_left = ((lat, lon) for lat, lon in json.loads(corners))
                    footprint = Footprint((top_left, top_right, bottom_right, bottom_left), gsd_m)
                    tile = Tile(tile_id, footprint, json.loads(properties))
                    vector = np.frombuffer(embedding, "<f2").astype(np.float16)
                except (ValueError, TypeError, AerofixError) as error:
                    self._corrupt(f"row {number} cannot be read", error)
                yield Row(number, tile, vector)

    def thumbnail(self, tile_id: str) -> bytes | None:
        """The JPEG thumbnail of a tile, or None if there is no such tile."""
        query = "SELECT thumbnail FROM tiles JOIN details USING (number) WHERE id = ?"
        value = self._one(query, tile_id)
        return value if isinstance(value, bytes) else None

    def numbers_in(self, bounds: Bounds, after: int, limit: int) -> list[int]:
        """Numbers above ``after`` of tiles whose centre lies in the bounds, ascending, at most ``limit``."""
        west, south, east, north = bounds
        # The R*Tree holds float32, rounded outwards: it proposes, the columns of `tiles` decide.
        longitudes = "({0}west <= :east AND {0}east >= :west)"
        exact = "(lon BETWEEN :west AND :east)"
        if west > east:  # over the antimeridian
            longitudes = "({0}west <= :east OR {0}east >= :west)"
            exact = "(lon <= :east OR lon >= :west)"
        query = f"""
            SELECT number FROM centres JOIN tiles USING (number)
            WHERE centres.south <= :north AND centres.north >= :south AND {longitudes.format("centres.")}
            AND lat BETWEEN :south AND :north AND {exact} AND number > :after ORDER BY number LIMIT :limit
        """  # noqa: S608 - built from the constants above
        values = {"west": west, "south": south, "east": east, "north": north, "after": after, "limit": limit}
        with self._lock, self._errors():
            return [int(number) for (number,) in self._db.execute(query, values)]

    def close(self) -> None:
        """Close the file and let other processes in; further calls raise GalleryUnusable."""
        with self._lock:
            self._db.close()

    def _prepare(self) -> None:
        """Take the lock, check that the file is ours, and create the tables in a new one."""
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")  # before WAL: then no shared-memory file is needed
        self._db.execute("BEGIN EXCLUSIVE")  # takes the lock now, not at the first write; kept until close
        self._db.execute("COMMIT")
        application_id = self._one("PRAGMA application_id")
        version = self._one("PRAGMA user_version")
        is_new = application_id == 0 and version == 0 and not self._one("SELECT count(*) FROM sqlite_master")
        if not is_new and application_id != APPLICATION_ID:
            raise GalleryUnusable(f"{self._path} is a database, but not an aerofix gallery; name another file.")
        if not is_new and version != SCHEMA_VERSION:
            raise GalleryUnusable(
                f"The gallery {self._path} has schema version {version}, this aerofix reads version {SCHEMA_VERSION}; "
                "use the aerofix that made it, or import the maps into a new gallery."
            )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        if is_new:
            self._db.executescript(SCHEMA)

    def _write(self, tile: Tile, embedding: NDArray[np.float16], thumbnail: bytes, generation: int) -> tuple[int, bool]:
        known = self._one("SELECT number FROM tiles WHERE id = ?", tile.id)
        lat, lon = tile.footprint.centre
        values = (
            known,  # NULL: the next free number
            tile.id,
            json.dumps(tile.footprint.corners),
            tile.footprint.gsd_m,
            lat,
            lon,
            json.dumps(dict(tile.properties)),
            generation,
            embedding.astype("<f2").tobytes(),
        )
        number = self._db.execute("REPLACE INTO tiles VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values).lastrowid
        self._db.execute("REPLACE INTO details (number, thumbnail) VALUES (?, ?)", (number, thumbnail))
        self._db.execute("REPLACE INTO centres VALUES (?, ?, ?, ?, ?)", (number, lat, lat, lon, lon))
        return int(number or 0), known is None

    def _next_generation(self) -> int:
        query = "UPDATE meta SET value = value + 1 WHERE key = 'generation' RETURNING value"
        return int(self._db.execute(query).fetchone()[0])

    def _one(self, query: str, *values: object) -> object:
        """The first column of the first row, or None."""
        with self._lock, self._errors():
            row = self._db.execute(query, values).fetchone()
        return row[0] if row else None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn SQLite's errors into ours, which name the file and the fix."""
        try:
            yield
        except sqlite3.ProgrammingError as error:
            if "closed" not in str(error):
                raise  # a mistake of ours, not of the file
            raise GalleryUnusable(f"The gallery {self._path} is closed; open it again.") from error
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
            if code == sqlite3.SQLITE_FULL:
                raise StorageFull(
                    f"No space left for the gallery {self._path}; nothing of this write was kept. Free space on its "
                    "disk, or move the file to a larger one."
                ) from error
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise GalleryUnusable(
                    f"The gallery {self._path} is in use by another process; stop that one, or talk to it with --url."
                ) from error
            if code in NO_ACCESS:
                raise GalleryUnusable(
                    f"The gallery {self._path} cannot be opened for writing ({error}); check that its folder exists, "
                    "that this user may write to both, and that the disk is in order."
                ) from error
            self._corrupt(str(error), error)

    def _corrupt(self, why: str, error: Exception) -> NoReturn:
        raise GalleryUnusable(
            f"The gallery file {self._path} is damaged ({why}). Restore a snapshot (aerofix gallery restore FILE), or "
            "move the file away and import the maps again."
        ) from error
