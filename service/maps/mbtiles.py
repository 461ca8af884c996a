"""MBTiles: tiles in an SQLite file (MBTiles specification 1.3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from service.errors import SourceUnreadable
from service.geo import MAX_ZOOM
from service.maps.sqlite import Database


class MbTiles:
    """The tiles of an MBTiles file; see ``pyramid.Tiles``. Rows are counted from the south, as the specification says.

    Args:
        path: the file.
        name: what the user calls it.
        from_north: whether its rows are counted from the north all the same.

    Attributes:
        metadata: its table of names and values.

    Raises:
        SourceUnreadable: damaged, empty, or of vector tiles.
    """

    def __init__(self, path: str | Path, name: str, from_north: bool = False) -> None:
        self._from_north, self._database = from_north, Database(path, name)
        try:
            self.metadata = self._metadata()
            if self.metadata.get("format", "") in ("pbf", "mvt"):
                raise SourceUnreadable(f"{name} holds vector tiles; export a raster of the imagery.")
            zooms = self._database.query("SELECT DISTINCT zoom_level FROM tiles")
            whole = [z for (z,) in zooms if isinstance(z, int) and 0 <= z <= MAX_ZOOM]
            self.extents = {z: extent for z in sorted(whole) if (extent := self._extent(z)) is not None}
            if not self.extents:
                raise SourceUnreadable(f"{name} holds no tiles; export it anew.")
            ((self.count,),) = self._database.query("SELECT count(*) FROM tiles")
        except BaseException:
            self.close()
            raise

    def get(self, z: int, x: int, y: int) -> bytes | None:
        """See ``Tiles.get``."""
        rows = self._database.query(
            "SELECT tile_data FROM tiles WHERE zoom_level = ? AND tile_column = ? AND tile_row = ? LIMIT 1",
            (z, x, self._row(z, y)),
        )
        data = rows[0][0] if rows else None
        return data if isinstance(data, bytes) else None

    def sample(self, z: int, count: int) -> Sequence[tuple[int, int]]:
        """See ``Tiles.sample``."""
        places = self._database.query("SELECT tile_column, tile_row FROM tiles WHERE zoom_level = ?", (z,))
        step = max(1, len(places) // count)
        return [(x, self._row(z, y)) for x, y in places[::step][:count] if isinstance(x, int) and isinstance(y, int)]

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _row(self, z: int, y: int) -> int:
        """From one way of counting rows to the other."""
        return y if self._from_north else 2**z - 1 - y

    def _metadata(self) -> dict[str, str]:
        if "metadata" not in self._database.kinds():
            return {}
        rows = self._database.query("SELECT name, value FROM metadata LIMIT 1000")
        return {str(name).lower(): str(value).strip() for name, value in rows}

    def _extent(self, z: int) -> tuple[int, int, int, int] | None:
        ((west, east, first, last),) = self._database.query(
            "SELECT min(tile_column), max(tile_column), min(tile_row), max(tile_row) FROM tiles WHERE zoom_level = ?",
            (z,),
        )
        rows = sorted((self._row(z, int(first)), self._row(z, int(last))))
        inside = int(west) >= 0 and int(east) < 2**z and rows[0] >= 0 and rows[1] < 2**z
        return (int(west), int(east), rows[0], rows[1]) if inside else None


def is_mbtiles(path: str | Path, name: str) -> bool:
    """Say whether an SQLite file has the table or view of MBTiles, and is no GeoPackage with one of that name."""
    database = Database(path, name)
    try:
        kinds = database.kinds()
        return "tiles" in kinds and "gpkg_contents" not in kinds
    finally:
        database.close()


def raster_tables(path: str | Path, name: str) -> list[str]:
    """Return names of the tables with imagery in a GeoPackage (OGC 12-128).

    Raises:
        SourceUnreadable: there is none, or something that is no table pretends to be one.
    """
    database = Database(path, name)
    try:
        kinds = database.kinds()
        if "gpkg_contents" not in kinds:
            raise SourceUnreadable(f"{name} is an SQLite file, but neither MBTiles nor a GeoPackage; export a GeoTIFF.")
        rows = database.query("SELECT table_name FROM gpkg_contents WHERE data_type = 'tiles' LIMIT 100")
        tables = [str(table) for (table,) in rows]
        if not tables:
            raise SourceUnreadable(f"{name} holds no raster tiles (only vector layers); export the imagery itself.")
        for table in tables:
            if kinds.get(table.lower()) != "table":
                raise SourceUnreadable(f"{name} has no table {table:.100}; export it anew.")
        return tables
    finally:
        database.close()
