"""The loose pictures in a gallery file, which is the only copy that counts. SQL is in this folder only."""

from __future__ import annotations

import json
import logging
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import AerofixError, InvalidParameter, ModelMismatch
from service.geo import Bounds
from service.ground.local_maps import LocalMap, pack
from service.ground.store.file import GalleryFile
from service.ground.store.imports import Imports
from service.ground.store.maps import MapStore, read_local
from service.ground.store.schema import checksum, columns_of
from service.ground.tile import Footprint, Tile

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """A tile as it is stored: its number in the file and its embedding, float16 of shape ``[D]``."""

    number: int
    tile: Tile
    embedding: NDArray[np.float16]


class NewRow(NamedTuple):
    """A tile to store: its embedding of shape ``[D]``, its image file, and its descriptors if the model gives some."""

    tile: Tile
    embedding: NDArray[np.float16]
    image: bytes
    local: LocalMap | None = None


class Store:
    """An open gallery file. Safe to use from several threads; one transaction at a time.

    Args:
        path, read_only: see ``GalleryFile``, also for what is raised.
    """

    def __init__(self, path: Path | str, read_only: bool = False) -> None:
        self.file = GalleryFile(path, read_only)
        self.imports = Imports(self.file)
        self.maps = MapStore(self)
        self.generation = self._read_generation()
        """Number of acknowledged writes."""

    @property
    def identity(self) -> str | None:
        """Identity stamp of the model that made the embeddings; None before the first."""
        value = self.file.one("SELECT value FROM meta WHERE key = 'identity'")
        return None if value is None else str(value)

    @property
    def window_px(self) -> int | None:
        """Side of the windows that its maps are embedded in; None before the first model."""
        value = self.file.one("SELECT value FROM meta WHERE key = 'window_px'")
        return None if value is None else int(value)

    def claim(self, identity: str, window_px: int) -> None:
        """Make sure that the stored embeddings are of the model with this stamp; an empty gallery adopts it.

        Args:
            identity: of the model.
            window_px: side of its input.

        Raises:
            ModelMismatch: there are tiles or windows of another model.
        """
        with self.file.one_moment() if self.file.read_only else self.file.transaction():
            stored = self.identity
            filled = "SELECT EXISTS (SELECT 1 FROM tiles) OR EXISTS (SELECT 1 FROM maps)"
            if stored != identity and self.file.one(filled):
                raise ModelMismatch(
                    f"The gallery {self.file.name} was made with the model {stored}, but {identity} is loaded. Start "
                    "with that model, or embed the gallery again with this one: aerofix gallery reembed --gallery "
                    f"{self.file.name}",
                    gallery=str(stored),
                    model=identity,
                )
            if not self.file.read_only:
                self.file.db.execute("UPDATE meta SET value = ? WHERE key = 'identity'", (identity,))
                self.file.db.execute("UPDATE meta SET value = ? WHERE key = 'window_px'", (window_px,))

    def upsert(self, tiles: Sequence[NewRow]) -> list[tuple[int, bool]]:
        """Write tiles in one transaction, replacing those with the same id.

        Args:
            tiles: of several with one id the last stays.

        Returns:
            For each tile its number, and whether it is new.

        Raises:
            StorageFull: the disk is full; none of the tiles was kept.
        """
        with self.changing():
            generation = self.next_generation() if tiles else self.generation
            written = [self._write(generation, *new) for new in tiles]
        return written

    def delete(self, ids: Sequence[str]) -> list[int]:
        """Delete tiles in one transaction; unknown ids are ignored. Returns the numbers of those deleted."""
        with self.changing():
            found = (self.file.one("SELECT number FROM tiles WHERE id = ?", tile_id) for tile_id in dict.fromkeys(ids))
            return self._delete([number for number in found if number is not None])

    def delete_in(self, bounds: Bounds, limit: int = -1) -> list[int]:
        """Delete the first ``limit`` tiles that :meth:`numbers_in` lists, in one transaction. Returns their numbers."""
        with self.changing():
            return self._delete(self.numbers_in(bounds, limit=limit))

    def load(self) -> Iterator[Row]:
        """Read all tiles with their embeddings, by number.

        Raises:
            GalleryUnusable: the file is corrupt.
        """
        counts = "SELECT (SELECT count(*) FROM tiles) = (SELECT count(*) FROM centres)"
        if not self.file.one(counts):
            self.file.corrupt("its spatial index does not list every tile")
        with self.file.lock, self.file.errors():
            query = "SELECT number, id, corners, gsd_m, properties, embedding, checksum FROM tiles ORDER BY number"
            for number, tile_id, corners, gsd_m, properties, embedding, check in self.file.db.execute(query):
                try:
                    if checksum(tile_id, corners, gsd_m, properties, embedding) != check:
                        raise ValueError("its checksum differs")
                    top_left, top_right, bottom_right, bottom_left = ((lat, lon) for lat, lon in json.loads(corners))
                    footprint = Footprint((top_left, top_right, bottom_right, bottom_left), gsd_m)
                    tile = _tile(tile_id, footprint, properties)
                    vector = np.frombuffer(embedding, "<f2").astype(np.float16)
                except (ValueError, TypeError, AttributeError, AerofixError) as error:
                    self.file.corrupt(f"row {number} cannot be read", error)
                yield Row(number, tile, vector)

    def image(self, tile_id: str) -> bytes | None:
        """Return the image file of a tile, or None if there is no such tile.

        Raises:
            GalleryUnusable: the file is corrupt.
        """
        query = "SELECT number, image, details.checksum FROM tiles JOIN details USING (number) WHERE id = ?"
        for number, image, check in self.file.rows(query, (tile_id,)):
            return self.file.whole(image, check, f"the image of row {number}")
        return None

    def local_maps(self, numbers: Sequence[int]) -> dict[int, LocalMap]:
        """Return local descriptors by tile number; tiles without are left out.

        Raises:
            GalleryUnusable: the file is corrupt.
        """
        marks = ", ".join("?" * len(numbers))
        query = f"SELECT number, local, checksum FROM descriptors WHERE number IN ({marks})"  # noqa: S608
        rows = self.file.rows(query, numbers)
        return {number: read_local(self.file, number, local, check) for number, local, check in rows}

    def numbers_in(self, bounds: Bounds | None, after: int = 0, limit: int = -1) -> list[int]:
        """Return numbers above ``after`` of tiles whose centre lies in the bounds, ascending.

        Args:
            bounds: ``(west, south, east, north)``; west above east crosses the antimeridian; None is everywhere.
            after: only larger numbers.
            limit: at most so many; -1 for all.
        """
        if bounds is None:
            query = "SELECT number FROM tiles WHERE number > ? ORDER BY number LIMIT ?"
            return [int(number) for (number,) in self.file.rows(query, (after, limit))]
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
        return [int(number) for (number,) in self.file.rows(query, values)]

    def close(self) -> None:
        """Close the file and let other processes in; further calls raise GalleryUnusable."""
        self.file.close()

    def _write(
        self,
        generation: int,
        tile: Tile,
        embedding: NDArray[np.float16],
        image: bytes,
        local: LocalMap | None = None,
    ) -> tuple[int, bool]:
        known = self.file.one("SELECT number FROM tiles WHERE id = ?", tile.id)
        # number NULL: the next free one
        values = {"number": known, "generation": generation} | columns_of(tile, embedding)
        db, query = self.file.db, f"REPLACE INTO tiles ({', '.join(values)}) VALUES (:{', :'.join(values)})"  # noqa: S608
        number = db.execute(query, values).lastrowid
        lat, lon = tile.footprint.centre
        query = "REPLACE INTO details (number, image, checksum) VALUES (?, ?, ?)"
        db.execute(query, (number, image, zlib.crc32(image)))
        db.execute("REPLACE INTO centres VALUES (?, ?, ?, ?, ?)", (number, lat, lat, lon, lon))
        for table in ("reembedded", "descriptors"):  # they were made from the old image
            db.execute(f"DELETE FROM {table} WHERE number = ?", (number,))  # noqa: S608
        if local is not None:
            blob = pack(local)
            db.execute("INSERT INTO descriptors VALUES (?, ?, ?)", (number, blob, zlib.crc32(blob)))
        return int(number or 0), known is None

    def _delete(self, numbers: list[int]) -> list[int]:
        """Delete rows inside the caller's transaction, which is theirs alone; returns ``numbers``."""
        for table in ("tiles", "details", "descriptors", "centres", "reembedded"):
            self.file.db.executemany(f"DELETE FROM {table} WHERE number = ?", [(n,) for n in numbers])  # noqa: S608
        if numbers:
            self.next_generation()
        return numbers

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Yield a transaction after which ``generation`` is what the file says."""
        with self.file.lock:
            with self.file.transaction() as db:
                yield db
                generation = self._read_generation()
            self.generation = generation

    def next_generation(self) -> int:
        """Count a change of what is searched, inside a transaction."""
        self.file.db.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
        return self._read_generation()

    def _read_generation(self) -> int:
        return int(self.file.one("SELECT value FROM meta WHERE key = 'generation'"))


def _tile(tile_id: str, footprint: Footprint, properties: str) -> Tile:
    """A stored tile; without its properties if an earlier version took some that no answer can hold."""
    try:
        return Tile(tile_id, footprint, json.loads(properties))
    except (InvalidParameter, RecursionError) as error:
        tile = Tile(tile_id, footprint)  # the id may be what is wrong
        log.warning("tile %s is read without its properties; add it again with others (%s)", tile_id, error)
        return tile
