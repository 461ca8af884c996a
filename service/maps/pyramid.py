"""Tiles named z/x/y, at one zoom or several, as one mosaic: the finest where there is one."""

from __future__ import annotations

import io
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import AerofixError, OutOfMemory, SourceUnreadable
from service.geo import MAX_ZOOM, Bounds, mercator_tile_bounds, union_bounds
from service.imaging.decode import open_photo
from service.imaging.pixels import to_rgb
from service.imaging.upright import out_of_memory
from service.maps.checks import MIN_CONTRAST, gsd_note
from service.maps.pieces import wrapped

EQUATOR_M_PER_PX = 2 * math.pi * 6_378_137 / 256
"""On the equator, a pixel of zoom 0 has so many metres."""

MAX_TILE_PX = 4096
MAX_CACHED = 64
"""So many decoded tiles are kept: a row of windows reads each tile several times."""

MAX_CANVAS_PX = 2048
"""Tiles are put together in squares of this side at the most."""

MAX_REDUCTION = 64
"""Tiles that are finer than this many times are not looked at: thousands of them would make up a few pixels."""

BOUNDS_ZOOMS = 3
"""So many zooms below the finest count for the bounds: coarser tiles reach far beyond what they show."""

LOOKED_AT = 64
"""So many tiles are decoded before the import begins."""


class Tiles(Protocol):
    """Encoded tiles by zoom, column and row (from the north).

    Attributes:
        extents: from each zoom to its first and last column, first and last row, all included.
        count: of the tiles, of all zooms.
    """

    extents: dict[int, tuple[int, int, int, int]]
    count: int

    def get(self, z: int, x: int, y: int) -> bytes | None:
        """Return a tile's file, None if there is none."""

    def sample(self, z: int, count: int) -> Sequence[tuple[int, int]]:
        """Return columns and rows of some tiles that are there, spread over the zoom."""

    def close(self) -> None:
        """Close the files."""


