"""The pixels of a map as an import would store them, made when they are asked for."""

from __future__ import annotations

from collections import OrderedDict

from service.ground.pyramid import Cutter
from service.ground.windows import Rectangle, key_of
from service.importing.build import read_tiles, shrink_tiles
from service.importing.plan import Plan, PlanPiece
from service.maps.mosaic import Mosaic

MAP = 1
"""Ids that pass through here name the map by this number; the gallery gives it its own."""

KEPT_TILES = 8192
"""So many WebP files are kept at hand, about 160 MB: what the windows of a shard share."""


class SourcePixels:
    """Makes the tiles of a map's pyramid from its source: the same bytes as an import of the whole, in any order.

    A tile depends only on the tiles below it, so a shard makes what lies under its own windows and no more. For one
    thread at a time.

    Args:
        mosaic: the source.
        plan: of the map.
    """

    def __init__(self, mosaic: Mosaic, plan: Plan) -> None:
        self._mosaic = mosaic
        self._read = {(piece.area.left, piece.area.top): piece for piece in plan.pieces if piece.kind == "read"}
        self._finest = next(piece.zoom for piece in plan.pieces)
        self._columns = 2**self._finest
        self._corner = min(left for left, _ in self._read), min(top for _, top in self._read)
        self._along = max(piece.area.right - piece.area.left for piece in self._read.values())
        self._kept: OrderedDict[int, bytes | None] = OrderedDict()
        self.cutter = Cutter(self.tile)

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """Return the WebP file of a tile, None where the map shows nothing."""
        key = key_of(MAP, zoom, y, x)
        if key not in self._kept:
            made = self._read_piece(x, y) if zoom == self._finest else self._shrunk(zoom, x, y)
            self._kept.setdefault(key, None)
            self._kept.update(made)
            found = self._kept[key]
            while len(self._kept) > KEPT_TILES:
                self._kept.popitem(last=False)
            return found
        self._kept.move_to_end(key)
        return self._kept[key]

    def made(self, piece: PlanPiece) -> dict[int, bytes]:
        """Return the tiles of a piece of the plan."""
        if piece.kind == "read":
            return read_tiles(self._mosaic, piece, MAP, None)
        return shrink_tiles(piece, MAP, self.cutter)

    def _read_piece(self, x: int, y: int) -> dict[int, bytes]:
        """All tiles of the piece that has this one: a source is read in the same rectangles whoever asks."""
        left, top = self._corner
        column = (x - left) % self._columns // self._along * self._along
        row = (y - top) // self._along * self._along
        piece = self._read.get((left + column, top + row))
        return {} if piece is None else self.made(piece)

    def _shrunk(self, zoom: int, x: int, y: int) -> dict[int, bytes]:
        if zoom > self._finest:
            return {}
        return shrink_tiles(PlanPiece("shrink", zoom, Rectangle(x, y, x + 1, y + 1), 0), MAP, self.cutter)
