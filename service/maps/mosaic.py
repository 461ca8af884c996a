"""Whatever a map comes as, opened as one mosaic of Web Mercator pixels."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import SourceUnreadable, UnsupportedMediaType
from service.geo import Bounds
from service.maps.archive import Archive
from service.maps.collection import open_collection
from service.maps.folder import Folder
from service.maps.gdal import driver_of
from service.maps.georeference import georeferenced
from service.maps.kml import open_kml
from service.maps.mbtiles import MbTiles, is_mbtiles, raster_tables
from service.maps.piece import Piece
from service.maps.pieces import Pieces, part_of
from service.maps.place import Georeference
from service.maps.pyramid import Pyramid
from service.maps.scheme import Scheme, scheme_of_bounds
from service.maps.sidecars import in_folder
from service.maps.table import open_table


class Mosaic(Protocol):
    """A map. One thread at a time.

    Attributes:
        name: suggested name: the file's without its suffix.
        bounds: ``(west, south, east, north)``, degrees.
        gsd_m: its own metres a pixel on the ground, at its centre.
        date: of its pictures, when the source tells it: a day of ISO 8601, or the first and the last with a slash.
    """

    name: str
    bounds: Bounds
    gsd_m: float
    date: str | None

    @property
    def notes(self) -> list[str]:
        """What the user should know, in sentences; they may grow while the mosaic is read."""

    def read(
        self, zoom: int, left: int, top: int, width: int, height: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return RGB ``[H, W, 3]`` and which pixels are valid ``[H, W]`` of a rectangle of Web Mercator pixels.

        Args:
            zoom: of the pixels: a tile of 256 of them is an XYZ tile of this zoom.
            left: first pixel from 180° west, rightwards.
            top: first pixel from the north edge, downwards.
            width: of the rectangle; it may cross the antimeridian.
            height: of the rectangle.

        Returns:
            Pixels made of what is just fine enough, black where invalid.

        Raises:
            SourceUnreadable: the source is damaged.
        """

    def close(self) -> None:
        """Close the files."""


def open_mosaic(
    path: Path, *, name: str | None = None, scheme: Scheme | None = None, corners: Path | None = None
) -> Mosaic:
    """Open a map by what is in it, whatever it is called.

    Args:
        path: a file or a folder; see docs/maps.md for what it may be.
        name: what the user calls the file; its own name by default.
        scheme: how the rows of a pyramid of tiles are counted, where it does not say so itself: from the north (xyz,
            the default) or from the south (tms).
        corners: a JSON file with the corners of an image.

    Raises:
        SourceUnreadable, ArchiveRefused, UnsupportedMediaType, InvalidFootprint: it cannot be imported; says the fix.
    """
    name = name or Path(os.path.abspath(path)).name  # "." has no name
    map_name = Path(name).stem if not path.is_dir() else name
    try:
        if path.is_dir():
            return open_collection(Folder(path), name, map_name, scheme)
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise SourceUnreadable(f"{name} cannot be read ({error.strerror}); check the path.") from error
    kind = driver_of(start)
    if start[:2] == b"PK":
        return open_collection(Archive(path), name, map_name, scheme)
    if kind == "GPKG":
        return _open_database(path, name, map_name, scheme)
    if kind is not None:
        return _open_raster(path, name, map_name, corners)
    # An upload lies under a name of ours without a suffix: it has no files beside it, whatever its sender calls it.
    if path.suffix.lower() == ".csv":
        return open_table(Folder(path.parent), path.name, name, map_name)
    if path.suffix.lower() == ".kml":
        return open_kml(Folder(path.parent), [path.name], name, map_name)
    if Path(name).suffix.lower() in (".csv", ".kml"):
        raise UnsupportedMediaType(f"{name} names pictures that did not come with it; zip it together with them.")
    raise UnsupportedMediaType(
        f"{name} is not a map of a kind that is read here: GeoTIFF, MBTiles, GeoPackage, KMZ, JPEG 2000, JPEG, PNG, "
        f"WebP, or a zip. Convert it: gdal_translate {name} out.tif"
    )


def _open_raster(path: Path, name: str, map_name: str, corners: Path | None) -> Pieces:
    def locate(dataset: Any) -> Georeference:
        return georeferenced(dataset, name, corners, in_folder(path.parent), path.name)

    return Pieces([part_of(name, lambda: Piece(nullcontext(str(path)), name, locate))], map_name)


def _open_database(path: Path, name: str, map_name: str, scheme: Scheme | None) -> Mosaic:
    """Open MBTiles or a GeoPackage, whatever it is called."""
    if is_mbtiles(path, name):
        tiles = MbTiles(path, name, from_north=True)  # rows as they are named, for their bounds to be compared with
        told = scheme or scheme_of_bounds(tiles.metadata.get("bounds", ""), tiles.extents, "tms")
        if told == "tms":
            tiles.close()
            tiles = MbTiles(path, name)
        try:
            return Pyramid(tiles, map_name, name)
        except BaseException:
            tiles.close()
            raise

    def opener(table: str) -> Callable[[], Piece]:
        options = {"table": table, "immutable": "YES"}  # another process may not change it, and nothing is written
        return lambda: Piece(nullcontext(str(path)), name, lambda dataset: georeferenced(dataset, name), **options)

    return Pieces([part_of(table, opener(table)) for table in raster_tables(path, name)], map_name)
