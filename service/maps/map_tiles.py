"""A map, cut into overlapping square tiles of one or several sizes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import InvalidParameter
from service.ground.tile import Footprint, check_id
from service.maps.raster import Map
from service.maps.tile_source import SourceTile
from service.maps.tiling import Grid, Tiling

TILE_SIZE_M = 86.0
"""A drone photo from about 100 m covers as much."""

OVERLAP = 0.5
MAX_PX = 384
"""Largest side of a tile's image: as much as the models that we know look at."""

MAX_TILE_SIZES = 8
TILE_QUALITY = 92
"""JPEG; its noise is far below the differences that an encoder looks at."""


@dataclass(frozen=True)
class Cut:
    """How a map is cut; images that are tiles already only take the prefix.

    Args:
        tile_sizes_m: sides of the tiles, one layer of tiles for each.
        overlap: share of a tile that its neighbour repeats, 0 to 0.9.
        prefix: start of the tile ids; None for the name of the file.
        max_px: largest side of a tile's image.

    Raises:
        InvalidParameter: a value is out of range.
    """

    tile_sizes_m: Sequence[float] = (TILE_SIZE_M,)
    overlap: float = OVERLAP
    prefix: str | None = None
    max_px: int = MAX_PX

    def __post_init__(self) -> None:
        if not 1 <= len(set(self.tile_sizes_m)) <= MAX_TILE_SIZES:
            raise InvalidParameter(f"give 1 to {MAX_TILE_SIZES} tile sizes.", limit=MAX_TILE_SIZES)
        for size_m in self.tile_sizes_m:
            Tiling(size_m, self.overlap, self.max_px)
        check_id(f"{self.prefix}/r00c00")


class MapTiles:
    """A map cut into layers of square tiles, row by row from the north-west; a :class:`TileSource`.

    Ids are ``<prefix>/<size>m-<overlap in percent>/r03c07``, so that layers of one map never replace each other.

    Raises:
        InvalidParameter: a tile would have fewer than 16 pixels, or there are too many.
    """

    def __init__(self, source: Map, cut: Cut, prefix: str) -> None:
        self._map, self._stack = source, ExitStack()
        self._warped: Any = None
        self._layer = -1  # that ``_warped`` is of
        self._names: list[str] = []
        self._grids: list[tuple[Grid, float]] = []
        try:
            for size_m in dict.fromkeys(cut.tile_sizes_m):
                self._names.append(f"{prefix}/{size_m:g}m-{100 * cut.overlap:g}")
                self._grids.append(source.grid(Tiling(size_m, cut.overlap, cut.max_px)))
                check_id(f"{self._names[-1]}/r000000c000000")
        except BaseException:
            source.close()
            raise

    def __len__(self) -> int:
        return sum(len(grid) for grid, _ in self._grids)

    def label(self, i: int) -> str:
        """The tile's id."""
        layer, row, column = self._place(i)
        grid, _ = self._grids[layer]
        digits = max(2, len(str(max(len(grid.rows), len(grid.columns)) - 1)))
        return f"{self._names[layer]}/r{row:0{digits}}c{column:0{digits}}"

    def piece(self, i: int) -> tuple[NDArray[np.uint8], Footprint] | None:
        """RGB pixels ``[S, S, 3]`` and footprint of place ``i``, or None where the map is mostly empty."""
        layer, row, column = self._place(i)
        grid, pixel_m = self._grids[layer]
        if layer != self._layer:
            self._stack.close()
            self._warped, self._layer = self._map.warped(grid, pixel_m, self._stack), layer
        left, top = grid.columns[column], grid.rows[row]
        pixels = self._map.read(self._warped, left, top, grid.tile_px)
        if pixels is None:
            return None
        return pixels, self._map.footprint(left * pixel_m, top * pixel_m, grid.tile_px, pixel_m)

    def read(self, i: int) -> SourceTile | None:
        """See :meth:`TileSource.read`."""
        piece = self.piece(i)
        if piece is None:
            return None
        pixels, footprint = piece
        image = io.BytesIO()
        Image.fromarray(pixels).save(image, "JPEG", quality=TILE_QUALITY)
        return SourceTile(image.getvalue(), {"id": self.label(i), "corners": footprint.corners})

    def close(self) -> None:
        """Close the map."""
        self._stack.close()
        self._map.close()

    def _place(self, i: int) -> tuple[int, int, int]:
        """Layer, row and column of place ``i``."""
        for layer, (grid, _) in enumerate(self._grids):
            if i < len(grid):
                return layer, *divmod(i, len(grid.columns))
            i -= len(grid)
        raise IndexError(i)
