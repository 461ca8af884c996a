"""A folder or an archive: finds out what kind of map its files make up together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from service.errors import AerofixError, ArchiveRefused, SourceUnreadable
from service.maps.folder import Files
from service.maps.georeference import georeferenced
from service.maps.kml import documents_in, open_kml
from service.maps.piece import Piece
from service.maps.pieces import Pieces, UnopenedPiece, part_of
from service.maps.place import Georeference
from service.maps.pyramid import Pyramid, TileFiles, check_tile
from service.maps.scheme import Extent, Scheme, flipped, middle, scheme_of_map_resource, scheme_of_tilejson
from service.maps.sidecars import MAX_BYTES, Beside
from service.maps.table import open_table

IMAGES = r"(?:png|jpe?g|webp|tiff?)"
ZXY_NAME = re.compile(rf"(?:.*/)?(\d{{1,2}})/(\d{{1,10}})/(\d{{1,10}})(?:@2x)?\.{IMAGES}", re.IGNORECASE)
"""``z/x/y.png``, in any folder; no more digits than the deepest zoom needs."""

RASTER_NAME = re.compile(rf".*\.({IMAGES}|jp2|j2k)", re.IGNORECASE)
DESCRIPTIONS = ("tilemapresource.xml", "tilejson.json", "tiles.json", "metadata.json")

MAX_RASTERS = 5_000
"""Each is opened before the import begins, to see where it lies."""

FAR_APART = 100.0
"""Rasters whose common outline is so many times their own area are several places, not one."""

FAR_APART_M2 = 25e6


def open_collection(files: Files, name: str, map_name: str, scheme: Scheme | None) -> Pieces | Pyramid:
    """Open what a folder or an archive holds.

    Args:
        files: the files; closed with the map, or when it is refused.
        name: what the user calls the source.
        map_name: of the map.
        scheme: of tiles, if the user says it.

    Raises:
        SourceUnreadable, ArchiveRefused, InvalidFootprint: it holds no map, or a damaged one.
    """
    try:
        if documents := documents_in(files.names):
            return open_kml(files, documents, name, map_name)
        tiles = _tiles(files.names)
        images = sum(RASTER_NAME.fullmatch(file) is not None for file in files.names)
        if tiles and 2 * len(tiles) >= images:
            return _open_pyramid(files, tiles, name, map_name, scheme)
        tables = [file for file in files.names if file.lower().endswith(".csv")]
        if len(tables) > 1:
            raise ArchiveRefused(f"{name} holds {len(tables)} CSV files ({', '.join(tables):.200}); keep one.")
        if tables:
            return open_table(files, tables[0], name, map_name)
        return _open_rasters(files, name, map_name)
    except BaseException:
        files.close()
        raise


def _tiles(names: Iterable[str]) -> dict[tuple[int, int, int], str]:
    """Files named z/x/y, by zoom, column and row as they are named."""
    found: dict[tuple[int, int, int], str] = {}
    for name in names:
        if match := ZXY_NAME.fullmatch(name):
            z, x, y = map(int, match.groups())
            if not check_tile(z, x, y):
                continue
            if (z, x, y) in found:
                raise SourceUnreadable(f"{found[z, x, y]} and {name} are the same tile; give one pyramid at a time.")
            found[z, x, y] = name
    return found


def _open_pyramid(
    files: Files, tiles: dict[tuple[int, int, int], str], name: str, map_name: str, scheme: Scheme | None
) -> Pyramid:
    named = TileFiles(tiles, files.read, files.close)
    told = scheme or _scheme_told(files, named.extents)
    if told == "tms":
        named = TileFiles({(z, x, 2**z - 1 - y): file for (z, x, y), file in tiles.items()}, files.read, files.close)
    return Pyramid(named, map_name, name, [] if told else _either(named.extents))


def _scheme_told(files: Files, extents: dict[int, Extent]) -> Scheme | None:
    """What a description among the files says of the rows, the outermost one first."""
    for file in sorted(files.names, key=lambda each: each.count("/")):
        base = PurePosixPath(file).name.lower()
        if base == DESCRIPTIONS[0]:
            return scheme_of_map_resource(files.read(file), file, extents)
        if base in DESCRIPTIONS[1:] and (told := scheme_of_tilejson(files.start(file, MAX_BYTES) or b"")):
            return told
    return None


def _either(extents: dict[int, Extent]) -> list[str]:
    """A sentence on where the tiles lie, and where they would lie if their rows were counted the other way."""
    finest = max(extents)
    here, there = middle(finest, extents[finest]), middle(finest, flipped(finest, extents[finest]))
    return [
        f"nothing says from which edge its rows are counted: from the north (XYZ), which puts it at latitude "
        f"{here:.4f}. If it lies at {there:.4f}, import it again with --scheme tms --replace "
        "(form fields: scheme=tms, replace=true)."
    ]


def _open_rasters(files: Files, name: str, map_name: str) -> Pieces:
    """All georeferenced rasters among the files."""
    rasters = [file for file in files.names if RASTER_NAME.fullmatch(file)]
    if not rasters:
        raise SourceUnreadable(
            f"{name} holds no map: no tiles named z/x/y.png (or .jpg, .webp), no GeoTIFF or image with its "
            "georeference, no KML and no CSV of corners."
        )
    if len(rasters) > MAX_RASTERS:
        raise SourceUnreadable(
            f"{name} holds {len(rasters)} rasters; the limit is {MAX_RASTERS}. Merge them: gdalbuildvrt all.vrt *.tif; "
            "gdal_translate -of COG all.vrt all.tif",
            limit=MAX_RASTERS,
            actual=len(rasters),
        )
    parts: list[UnopenedPiece] = []
    troubles: list[AerofixError] = []
    for file in rasters:
        try:
            parts.append(part_of(PurePosixPath(file).name, _opener(files, file)))
        except AerofixError as error:
            troubles.append(error)
    if not parts:
        raise troubles[0]
    parts, others = _pictures(parts)
    _check_together(parts, name)
    notes = [f"{len(troubles)} files of {name} are left out; the first: {troubles[0].detail}"] if troubles else []
    if others:
        notes.append(
            f"left out of {name}, because it is one band of numbers beside pictures, heights perhaps: "
            f"{', '.join(others):.200}. Heights are added with --elevation FILE."
        )
    return Pieces(parts, map_name, notes, files.close)


def _pictures(parts: list[UnopenedPiece]) -> tuple[list[UnopenedPiece], list[str]]:
    """The rasters to be shown, and the names of the others: heights that lie beside pictures."""
    pictures = [part for part in parts if not part.is_numbers]
    return (pictures, [part.label for part in parts if part.is_numbers]) if pictures else (parts, [])


def _opener(files: Files, file: str) -> Any:
    base, folder = PurePosixPath(file).name, PurePosixPath(file).parent

    def locate(dataset: Any) -> Georeference:
        return georeferenced(dataset, base, None, beside_in(files, folder), base)

    return lambda: Piece(files.on_disk(file), base, locate)


def beside_in(files: Files, folder: PurePosixPath) -> Beside:
    """Return the side files in one folder of a collection."""
    return lambda name: files.start((folder / name).as_posix(), MAX_BYTES + 1)


def _check_together(parts: list[UnopenedPiece], name: str) -> None:
    """Refuse rasters that are so far apart that nobody calls them one map."""
    edges = np.array([part.mercator for part in parts])
    scale = np.cos(np.arctan(np.sinh(edges[:, [1, 3]].mean() / 6_378_137))) ** 2
    own = float(((edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])).sum() * scale)
    whole = float(np.ptp(edges[:, [0, 2]]) * np.ptp(edges[:, [1, 3]]) * scale)
    if whole > FAR_APART_M2 and whole > FAR_APART * own:
        raise SourceUnreadable(
            f"the {len(parts)} rasters in {name} lie far apart: they cover {own / 1e6:.3g} of {whole / 1e6:.3g} square "
            "kilometres. Import each place as a map of its own."
        )
