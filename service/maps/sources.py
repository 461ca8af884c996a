"""Opens what tiles come from: a map that is cut up, or images that are tiles already."""

from __future__ import annotations

import os
from pathlib import Path

from service.errors import SourceUnreadable, UnsupportedMediaType
from service.maps.archive import open_zip
from service.maps.file_tiles import FileTiles, from_csv, from_zxy
from service.maps.map_tiles import Cut, MapTiles
from service.maps.raster import open_map
from service.maps.tile_source import TileSource


def open_tiles(path: Path, cut: Cut, corners: Path | None = None, name: str | None = None) -> TileSource:
    """Open what a user names: a map, a folder or zip of tiles, or a CSV of corners.

    Args:
        path: a raster of any kind that GDAL reads, an image with its corners beside it, a folder of ``z/x/y`` images, a
            zip of them or of images with a CSV, or the CSV itself with the images beside it.
        cut: how to cut a map, and what to call the tiles.
        corners: see ``open_map``.
        name: what the user calls the file; its own name by default.

    Raises:
        SourceUnreadable, ArchiveRefused, InvalidParameter: see ``open_map``, ``open_zip`` and ``from_csv``.
    """
    whole = os.path.abspath(path)  # "." has no name
    prefix = Path(name or whole).stem if cut.prefix is None else cut.prefix
    if path.is_dir():
        files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
        return from_zxy(files, lambda file: (path / file).read_bytes(), prefix)
    if path.suffix.lower() == ".csv":
        return _beside(path, prefix)
    if path.is_file() and _starts(path) == b"PK":
        return open_zip(path, prefix)
    return MapTiles(open_map(path, corners), cut, prefix)


def open_upload(path: Path, cut: Cut, name: str) -> TileSource:
    """Open a file from a stranger: a GeoTIFF or a zip, whatever it is called.

    Args:
        path: the file.
        cut: see ``open_tiles``.
        name: what the sender calls it.

    Raises:
        UnsupportedMediaType: neither of the two.
        SourceUnreadable, ArchiveRefused, InvalidParameter: see ``open_tiles``.
    """
    prefix = Path(name).stem if cut.prefix is None else cut.prefix
    start = _starts(path)
    if start == b"PK":
        return open_zip(path, prefix)
    if start in (b"II", b"MM"):
        return MapTiles(open_map(path, driver="GTiff", name=name), cut, prefix)
    raise UnsupportedMediaType(
        "the file is neither a GeoTIFF nor a zip; convert the map with gdal_translate, or zip it."
    )


def _beside(table: Path, prefix: str) -> FileTiles:
    """The tiles of a CSV whose images lie in its folder or below."""
    folder = table.parent
    files = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    try:
        text = table.read_bytes()
    except OSError as error:
        raise SourceUnreadable(f"{table.name} cannot be read: {error.strerror}.") from error
    return from_csv(text, table.name, files, lambda file: (folder / file).read_bytes(), prefix)


def _starts(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2)
