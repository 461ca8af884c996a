"""The pieces of a map, made: what is read, shrunk and cut in threads, before it is embedded and stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.ground.pyramid import Cutter, encode, join, over
from service.ground.windows import TILE_PX, Lattice, key_of
from service.importing.plan import PlanPiece
from service.maps.mosaic import Mosaic

MIN_VALID_SHARE = 0.5
"""Windows with a smaller share of valid pixels are left out: mostly nothing cannot be told from other nothing."""

FLAT = 2.0
"""A window whose pixels have a smaller standard deviation, in steps of 255, is of one colour: fill, or what no photo
can be told by. Calm water and fresh snow have 3 or more."""


@dataclass(frozen=True, eq=False)
class Cut:
    """A window, cut out to be embedded.

    Attributes:
        key: its id.
        pixels: the model's input ``[S, S, 3]``.
        searched: whether its embedding is wanted.
        described: whether its block of descriptors is.
    """

    key: int
    pixels: NDArray[np.uint8]
    searched: bool
    described: bool


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows of a piece that are worth embedding, and how many were left out: mostly empty, or of one colour."""

    cuts: list[Cut]
    empty: int
    flat: int


def read_tiles(mosaic: Mosaic, piece: PlanPiece, number: int, before: Cutter | None) -> dict[int, bytes]:
    """Return the finest tiles of a piece, from the source.

    Args:
        mosaic: the source.
        piece: of kind ``read``.
        number: of the map.
        before: pixels that are kept where the source shows nothing, if there are any.
    """
    area, zoom = piece.area, piece.zoom
    tiles: dict[int, bytes] = {}
    for left, right in _within_the_world(area.left, area.right, 2**zoom):
        width, height = right - left, area.bottom - area.top
        first = left % 2**zoom
        rgb, valid = mosaic.read(zoom, first * TILE_PX, area.top * TILE_PX, width * TILE_PX, height * TILE_PX)
        rgba = np.dstack([rgb, np.where(valid, 255, 0).astype(np.uint8)])
        for row, column in np.ndindex(height, width):
            tile = rgba[row * TILE_PX : (row + 1) * TILE_PX, column * TILE_PX : (column + 1) * TILE_PX]
            if not tile[..., 3].any():
                continue
            x, y = first + column, area.top + row
            old = None if before is None else before.tile(zoom, x, y)
            tiles[key_of(number, zoom, y, x)] = encode(tile if old is None else over(tile, old))
    return tiles


def shrink_tiles(piece: PlanPiece, number: int, stored: Cutter) -> dict[int, bytes]:
    """Return the tiles of a piece, each from its four children; see ``read_tiles``."""
    tiles: dict[int, bytes] = {}
    finer = piece.zoom + 1
    for x in range(piece.area.left, piece.area.right):
        for y in range(piece.area.top, piece.area.bottom):
            tile = join([stored.tile(finer, 2 * x + right, 2 * y + down) for down in (0, 1) for right in (0, 1)])
            if tile is not None and tile[..., 3].any():
                tiles[key_of(number, piece.zoom, y, x % 2**piece.zoom)] = encode(tile)
    return tiles


def cut_windows(
    piece: PlanPiece, number: int, stored: Cutter, lattice: Lattice, overlap: bool, blocks: bool
) -> Windows:
    """Return the windows of a piece, cut from the stored pixels.

    A window is searched when most of it is there, and described when most of its middle is: so the descriptors of the
    ground reach the map's edge.

    Args:
        piece: of kind ``embed``.
        number: of the map.
        stored: its pixels.
        lattice: of its windows.
        overlap: False: only every other row and column of windows is searched.
        blocks: whether the model gives local descriptors.
    """
    side, step = lattice.side_px, lattice.step_px
    inner = slice(side // 4, side // 4 + side // 2)
    cuts: list[Cut] = []
    empty = flat = 0
    for row in range(piece.area.top, piece.area.bottom):
        for column in range(piece.area.left, piece.area.right):
            wanted = overlap or (row % 2 == 0 and column % 2 == 0)
            pixels, valid = stored.cut(piece.zoom, column * step, row * step, side, side)
            searched = bool(wanted and valid.mean() >= MIN_VALID_SHARE)
            described = bool(blocks and valid[inner, inner].mean() >= MIN_VALID_SHARE)
            empty += wanted and not searched
            if not (searched or described):
                continue
            if is_flat(pixels, valid):
                flat += searched
                continue
            cuts.append(Cut(key_of(number, piece.zoom, row, column), pixels, searched, described))
    return Windows(cuts, empty, flat)


def is_flat(pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> bool:
    """Say whether the valid pixels are of one colour, but for noise."""
    seen = np.ascontiguousarray(pixels[::2, ::2][valid[::2, ::2]].T, np.float32)
    return seen.size == 0 or float(seen.std(axis=1).max()) < FLAT


def _within_the_world(left: int, right: int, columns: int) -> list[tuple[int, int]]:
    """Columns of tiles, cut in two where they run on over the antimeridian."""
    seam = (left // columns + 1) * columns
    return [(left, right)] if right <= seam else [(left, seam), (seam, right)]
