"""The order in which a map is built, piece by piece: tiles of pixels, and soon after them the windows that show them.

So the encoder works from the start, beside what reads the source. The same map always gives the same plan: an import
that was interrupted goes on after its last piece.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from service.errors import InvalidParameter
from service.geo import Bounds
from service.ground.maps import NewMap
from service.ground.windows import TILE_PX, Lattice, Rectangle, nearest_zoom, rectangle_of
from service.importing.layers import LAG, Kind, Layer, follow, in_order, z_order
from service.importing.options import MapOptions
from service.maps.mosaic import Mosaic

TILES_ALONG, WINDOWS_ALONG = 4, 6
"""A piece is a square of so many: 1 megapixel of the source, or 64 windows. A crash makes the import do one again."""

TILE_COST = 0.8
"""A tile is so much work against a window: 13 to 22 ms to warp or shrink and to compress it, 24 ms to cut, embed and
store a window on a CPU. Only the time left and the sizes of shards depend on it."""

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
        needs: of these, so many have to be stored before the piece can be made.
    """

    kind: Kind
    zoom: int
    area: Rectangle
    first: int
    needs: int = 0

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

    Attributes:
        pieces: in their order.
        windows: how many places are windows; the others are tiles.

    Raises:
        InvalidParameter: there would be over ten million places.
    """

    def __init__(self, lattice: Lattice, bounds: Bounds, levels: tuple[int, ...], min_zoom: int, max_zoom: int) -> None:
        self._check_size(lattice, bounds, levels, max_zoom)
        zooms = range(max_zoom, min_zoom - 1, -1)
        areas = {zoom: rectangle_of(bounds, zoom) for zoom in zooms}
        tiles = {
            zoom: Layer("read" if zoom == max_zoom else "shrink", zoom, tiles_in(areas[zoom]), TILES_ALONG)
            for zoom in zooms
        }
        tiles[max_zoom].due = z_order(*tiles[max_zoom].shape)
        tiles[max_zoom].due[0, 0] = -LAG  # nothing else is there yet that the encoder could have
        for finer, coarser in pairwise(zooms):
            follow(tiles[coarser], tiles[finer], 2, 2)
        windows = [Layer("embed", zoom, lattice.windows_in(areas[zoom]), WINDOWS_ALONG) for zoom in levels]
        for layer in windows:
            follow(layer, tiles[layer.zoom], lattice.step_px / TILE_PX, lattice.side_px / TILE_PX)
        self.pieces = _pieces([*tiles.values(), *windows])
        self.windows = sum(len(piece) for piece in self.pieces if piece.kind == "embed")
        work = [len(piece) * (1.0 if piece.kind == "embed" else TILE_COST) for piece in self.pieces]
        self._costs = np.concatenate([[0.0], np.cumsum(work)])
        self._ends = [0, *(piece.end for piece in self.pieces)]

    def __len__(self) -> int:
        """Number of places: tiles and windows."""
        return self._ends[-1]

    def cost(self, done: int) -> float:
        """Return the work of the first ``done`` places, in windows."""
        return float(np.interp(done, self._ends, self._costs))

    def after(self, done: int) -> list[PlanPiece]:
        """List the pieces that are left after the first ``done`` places."""
        return self.pieces[bisect_left(self._ends, done) :]

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


def _pieces(layers: list[Layer]) -> list[PlanPiece]:
    each = in_order(layers)
    return [
        PlanPiece(layers[number].kind, layers[number].zoom, Rectangle(*area), first, needs)
        for number, area, first, needs in zip(
            each.layer.tolist(), each.area.tolist(), each.first.tolist(), each.needs.tolist(), strict=True
        )
    ]


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
