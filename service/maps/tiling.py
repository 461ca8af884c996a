"""How a map of so many pixels is covered with overlapping square tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass

from service.errors import InvalidParameter
from service.ground.tile import MAX_SIDE_M, MIN_SIDE_M

MIN_TILE_PX, MAX_TILE_PX = 16, 4096
"""Below, an encoder sees nothing; above, a tile takes 50 MB."""

STEP_SLACK = 0.1
"""A remainder below this share of a step is spread over the other steps instead of costing a row of its own."""

MAX_OVERLAP = 0.9
"""Ten times as many tiles along each side; beyond, neighbours differ by less than a query's position error."""


MAX_TILES = 10_000_000
"""86 m tiles, half overlapping, of a square of 136 km; more is a mistake in a unit or in a file's header."""


@dataclass(frozen=True)
class Tiling:
    """What is asked for.

    Args:
        tile_size_m: side of a tile on the ground, metres, 0.5 to 100,000.
        overlap: share of a tile that its neighbour repeats, 0 to 0.9.
        max_px: largest side of a tile's image in pixels, 16 to 4,096.

    Raises:
        InvalidParameter: a value is outside its range.
    """

    tile_size_m: float
    overlap: float
    max_px: int

    def __post_init__(self) -> None:
        if not MIN_SIDE_M <= self.tile_size_m <= MAX_SIDE_M:
            raise InvalidParameter(f"tile_size_m is {self.tile_size_m}; give {MIN_SIDE_M} to {MAX_SIDE_M:.0f} metres.")
        if not 0 <= self.overlap <= MAX_OVERLAP:
            raise InvalidParameter(f"overlap is {self.overlap}; give a share between 0 and {MAX_OVERLAP}.")
        if not MIN_TILE_PX <= self.max_px <= MAX_TILE_PX:
            raise InvalidParameter(f"max_px is {self.max_px}; give {MIN_TILE_PX} to {MAX_TILE_PX} pixels.")


@dataclass(frozen=True)
class Grid:
    """Square windows over a map.

    Args:
        width_px: width of the map.
        height_px: height of the map.
        tile_px: side of a window, at most the map's shorter side.
        rows: top pixel of each row of windows.
        columns: left pixel of each column of windows.
    """

    width_px: int
    height_px: int
    tile_px: int
    rows: list[int]
    columns: list[int]

    @classmethod
    def over(cls, width_m: float, height_m: float, gsd_m: float, tiling: Tiling) -> tuple[Grid, float]:
        """Lay windows over a map so that every pixel is in at least one.

        Tiles keep the map's own resolution, or are coarser where ``max_px`` asks for it. Rows and columns are spread
        evenly from edge to edge (to half a pixel), so that neighbours overlap by ``overlap`` or a little more. Of a
        map that is narrower than a tile the tiles take its shorter side.

        Args:
            width_m: width of the map, metres.
            height_m: height of the map, metres.
            gsd_m: the map's own metres a pixel.
            tiling: what is asked for.

        Returns:
            The grid, and the metres a pixel of its windows.

        Raises:
            InvalidParameter: a tile would have fewer than 16 pixels, or there would be over ten million tiles.
        """
        side_m = min(tiling.tile_size_m, width_m, height_m)
        tile_px = min(tiling.max_px, round(side_m / gsd_m))
        if tile_px < MIN_TILE_PX:
            raise InvalidParameter(
                f"A tile of {side_m:.3g} m has {tile_px} pixels at {gsd_m:.3g} m a pixel; give a tile_size_m of "
                f"{MIN_TILE_PX * gsd_m:.3g} m or more, or a larger or finer map."
            )
        pixel_m = side_m / tile_px
        width_px, height_px = max(tile_px, round(width_m / pixel_m)), max(tile_px, round(height_m / pixel_m))
        step = max(1, round(tile_px * (1 - tiling.overlap)))
        if (places := (height_px / step) * (width_px / step)) > MAX_TILES:
            raise InvalidParameter(
                f"The map has room for {places:.3g} tiles of {side_m:.3g} m; give a larger tile_size_m, less overlap, "
                "or pieces of the map.",
                limit=MAX_TILES,
                actual=int(places),
            )
        rows, columns = _starts(height_px, tile_px, step), _starts(width_px, tile_px, step)
        return cls(width_px, height_px, tile_px, rows, columns), pixel_m

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)


def _starts(length: int, size: int, step: int) -> list[int]:
    """First pixels of windows of ``size``, evenly spread over ``length`` pixels, without gaps."""
    last = length - size
    if last == 0:
        return [0]
    steps = max(1, math.ceil(last / step - STEP_SLACK), math.ceil(last / size))
    return [i * last // steps for i in range(steps + 1)]
