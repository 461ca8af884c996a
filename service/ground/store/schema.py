"""The tables of a gallery file."""

from __future__ import annotations

import json
import zlib

import numpy as np
from numpy.typing import NDArray

from service.ground.tile import Tile

APPLICATION_ID = 0x41464958
"""Every gallery file has ASCII "AFIX" in its header (``PRAGMA application_id``)."""

SCHEMA_VERSION = 7
"""Files of other versions are not read: maps are imported again."""

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
-- window_px: side of the windows that maps are embedded in; model that is embedding the gallery again, if one is
INSERT INTO meta VALUES ('identity', NULL), ('generation', 0), ('window_px', NULL), ('reembedding', NULL);

-- Maps. What belongs to one is numbered by map, zoom, row and column in one integer, see windows.pack.
CREATE TABLE maps (
    number INTEGER PRIMARY KEY, -- 1 to 2047
    name TEXT NOT NULL,
    live INTEGER NOT NULL,      -- 0: is being imported to replace the one of the same name, and not searched yet
    origin TEXT NOT NULL,       -- name of the file that it came from
    west REAL NOT NULL, south REAL NOT NULL, east REAL NOT NULL, north REAL NOT NULL,
    gsd_m REAL NOT NULL,        -- of the source, metres a pixel
    date TEXT,                  -- ISO 8601, if known
    levels TEXT NOT NULL,       -- JSON, zooms of its windows, finest first
    overlap INTEGER NOT NULL,   -- whether its windows overlap by half, or not at all
    min_zoom INTEGER NOT NULL,  -- of its pixels
    max_zoom INTEGER NOT NULL,
    created_at TEXT NOT NULL,   -- UTC, ISO 8601
    bytes INTEGER NOT NULL DEFAULT 0  -- that its pixels and descriptors take, counted with each write
);
CREATE UNIQUE INDEX map_names ON maps (name) WHERE live;
-- Its pixels: XYZ tiles of WebP.
CREATE TABLE pixels (
    id INTEGER PRIMARY KEY,     -- map, zoom, y, x
    image BLOB NOT NULL,
    checksum INTEGER NOT NULL   -- CRC-32
);
-- Its windows, many in a row.
CREATE TABLE windows (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    map INTEGER NOT NULL REFERENCES maps,
    ids BLOB NOT NULL,          -- little-endian int64 [N]
    embeddings BLOB NOT NULL,   -- little-endian float16 [N, D]
    checksum INTEGER NOT NULL   -- CRC-32 of both
);
CREATE INDEX windows_of_map ON windows (map);
-- Its local descriptors, each piece of ground once a level; none of models without an output `local`.
CREATE TABLE blocks (
    id INTEGER PRIMARY KEY,     -- of the window that it is the middle of
    local BLOB NOT NULL,        -- see local_maps.pack
    checksum INTEGER NOT NULL   -- CRC-32
);
-- Heights of its ground, if the user gave them.
CREATE TABLE elevations (
    map INTEGER PRIMARY KEY REFERENCES maps,
    grid TEXT NOT NULL,         -- JSON, see elevation.Grid
    rows INTEGER NOT NULL,
    heights BLOB NOT NULL,      -- little-endian float32 [rows, columns], compressed by zlib
    checksum INTEGER NOT NULL   -- CRC-32 of the heights
);

-- Loose pictures, each with its own footprint.
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
    checksum INTEGER NOT NULL   -- CRC-32 of id, corners, gsd_m, properties and embedding
);
-- What only one tile at a time is asked for lies apart, so that a start does not read through it.
CREATE TABLE details (
    number INTEGER PRIMARY KEY REFERENCES tiles,
    image BLOB NOT NULL,        -- JPEG or WebP; another model can embed it
    checksum INTEGER NOT NULL   -- CRC-32 of the image
);
CREATE VIRTUAL TABLE centres USING rtree (number, south, north, west, east);
-- What the best few tiles of a search are asked for lies apart from the images, which SQLite would read through.
CREATE TABLE descriptors (
    number INTEGER PRIMARY KEY REFERENCES tiles,
    local BLOB NOT NULL,        -- see local_maps.pack; tiles of models without an output `local` have no row
    checksum INTEGER NOT NULL   -- CRC-32 of it
);

CREATE TABLE imports (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,        -- queued, running, done, failed, cancelled
    name TEXT NOT NULL,         -- of the file, as the user called it
    options TEXT NOT NULL,      -- JSON
    created_at TEXT NOT NULL,   -- UTC, ISO 8601
    map INTEGER,                -- number of the map that it makes, once it runs
    total INTEGER NOT NULL,     -- pieces of work: tiles to store and windows to embed
    done INTEGER NOT NULL DEFAULT 0,  -- pieces finished; a resumed import goes on here
    added INTEGER NOT NULL DEFAULT 0,
    updated INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    skipped INTEGER NOT NULL DEFAULT 0,
    flat INTEGER NOT NULL DEFAULT 0,  -- of the skipped, those without contrast
    warnings TEXT NOT NULL DEFAULT '[]',  -- JSON, sentences
    troubles TEXT NOT NULL DEFAULT '[]',  -- JSON, the first things that went wrong
    -- Starts of a run that have made no progress yet: several, and the source ends the process.
    starts INTEGER NOT NULL DEFAULT 0
);

-- Features of another model, until there are some for everything; then they take the others' place.
CREATE TABLE reembedded (number INTEGER PRIMARY KEY, embedding BLOB NOT NULL, local BLOB);
CREATE TABLE reembedded_windows (
    number INTEGER PRIMARY KEY AUTOINCREMENT, map INTEGER NOT NULL, ids BLOB NOT NULL, embeddings BLOB NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE TABLE reembedded_blocks (id INTEGER PRIMARY KEY, local BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE reembedded_pieces (map INTEGER NOT NULL, piece INTEGER NOT NULL, PRIMARY KEY (map, piece)) WITHOUT ROWID;
""".strip()

NEW_FILE = f"""
BEGIN IMMEDIATE;
{SCHEMA}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


def checksum(tile_id: str, corners: str, gsd_m: float, properties: str, embedding: bytes) -> int:
    """Return the CRC-32 of a row of ``tiles``: it finds flipped bits, which SQLite has no checksums for."""
    return zlib.crc32(embedding, zlib.crc32(f"{tile_id}\0{corners}\0{float(gsd_m)!r}\0{properties}".encode()))


def columns_of(tile: Tile, embedding: NDArray[np.float16]) -> dict[str, object]:
    """Return the columns of ``tiles`` that say what a tile is."""
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
