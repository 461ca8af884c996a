"""The tables of a gallery file, and how older files become newer ones."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from service.ground.tile import Tile

APPLICATION_ID = 0x41464958
"""ASCII "AFIX", in the header of every gallery file (``PRAGMA application_id``)."""

SCHEMA_VERSION = 4
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
    embedding BLOB NOT NULL,    -- little-endian float16
    checksum INTEGER NOT NULL DEFAULT 0  -- CRC-32 of id, corners, gsd_m, properties and embedding
);
-- What only one tile at a time is asked for lies apart, so that a start does not read through it.
CREATE TABLE details (
    number INTEGER PRIMARY KEY REFERENCES tiles,
    image BLOB NOT NULL,        -- JPEG or WebP; another model can embed it
    checksum INTEGER NOT NULL DEFAULT 0  -- CRC-32 of the image
);
CREATE VIRTUAL TABLE centres USING rtree (number, south, north, west, east);
""".strip()

IMPORTS = """
CREATE TABLE imports (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,        -- queued, running, done, failed, cancelled
    name TEXT NOT NULL,         -- of the file, as the user called it
    options TEXT NOT NULL,      -- JSON
    created_at TEXT NOT NULL,   -- UTC, ISO 8601
    total INTEGER NOT NULL,     -- places for tiles in the source
    done INTEGER NOT NULL DEFAULT 0,  -- places finished; a resumed import goes on here
    added INTEGER NOT NULL DEFAULT 0,
    updated INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    skipped INTEGER NOT NULL DEFAULT 0,
    troubles TEXT NOT NULL DEFAULT '[]'  -- JSON, the first things that went wrong
)"""
STARTS = """
-- Starts of a run that have made no progress yet: several, and the source ends the process.
ALTER TABLE imports ADD COLUMN starts INTEGER NOT NULL DEFAULT 0"""
DESCRIPTORS = """
-- What the best few tiles of a search are asked for lies apart from the images, which SQLite would read through.
CREATE TABLE descriptors (
    number INTEGER PRIMARY KEY REFERENCES tiles,
    local BLOB NOT NULL,        -- see local_maps.pack; tiles of models without an output `local` have no row
    checksum INTEGER NOT NULL   -- CRC-32 of it
)"""
REEMBEDDED = """
-- Embeddings and descriptors of another model, until there are some for every tile.
CREATE TABLE reembedded (number INTEGER PRIMARY KEY, embedding BLOB NOT NULL, local BLOB)"""
REEMBEDDING = "INSERT INTO meta VALUES ('reembedding', NULL)"

NEW_FILE = f"""{SCHEMA}
{IMPORTS};
{STARTS};
{DESCRIPTORS};
{REEMBEDDED};
{REEMBEDDING};
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


def checksum(tile_id: str, corners: str, gsd_m: float, properties: str, embedding: bytes) -> int:
    """CRC-32 of a row of ``tiles``; finds a flipped bit that SQLite, which has no checksums, would hand out."""
    return zlib.crc32(embedding, zlib.crc32(f"{tile_id}\0{corners}\0{float(gsd_m)!r}\0{properties}".encode()))


def columns_of(tile: Tile, embedding: NDArray[np.float16]) -> dict[str, object]:
    """The columns of ``tiles`` that say what a tile is."""
    lat, lon = tile.footprint.centre
    corners, gsd_m = json.dumps(tile.footprint.corners), tile.footprint.gsd_m
    properties, vector = json.dumps(dict(tile.properties)), embedding.astype("<f2").tobytes()
    return {
        "id": tile.id,
        "corners": corners,
        "gsd_m": gsd_m,
        "lat": lat,
        "lon": lon,
        "properties": properties,
        "embedding": vector,
        "checksum": checksum(tile.id, corners, gsd_m, properties, vector),
    }


def _from_1_to_2(db: sqlite3.Connection) -> None:
    """Checksums, imports, and images that are large enough to be embedded again (old ones stay 256 px thumbnails)."""
    db.execute("ALTER TABLE tiles ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0")
    db.execute("ALTER TABLE details RENAME COLUMN thumbnail TO image")
    db.execute("ALTER TABLE details ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0")
    db.execute("UPDATE tiles SET checksum = tile_checksum(id, corners, gsd_m, properties, embedding)")
    db.execute("UPDATE details SET checksum = crc32(image)")
    reembedded = "CREATE TABLE reembedded (number INTEGER PRIMARY KEY, embedding BLOB NOT NULL)"
    for statement in (IMPORTS, reembedded, REEMBEDDING):
        db.execute(statement)


def _from_2_to_3(db: sqlite3.Connection) -> None:
    """Descriptors, which no tile has before it is embedded again.

    An interrupted embedding starts over, for it has none either. ``details`` keeps a column that was never used: to
    drop it, SQLite would rewrite all images.
    """
    db.execute(DESCRIPTORS)
    db.execute("DROP TABLE reembedded")
    db.execute(REEMBEDDED)
    db.execute("UPDATE meta SET value = NULL WHERE key = 'reembedding'")


def _from_3_to_4(db: sqlite3.Connection) -> None:
    """Starts of imports are counted."""
    db.execute(STARTS)


MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _from_1_to_2, 2: _from_2_to_3, 3: _from_3_to_4}
"""By the version that they start from; each leads to the next."""


def migrate(db: sqlite3.Connection, version: int) -> None:
    """Bring a file of an older schema up to date, inside the caller's transaction: whole or not at all."""
    db.create_function("crc32", 1, zlib.crc32, deterministic=True)
    db.create_function("tile_checksum", 5, checksum, deterministic=True)
    for step in range(version, SCHEMA_VERSION):
        MIGRATIONS[step](db)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
