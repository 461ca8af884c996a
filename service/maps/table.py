"""Pictures that a CSV gives the corners of, one row each, as one mosaic."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from PIL import Image

from service.errors import AerofixError, InvalidParameter, SourceUnreadable
from service.ground.tile import Footprint
from service.maps.csv_columns import COLUMNS_HELP, Columns, read_columns
from service.maps.folder import Files
from service.maps.gdal import open_raster
from service.maps.piece import Piece
from service.maps.pieces import Pieces, UnopenedPiece
from service.maps.place import Georeference, cornered, mercator_of

MAX_LINE_BYTES = 65_536
"""A row with an image's name, its corners and a few notes has some hundred bytes."""

MAX_ROWS = 200_000
HEADER_BYTES = 65_536
DELIMITERS = ",;\t|"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".jp2")


def open_table(files: Files, table: str, name: str, map_name: str) -> Pieces:
    """Open pictures by the table of their corners.

    Args:
        files: the table and the pictures, in its folder or below.
        table: name of the table among them.
        name: what the user calls the source.
        map_name: of the map.

    Raises:
        SourceUnreadable: not a table with such columns, without rows, or without a single picture that can be read.
    """
    rows = read_rows(files.read(table), table)
    columns = read_columns(rows[0][1], table)
    known = _by_name(files.names, PurePosixPath(table).parent)
    parts: list[UnopenedPiece] = []
    troubles: list[str] = []
    for line, row in rows[1:]:
        try:
            parts.append(_part(files, row, columns, known))
        except AerofixError as error:
            troubles.append(f"{table} line {line}: {error.detail}")
    if not parts:
        why = troubles[0] if troubles else f"{table} has no rows below its header."
        raise SourceUnreadable(f"{name} has no picture that can be read. {why}")
    notes = [f"{len(troubles)} rows of {table} are left out; the first: {troubles[0]}"] if troubles else []
    return Pieces(parts, map_name, notes, files.close)


def read_rows(data: bytes, name: str) -> list[tuple[int, list[str]]]:
    """Return lines and cells of a table, empty rows left out; commas, semicolons, tabs or bars divide it.

    Raises:
        SourceUnreadable: not UTF-8, too long a line, or too many of them.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceUnreadable(f"{name} cannot be read as CSV ({error}); save it as UTF-8. {COLUMNS_HELP}") from error
    lines = text.splitlines()
    if not lines:
        raise SourceUnreadable(f"{name} is empty. {COLUMNS_HELP}")
    if max(map(len, lines)) > MAX_LINE_BYTES:
        raise SourceUnreadable(f"{name} has a line of over {MAX_LINE_BYTES} characters; save it as CSV. {COLUMNS_HELP}")
    if len(lines) > MAX_ROWS:
        raise SourceUnreadable(f"{name} has {len(lines)} rows; the limit is {MAX_ROWS}: cut it.", limit=MAX_ROWS)
    delimiter = max(DELIMITERS, key=lines[0].count)  # the first of several that are equally frequent
    try:
        reader = csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter, skipinitialspace=True)
        rows = [(reader.line_num, row) for row in reader if any(row)]
    except csv.Error as error:
        raise SourceUnreadable(f"{name} cannot be read as CSV ({error}). {COLUMNS_HELP}") from error
    if not rows:
        raise SourceUnreadable(f"{name} is empty. {COLUMNS_HELP}")
    return rows


def _part(files: Files, row: Sequence[str], columns: Columns, known: Mapping[str, str]) -> UnopenedPiece:
    """One picture."""
    named = columns.file_of(row)
    file = known.get(PurePosixPath(named.replace("\\", "/")).as_posix())
    if file is None:
        raise InvalidParameter(f"there is no image {named!r:.200} beside the table, or several of this name.")
    entry = columns.entry_of(row)
    width, height = size_of(files, file)
    return picture(files, file, Footprint.parse(entry, width, height), (width, height))


def picture(files: Files, file: str, footprint: Footprint, size: tuple[int, int]) -> UnopenedPiece:
    """Place a picture by the corners of its ground."""
    lats, lons = zip(*footprint.corners, strict=True)
    label = PurePosixPath(file).name
    cornered(footprint.corners, *size, label)  # contradictions show before the import begins
    return UnopenedPiece(
        label, mercator_of(lats, lons), footprint.bounds, footprint.gsd_m, _opener(files, file, footprint)
    )


def _opener(files: Files, file: str, footprint: Footprint) -> Callable[[], Piece]:
    label = PurePosixPath(file).name

    def locate(dataset: Any) -> Georeference:
        return cornered(footprint.corners, dataset.width, dataset.height, label)

    return lambda: Piece(files.on_disk(file), label, locate)


def size_of(files: Files, file: str) -> tuple[int, int]:
    """Return width and height of a picture in pixels, from its first bytes where they tell it."""
    try:
        with Image.open(io.BytesIO(files.start(file, HEADER_BYTES) or b""), formats=("JPEG", "PNG", "WEBP")) as image:
            return image.size
    except Exception:  # Pillow's plugins raise whatever half a file leads them to; GDAL sees all of it
        with files.on_disk(file) as path, open_raster(path, PurePosixPath(file).name) as dataset:
            return dataset.width, dataset.height


def _by_name(files: Iterable[str], folder: PurePosixPath) -> dict[str, str]:
    """Pictures by their name below the table's folder, and by the last part of it where that is unique."""
    images = {name: PurePosixPath(name) for name in files if name.lower().endswith(IMAGE_SUFFIXES)}
    last: dict[str, list[str]] = {}
    below: dict[str, str] = {}
    for name, path in images.items():
        last.setdefault(path.name, []).append(name)
        below[(path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()] = name
    return {name: same[0] for name, same in last.items() if len(same) == 1} | below