class Pyramid:
    """Tiles as one map; a :class:`service.maps.mosaic.Mosaic`.

    Args:
        tiles: where they are from.
        name: of the map.
        label: what the user calls the source.
        notes: what is known already.

    Raises:
        SourceUnreadable: no tile can be decoded, or none shows anything.
    """

    def __init__(self, tiles: Tiles, name: str, label: str, notes: Sequence[str] = ()) -> None:
        self.name, self._tiles, self._label, self._known = name, tiles, label, list(notes)
        self.date: str | None = None
        self._cache: OrderedDict[tuple[int, int, int], NDArray[np.uint8] | None] = OrderedDict()
        self._failed: dict[tuple[int, int, int], str] = {}
        self._sides_px = self._look()
        finest = max(self._sides_px)
        shown = [zoom for zoom in self._sides_px if zoom >= finest - BOUNDS_ZOOMS]
        self.bounds: Bounds = union_bounds(np.concatenate([_bounds(zoom, tiles.extents[zoom]) for zoom in shown]))
        lat = (self.bounds[1] + self.bounds[3]) / 2
        pixel_zoom = finest + math.log2(self._sides_px[finest] / 256)
        self.gsd_m = EQUATOR_M_PER_PX / 2**pixel_zoom * math.cos(math.radians(lat))
        self._known += gsd_note(label, self.gsd_m)

    @property
    def notes(self) -> list[str]:
        """What the user should know; tiles that could not be decoded are counted."""
        if not self._failed:
            return self._known
        (z, x, y), first = next(iter(self._failed.items()))
        return [
            *self._known,
            f"{len(self._failed)} of the {self._tiles.count} tiles cannot be decoded and are left out; the first is "
            f"{z}/{x}/{y}: {first}",
        ]

    def read(
        self, zoom: int, left: int, top: int, width: int, height: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """See ``Mosaic.read``."""
        rgb, valid = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), bool)
        for start, x, across in wrapped(left, width, 256 << zoom):
            for level, step in self._levels(zoom):
                side = max(1, int(MAX_CANVAS_PX * min(1.0, step)))
                for i in range(0, height, side):
                    for j in range(0, across, side):
                        part = np.s_[i : min(i + side, height), start + j : start + min(j + side, across)]
                        if not valid[part].all():
                            self._fill(rgb[part], valid[part], level, step, x + j, top + i)
        return rgb, valid

    def close(self) -> None:
        """Close the files."""
        self._tiles.close()

    def _levels(self, zoom: int) -> Iterator[tuple[int, float]]:
        """Zooms of tiles, the just fine enough ones first, with pixels of the request for each of theirs."""
        steps = [(level, 2.0**zoom * 256 / (2.0**level * side)) for level, side in self._sides_px.items()]
        usable = [each for each in steps if each[1] >= 1 / MAX_REDUCTION]
        yield from sorted(usable, key=lambda each: (each[1] > 1, each[1] if each[1] > 1 else -each[1]))

    def _fill(
        self, rgb: NDArray[np.uint8], valid: NDArray[np.bool_], level: int, step: float, left: int, top: int
    ) -> None:
        """Fill what is not yet valid of a rectangle that begins there, from the tiles of one zoom."""
        height, width = valid.shape
        border = 0 if step <= 1 else 2
        x0, y0 = math.floor(left / step) - border, math.floor(top / step) - border
        x1, y1 = math.ceil((left + width) / step) + border, math.ceil((top + height) / step) + border
        canvas = self._canvas(level, x0, y0, x1 - x0, y1 - y0)
        if canvas is None:
            return
        if step != 1:
            box = (left / step - x0, top / step - y0, (left + width) / step - x0, (top + height) / step - y0)
            how = Image.Resampling.BOX if step < 1 else Image.Resampling.BILINEAR
            canvas = np.asarray(Image.fromarray(canvas).resize((width, height), how, box))
        new = (canvas[..., 3] >= 128) & ~valid
        rgb[new] = canvas[..., :3][new]
        valid |= new

    def _canvas(self, level: int, left: int, top: int, width: int, height: int) -> NDArray[np.uint8] | None:
        """Red, green, blue, alpha ``[H, W, 4]`` of a rectangle of a zoom's own pixels; None if there are no tiles."""
        side, canvas = self._sides_px[level], None
        first_x, last_x, first_y, last_y = self._tiles.extents[level]
        for y in range(max(first_y, top // side), min(last_y, (top + height - 1) // side) + 1):
            for x in range(max(first_x, left // side), min(last_x, (left + width - 1) // side) + 1):
                tile = self._tile(level, x, y)
                if tile is None:
                    continue
                if canvas is None:
                    canvas = np.zeros((height, width, 4), np.uint8)
                i, j = y * side - top, x * side - left
                rows, columns = slice(max(0, i), min(height, i + side)), slice(max(0, j), min(width, j + side))
                canvas[rows, columns] = tile[rows.start - i : rows.stop - i, columns.start - j : columns.stop - j]
        return canvas

    def _tile(self, z: int, x: int, y: int) -> NDArray[np.uint8] | None:
        """A decoded tile ``[S, S, 4]``, None if there is none or it is damaged.

        Raises:
            OutOfMemory: there is no room for it; the map would have a hole there.
        """
        key = (z, x, y)
        if key not in self._cache:
            try:
                data = None if key in self._failed else self._tiles.get(z, x, y)
                self._cache[key] = None if data is None else decode_tile(data, self._sides_px[z])
            except OutOfMemory:
                raise
            except AerofixError as error:
                self._failed[key] = error.detail
                self._cache[key] = None
            if len(self._cache) > MAX_CACHED:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    def _look(self) -> dict[int, int]:
        """Sides of the tiles in pixels, of each zoom that shows something."""
        sides_px: dict[int, int] = {}
        trouble: list[SourceUnreadable] = []
        for zoom in sorted(self._tiles.extents, reverse=True):
            try:
                sides_px[zoom] = self._side_px(zoom)
            except SourceUnreadable as error:
                trouble.append(error)
        if not sides_px:
            raise trouble[0]
        self._known += [f"zoom left out: {error.detail}" for error in trouble]
        return sides_px

    def _side_px(self, zoom: int) -> int:
        """Side of a zoom's tiles in pixels, from some of them; they must show something."""
        sides, contrast, why = [], 0.0, "there is none"
        for x, y in self._tiles.sample(zoom, LOOKED_AT):
            try:
                data = self._tiles.get(zoom, x, y)
                if data is None:
                    continue
                tile = decode_tile(data)
            except AerofixError as error:
                why = error.detail
                continue
            sides.append(tile.shape[0])
            shown = tile[tile[..., 3] > 0][:, :3]
            contrast = max(contrast, float(shown.mean(axis=1).std()) if len(shown) else 0.0)
        if not sides:
            raise SourceUnreadable(f"no tile of zoom {zoom} in {self._label} can be decoded: {why}")
        if contrast < MIN_CONTRAST:
            raise SourceUnreadable(
                f"the tiles of zoom {zoom} in {self._label} show nothing: all that were looked at are empty or of one "
                "colour. Check them in a viewer, and export the picture itself."
            )
        return int(np.median(sides))


def decode_tile(data: bytes, side_px: int | None = None) -> NDArray[np.uint8]:
    """Return red, green, blue and alpha ``[S, S, 4]`` of a tile's file.

    Args:
        data: JPEG, PNG, WebP or TIFF.
        side_px: of the result; by default the tile's own, up to the next power of two.

    Raises:
        AerofixError: it cannot be decoded, or is too large.
    """
    photo = open_photo(data, MAX_TILE_PX**2)  # looks at the header, and for what would take long to decode
    if side_px is None:
        side_px = 2 ** math.ceil(math.log2(min(max(photo.width, photo.height), MAX_TILE_PX)))
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP", "TIFF")) as image:
            image.load()
            rgba = to_rgb(image).convert("RGBA")
            if image.has_transparency_data:
                rgba = image.convert("RGBA")
    except MemoryError as error:
        raise out_of_memory(4 * photo.width * photo.height) from error
    except Exception as error:  # Pillow's plugins raise whatever damaged files lead them to
        raise SourceUnreadable(f"it is damaged ({error}); make it again.") from error
    if rgba.size != (side_px, side_px):
        rgba = rgba.resize((side_px, side_px), Image.Resampling.BILINEAR)
    return np.asarray(rgba)


def _bounds(zoom: int, extent: tuple[int, int, int, int]) -> NDArray[np.float64]:
    """Bounds of the tiles of a zoom, as one row; two where they reach all around the Earth."""
    first_x, last_x, first_y, last_y = extent
    west, _, _, north = mercator_tile_bounds(zoom, first_x, first_y)
    _, south, east, _ = mercator_tile_bounds(zoom, last_x, last_y)
    return np.array([[west, south, east, north]])


class TileFiles:
    """Tiles that are files.

    Args:
        files: from zoom, column and row (from the north) to a file's name.
        read: gives the bytes of a file.
        close: called at the end.
    """

    def __init__(
        self, files: Mapping[tuple[int, int, int], str], read: Callable[[str], bytes], close: Callable[[], None]
    ) -> None:
        self._files, self._read, self.close = files, read, close
        self._by_zoom: dict[int, list[tuple[int, int]]] = {}
        for z, x, y in sorted(files):
            self._by_zoom.setdefault(z, []).append((x, y))
        places = {zoom: np.array(tiles) for zoom, tiles in self._by_zoom.items()}
        self.extents = {
            zoom: (int(xy[0, 0]), int(xy[-1, 0]), int(xy[:, 1].min()), int(xy[:, 1].max()))
            for zoom, xy in places.items()
        }
        self.count = len(files)

    def get(self, z: int, x: int, y: int) -> bytes | None:
        """See ``Tiles.get``."""
        name = self._files.get((z, x, y))
        return None if name is None else self._read(name)

    def sample(self, z: int, count: int) -> Sequence[tuple[int, int]]:
        """See ``Tiles.sample``."""
        tiles = self._by_zoom[z]
        chosen = np.unique(np.linspace(0, len(tiles) - 1, min(count, len(tiles))).astype(int))
        return [tiles[i] for i in chosen.tolist()]


def check_tile(z: int, x: int, y: int) -> bool:
    """Say whether there is such a tile at all."""
    return 0 <= z <= MAX_ZOOM and 0 <= x < 2**z and 0 <= y < 2**z
