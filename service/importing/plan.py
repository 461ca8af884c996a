"""The order in which a map is built: its finest tiles, coarser ones from them, then its windows, level by level.

The same map always gives the same plan, so an import that was interrupted goes on after its last piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from service.errors import InvalidParameter
from service.geo import Bounds
from service.ground.maps import NewMap
from service.ground.windows import TILE_PX, Lattice, Rectangle, nearest_zoom, rectangle_of
from service.importing.options import MapOptions
from service.maps.mosaic import Mosaic

Kind = Literal["read", "shrink", "embed"]
"""Finest tiles are read from the source, coarser ones made from finer ones, windows embedded."""

TILES_ALONG, WINDOWS_ALONG = 4, 8
"""A piece is a square of so many: 1 megapixel of the source, or 64 windows. A crash makes the import do one again."""

TILE_COST = 0.15
"""A tile is so much work against a window, of which the encoder takes most (``benchmarks/ground.py``)."""

MAX_PLACES = 10_000_000
"""A plan has at most so many places, as a square of 90 km has at 0.3 m a pixel; more is a mistake in a unit or in a
file's header."""

MIN_SHOWN_PX = 128
"""Coarser tiles are made until the whole map is as small as this: what one sees of it from afar."""


@dataclass(frozen=True)
class PlanPiece:
    """Neighbouring tiles or windows that are stored in one transaction.

    Attributes:
        zoom: of them.
        area: their columns and rows.
        first: places of the plan that come before.
    """

    kind: Kind
    zoom: int
    area: Rectangle
    first: int

    def __len__(self) -> int:
        return (self.area.right - self.area.left) * (self.area.bottom - self.area.top)

    @property
    def end(self) -> int:
        """Places of the plan that are finished with this piece."""
        return self.first + len(self)


class Plan:
    """All pieces of a map.

    Args:
        lattice: of its windows.
        bounds: what is to be built, ``(west, south, east, north)``.
        levels: zooms of windows, finest first.
        min_zoom: coarsest tiles.
        max_zoom: finest tiles.

    Raises:
        InvalidParameter: there would be over ten million places.
    """

    def __init__(self, lattice: Lattice, bounds: Bounds, levels: tuple[int, ...], min_zoom: int, max_zoom: int) -> None:
        self.pieces: list[PlanPiece] = []
        self._check_size(lattice, bounds, levels, max_zoom)
        for zoom in range(max_zoom, min_zoom - 1, -1):
            kind: Kind = "read" if zoom == max_zoom else "shrink"
            self._add(kind, zoom, tiles_in(rectangle_of(bounds, zoom)), TILES_ALONG)
        self._tiles = len(self)
        for zoom in levels:
            self._add("embed", zoom, lattice.windows_in(rectangle_of(bounds, zoom)), WINDOWS_ALONG)

    def __len__(self) -> int:
        """Number of places: tiles and windows."""
        return self.pieces[-1].end if self.pieces else 0

    @property
    def windows(self) -> int:
        """Places that are windows."""
        return len(self) - self._tiles

    def cost(self, done: int) -> float:
        """Return the work of the first ``done`` places, in windows."""
        return TILE_COST * min(done, self._tiles) + max(0, done - self._tiles)

    def phases(self, done: int) -> Iterator[list[PlanPiece]]:
        """Yield pieces after the first ``done``, in groups: those of one need what the groups before have stored."""
        left = (piece for piece in self.pieces if piece.first >= done)
        for _, pieces in groupby(left, key=lambda piece: ("embed",) if piece.kind == "embed" else (piece.zoom,)):
            yield list(pieces)

    def _check_size(self, lattice: Lattice, bounds: Bounds, levels: tuple[int, ...], max_zoom: int) -> None:
        """Refuse a plan that no disk could hold before it is made."""
        areas = [lattice.windows_in(rectangle_of(bounds, zoom)) for zoom in levels]
        areas.append(tiles_in(rectangle_of(bounds, max_zoom)))
        places = sum((area.right - area.left) * (area.bottom - area.top) for area in areas)
        if places > MAX_PLACES:
            raise InvalidParameter(
                f"The map has room for {places:.3g} windows and tiles; give pieces of it, or check that its extent and "
                "its metres a pixel are right.",
                limit=MAX_PLACES,
                actual=places,
            )

    def _add(self, kind: Kind, zoom: int, area: Rectangle, along: int) -> None:
        for top in range(area.top, area.bottom, along):
            for left in range(area.left, area.right, along):
                part = Rectangle(left, top, min(left + along, area.right), min(top + along, area.bottom))
                self.pieces.append(PlanPiece(kind, zoom, part, len(self)))


def tiles_in(area: Rectangle) -> Rectangle:
    """Return columns and rows of the tiles that an area of pixels touches."""
    left, top = area.left // TILE_PX, area.top // TILE_PX
    return Rectangle(left, top, -(-area.right // TILE_PX), -(-area.bottom // TILE_PX))


def new_map(lattice: Lattice, mosaic: Mosaic, options: MapOptions, origin: str) -> NewMap:
    """Plan a map as its source and the options want it.

    Args:
        lattice: of the model.
        mosaic: the source.
        options: with the map's name.
        origin: name of the source's file.

    Raises:
        InvalidParameter: windows of the wanted sizes cannot be made.
    """
    bounds = mosaic.bounds
    levels = options.levels(lattice, mosaic.gsd_m, (bounds[1] + bounds[3]) / 2)
    zooms = zooms_for(lattice, bounds, mosaic.gsd_m, levels)
    date = options.date or mosaic.date
    return NewMap(str(options.map), origin, bounds, mosaic.gsd_m, date, levels, options.overlap > 0, *zooms)


def zooms_for(lattice: Lattice, bounds: Bounds, gsd_m: float, levels: tuple[int, ...]) -> tuple[int, int]:
    """Return the coarsest and finest zoom at which a map's pixels are kept.

    The finest is that of its resolution, or of the finest windows that a drone photo needs: more is never looked at.
    """
    lat = (bounds[1] + bounds[3]) / 2
    finest = max(*levels, *lattice.levels(gsd_m, lat))
    area = rectangle_of(bounds, finest)
    longest = max(area.right - area.left, area.bottom - area.top)
    coarsest = finest
    while coarsest > 0 and longest > MIN_SHOWN_PX * 2 ** (finest - coarsest):
        coarsest -= 1
    return min(coarsest, *levels, nearest_zoom(gsd_m, lat)), finest
