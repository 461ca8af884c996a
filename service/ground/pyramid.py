"""The stored pixels of a map: XYZ tiles of WebP, each zoom made from the next finer one, and what is cut from them."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.ground.windows import TILE_PX

Pixels = NDArray[np.uint8]
"""A tile's pixels are RGBA, ``[256, 256, 4]``; an alpha below ``VALID`` means that the map shows nothing there."""

VALID = 128

QUALITY, EFFORT = 85, 2
"""Tiles are WebP of this quality and effort. At 85 a square kilometre at 0.38 m/px takes 2 MB or less, and embeddings
of windows differ from those of the untouched pixels by less than a shift by one pixel changes them (``make
bench-ground``)."""

CACHED_TILES = 160
"""So many decoded tiles are kept at hand, 42 MB: a block of windows, as they are embedded, lies in about 80."""


def encode(tile: Pixels) -> bytes:
    """Return a WebP file; it has an alpha channel only where the map does not fill the tile."""
    out = io.BytesIO()
    whole = bool((tile[..., 3] == 255).all())
    image = Image.fromarray(np.ascontiguousarray(tile[..., :3]) if whole else tile)
    image.save(out, "WEBP", quality=QUALITY, method=EFFORT)
    return out.getvalue()


def decode(data: bytes) -> Pixels:
    """Return the pixels of a stored tile."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def join(children: Sequence[Pixels | None]) -> Pixels | None:
    """Return the tile of the next coarser zoom: each pixel the mean of four, weighted by their alpha.

    Args:
        children: top left, top right, bottom left and bottom right; None where there is nothing.

    Returns:
        None when there is nothing in any of them.
    """
    if all(child is None for child in children):
        return None
    empty = np.zeros((TILE_PX, TILE_PX, 4), np.uint8)
    four = [empty if child is None else child for child in children]
    large = np.vstack([np.hstack(four[:2]), np.hstack(four[2:])])
    return np.asarray(Image.fromarray(large).reduce(2))


def over(new: Pixels, old: Pixels) -> Pixels:
    """Return a tile with the new pixels where there are some, and the old ones elsewhere."""
    return np.where(new[..., 3:] >= VALID, new, old)


class Cutter:
    """Cuts rectangles out of a map's stored pixels; for one thread at a time.

    Args:
        read: gives the WebP files of tiles ``(zoom, x, y)``, None for those that are not there.
    """

    def __init__(self, read: Callable[[int, int, int], bytes | None]) -> None:
        self._read = read
        self._tiles: OrderedDict[tuple[int, int, int], Pixels | None] = OrderedDict()

    def cut(self, zoom: int, left: int, top: int, width: int, height: int) -> tuple[Pixels, NDArray[np.bool_]]:
        """Return RGB ``[H, W, 3]`` and which pixels are valid ``[H, W]`` of a rectangle of a zoom's global pixels.

        Pixels that the map does not show are black. Columns beyond the antimeridian run on with the world's first.
        """
        rgba = np.zeros((height, width, 4), np.uint8)
        for y in range(top // TILE_PX, (top + height - 1) // TILE_PX + 1):
            for x in range(left // TILE_PX, (left + width - 1) // TILE_PX + 1):
                tile = self.tile(zoom, x, y)
                if tile is None:
                    continue
                # the overlap of tile and rectangle, in the pixels of each
                x0, y0 = max(left, x * TILE_PX), max(top, y * TILE_PX)
                x1, y1 = min(left + width, (x + 1) * TILE_PX), min(top + height, (y + 1) * TILE_PX)
                rgba[y0 - top : y1 - top, x0 - left : x1 - left] = tile[
                    y0 - y * TILE_PX : y1 - y * TILE_PX, x0 - x * TILE_PX : x1 - x * TILE_PX
                ]
        valid = rgba[..., 3] >= VALID
        rgb = rgba[..., :3].copy()
        if not valid.all():
            rgb[~valid] = 0
        return rgb, valid

    def tile(self, zoom: int, x: int, y: int) -> Pixels | None:
        """Return the pixels of a tile, None where there is nothing."""
        key = (zoom, x % 2**zoom, y)
        if key not in self._tiles:
            data = self._read(*key)
            self._tiles[key] = None if data is None else decode(data)
            if len(self._tiles) > CACHED_TILES:
                self._tiles.popitem(last=False)
        self._tiles.move_to_end(key)
        return self._tiles[key]
