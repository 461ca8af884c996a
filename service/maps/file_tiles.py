"""Images that are tiles already: a pyramid of ``z/x/y`` files, or files that a CSV gives the corners of."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from PIL import Image

from service.errors import AerofixError, InvalidParameter, SourceUnreadable
from service.ground.tile import check_id
from service.maps.csv_columns import COLUMNS_HELP, Columns, read_columns
from service.maps.tile_source import SourceTile

IMAGE_NAME = re.compile(r".*\.(png|jpe?g|webp|tiff?)", re.IGNORECASE)
ZXY_NAME = re.compile(r"(?:.*/)?(\d{1,2})/(\d{1,10})/(\d{1,10})\.(?:png|jpe?g|webp|tiff?)", re.IGNORECASE)
"""``z/x/y.png``, in any folder; no more digits than the deepest zoom needs."""

MAX_CHECKED_PX = 4096 * 4096
"""Larger images are not looked at twice."""

MIN_VALID_SHARE = 0.5
"""As for maps: a tile of which less is opaque is left out."""


@dataclass(frozen=True)
class Item:
    """One tile: what to call it, the file with its image, and its JSON entry or what is wrong with it."""

    label: str
    file: str
    entry: dict[str, Any] | AerofixError


class FileTiles:
    """Files that are tiles; a ``TileSource``.

    Args:
        items: the tiles.
        read_file: gives the bytes of a file by name.
        on_close: called when the source is closed.
    """

    def __init__(
        self, items: Sequence[Item], read_file: Callable[[str], bytes], on_close: Callable[[], None] = lambda: None
    ) -> None:
        self._items, self._read_file, self.close = items, read_file, on_close

    def __len__(self) -> int:
        return len(self._items)

    def label(self, i: int) -> str:
        """The file or the row of the table."""
        return self._items[i].label

    def read(self, i: int) -> SourceTile | None:
        """See ``TileSource.read``."""
        item = self._items[i]
        if isinstance(item.entry, AerofixError):
            raise item.entry
        try:
            data = self._read_file(item.file)
        except OSError as error:
            raise InvalidParameter(f"{item.file} cannot be read: {error.strerror}.") from error
        return None if _mostly_transparent(data) else SourceTile(data, item.entry)


def from_zxy(
    files: Iterable[str], read_file: Callable[[str], bytes], prefix: str, on_close: Callable[[], None] = lambda: None
) -> FileTiles:
    """The tiles of a pyramid, by zoom, column and row; other files are ignored.

    Args:
        files: names with ``/`` between folders.
        read_file: gives the bytes of a file.
        prefix: start of the ids ``<prefix>/z/x/y``.
        on_close: called when the source is closed.

    Raises:
        SourceUnreadable: there are no such files, or two for one tile.
    """
    check_id(f"{prefix}/30/1073741823/1073741823")
    by_tile: dict[tuple[int, int, int], str] = {}
    for file in files:
        if match := ZXY_NAME.fullmatch(file):
            z, x, y = map(int, match.groups())
            if (z, x, y) in by_tile:
                raise SourceUnreadable(f"{by_tile[z, x, y]} and {file} are the same tile; give one pyramid at a time.")
            by_tile[z, x, y] = file
    if not by_tile:
        raise SourceUnreadable("there are no tiles named z/x/y.png (or .jpg, .webp, .tif), and no CSV of corners.")
    return FileTiles(
        [
            Item(file, file, {"id": f"{prefix}/{z}/{x}/{y}", "z": z, "x": x, "y": y})
            for (z, x, y), file in sorted(by_tile.items())
        ],
        read_file,
        on_close,
    )


def from_csv(
    table: bytes,
    name: str,
    files: Iterable[str],
    read_file: Callable[[str], bytes],
    prefix: str,
    on_close: Callable[[], None] = lambda: None,
) -> FileTiles:
    """The tiles of a table with one row an image: its file name and its corners.

    Args:
        table: the CSV file; columns are recognised by name, see ``csv_columns``. Others become properties.
        name: of the table.
        files: names of the images that there are; a row may name one with or without its folders.
        read_file: gives the bytes of a file.
        prefix: start of the ids ``<prefix>/<file name without suffix>`` where the table has no column ``id``.
        on_close: called when the source is closed.

    Raises:
        SourceUnreadable: not a table with such columns, without rows, or two rows with one id.
    """
    try:
        text = table.decode("utf-8-sig")
        dialect = csv.Sniffer().sniff(text.partition("\n")[0], ",;\t|")
        rows = list(csv.reader(io.StringIO(text), dialect))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceUnreadable(f"{name} cannot be read as CSV ({error}); save it as UTF-8. {COLUMNS_HELP}") from error
    if not rows:
        raise SourceUnreadable(f"{name} is empty. {COLUMNS_HELP}")
    columns = read_columns(rows[0], name)
    known = _by_name(files)
    items = [
        _item(f"{name} line {line}", row, columns, known, prefix) for line, row in enumerate(rows[1:], 2) if any(row)
    ]
    if not items:
        raise SourceUnreadable(f"{name} has no rows below its header.")
    ids = Counter(item.entry["id"] for item in items if isinstance(item.entry, dict))
    if ids and (most := ids.most_common(1)[0])[1] > 1:
        raise SourceUnreadable(f"{name} has the id {most[0]} twice; name the images apart, or add a column id.")
    return FileTiles(items, read_file, on_close)


def _item(label: str, row: Sequence[str], columns: Columns, known: Mapping[str, str], prefix: str) -> Item:
    """One row, with what is wrong with it in place of its entry."""
    try:
        named = columns.file_of(row)
        label = f"{label} ({named})"
        file = known.get(PurePosixPath(named.replace("\\", "/")).as_posix())
        if file is None:
            raise InvalidParameter(f"there is no image {named!r} beside the table, or several of this name.")
        tile_id = columns.id_of(row) or f"{prefix}/{PurePosixPath(file).with_suffix('')}"
        return Item(label, file, {"id": tile_id} | columns.entry_of(row))
    except AerofixError as error:
        return Item(label, "", error)


def _by_name(files: Iterable[str]) -> dict[str, str]:
    """Files by their whole name, and by the last part of it where that is unique."""
    images = [file for file in files if IMAGE_NAME.fullmatch(file)]
    last: dict[str, list[str]] = {}
    for file in images:
        last.setdefault(PurePosixPath(file).name, []).append(file)
    return {name: same[0] for name, same in last.items() if len(same) == 1} | {file: file for file in images}


def _mostly_transparent(data: bytes) -> bool:
    """Whether less than half of an image is opaque; whatever cannot be decoded is for the decoder to name."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "WEBP", "TIFF")) as image:
            if image.width * image.height > MAX_CHECKED_PX or not image.has_transparency_data:
                return False
            opaque = image.convert("RGBA").getchannel("A").point(lambda alpha: 255 * (alpha > 0))
            return opaque.histogram()[255] < MIN_VALID_SHARE * image.width * image.height
    except Exception:  # Pillow's plugins raise whatever damaged files lead them to
        return False
