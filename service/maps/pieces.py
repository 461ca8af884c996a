"""Many rasters beside and above each other, as one mosaic; opened when they are needed, a few at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.errors import SourceUnreadable
from service.geo import Bounds, union_bounds
from service.maps import checks
from service.maps.dates import together
from service.maps.piece import WORLD_M, Piece
from service.maps.rendering import Stretch, stretch_of
from service.maps.survey import Collar

MAX_OPEN = 16
"""So many rasters are open at once: a window lies on four at the most where they lie side by side, and GDAL's cache
holds what was read of them."""

MAX_SURVEYED = 64
"""Of many rasters, so many are looked at before the import begins."""

SLACK = 1.05
"""A raster that is so little too coarse will do, as for overviews."""


@dataclass(frozen=True)
class UnopenedPiece:
    """A raster of the mosaic that need not be open.

    Attributes:
        label: what to call it when something is wrong with it.
        mercator: west, south, east and north edge in Web Mercator metres; may reach beyond ±180°.
        bounds: the same in degrees.
        gsd_m: metres a pixel on the ground.
        open: opens it.
        date: the day that it tells, ISO 8601, or None.
        is_numbers: see ``Piece``.
    """

    label: str
    mercator: tuple[float, float, float, float]
    bounds: Bounds
    gsd_m: float
    open: Callable[[], Piece]
    date: str | None = None
    is_numbers: bool = False


def part_of(label: str, opener: Callable[[], Piece]) -> UnopenedPiece:
    """Open a raster to see where it lies, and close it again."""
    piece = opener()
    try:
        return UnopenedPiece(label, piece.mercator, piece.bounds, piece.gsd_m, opener, piece.date, piece.is_numbers)
    finally:
        piece.close()


class Pieces:
    """Rasters as one map; a :class:`service.maps.mosaic.Mosaic`.

    Where rasters overlap, the one that is just fine enough for what is asked for is on top.

    Args:
        parts: one or more.
        name: of the map.
        notes: what is known already.
        close: called at the end.

    Raises:
        SourceUnreadable: one of the first rasters is damaged, or none shows anything.
    """

    def __init__(
        self,
        parts: Sequence[UnopenedPiece],
        name: str,
        notes: Sequence[str] = (),
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self._parts, self._on_close = name, parts, close
        self.date = together(part.date for part in parts)
        self._open: OrderedDict[int, Piece] = OrderedDict()
        self._collars: dict[int, Collar | None] = {}
        self._failed: dict[int, str] = {}
        self._stretches: dict[str, Stretch | None] = {}  # by the type of the bands
        self._edges = np.array([part.mercator for part in parts])
        self._gsds_m = np.array([part.gsd_m for part in parts])
        self.bounds = union_bounds(np.array([part.bounds for part in parts]))
        self.gsd_m = float(np.median(self._gsds_m))
        self._notes = list(notes)
        try:
            self._survey()
        except BaseException:
            self.close()
            raise

    @property
    def notes(self) -> list[str]:
        """What the user should know; rasters that could not be read are counted."""
        if not self._failed:
            return self._notes
        first = next(iter(self._failed.values()))
        return [*self._notes, f"{len(self._failed)} of {len(self._parts)} rasters are left out; the first: {first}"]

    def read(
        self, zoom: int, left: int, top: int, width: int, height: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """See ``Mosaic.read``."""
        rgb, valid = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), bool)
        for start, x, across in wrapped(left, width, 256 << zoom):
            columns = slice(start, start + across)
            for i in self._below(zoom, x, top, across, height):
                rgba = self._read(i, zoom, x, top, across, height)
                if rgba is None:
                    continue
                new = (rgba[3] >= 128) & ~valid[:, columns]
                np.copyto(rgb[:, columns], np.moveaxis(rgba[:3], 0, 2), where=new[..., None])
                valid[:, columns] |= new
                if valid[:, columns].all():
                    break
        return rgb, valid

    def close(self) -> None:
        """Close the files."""
        while self._open:
            self._open.popitem()[1].close()
        self._on_close()

    def _survey(self) -> None:
        """Look at some of the rasters: for their stretch, and for what the user should know."""
        chosen = np.unique(np.linspace(0, len(self._parts) - 1, min(MAX_SURVEYED, len(self._parts))).astype(int))
        looks = []
        for i in chosen.tolist():
            piece = self._opened(i)
            looks.append((piece, piece.survey()))
            self._collars[i] = piece.collar
        for kind in {piece.dtype for piece, _ in looks}:
            shown = [seen.pixels() for piece, seen in looks if piece.dtype == kind]
            most = max(map(len, shown))  # bands; grey ones are shown as three
            pixels = np.concatenate([np.broadcast_to(each, (most, each.shape[1])) for each in shown], axis=1)
            self._stretches[kind] = stretch_of(pixels)
        for piece, _ in looks:
            piece.stretch = self._stretches[piece.dtype]
        self._notes += checks.notes_on(looks)

    def _below(self, zoom: int, left: int, top: int, width: int, height: int) -> Iterator[int]:
        """Numbers of the rasters that a rectangle lies on, the best for its resolution first."""
        pixel_m = WORLD_M / (256 << zoom)
        west, north = left * pixel_m - WORLD_M / 2, WORLD_M / 2 - top * pixel_m
        east, south = west + width * pixel_m, north - height * pixel_m
        w, s, e, n = self._edges.T
        turns = [(w + turn < east) & (e + turn > west) for turn in (-WORLD_M, 0.0, WORLD_M)]
        found = np.flatnonzero(np.logical_or.reduce(turns) & (s < north) & (n > south))
        scale = np.cos(np.arctan(np.sinh((north + south) / WORLD_M * np.pi)))
        too_coarse = self._gsds_m[found] > pixel_m * scale * SLACK
        # fine enough ones from the coarsest on, then the others from the finest on
        ranks = np.where(too_coarse, self._gsds_m[found], -self._gsds_m[found])
        yield from found[np.lexsort((found, ranks, too_coarse))].tolist()

    def _read(self, i: int, *rectangle: int) -> NDArray[np.uint8] | None:
        """Red, green, blue and alpha of one raster; None if it is damaged and others are left."""
        if i in self._failed:
            return None
        try:
            return self._piece(i).read(*rectangle)
        except SourceUnreadable as error:
            self._failed[i] = error.detail
            if len(self._failed) == len(self._parts):
                raise
            return None

    def _piece(self, i: int) -> Piece:
        """Raster ``i``, opened if need be, with its collar and the stretch of those of its type."""
        piece = self._opened(i)
        if i not in self._collars:
            seen = piece.survey()
            self._collars[i] = piece.collar
            if piece.dtype not in self._stretches:
                self._stretches[piece.dtype] = stretch_of(seen.pixels())
        piece.collar, piece.stretch = self._collars[i], self._stretches[piece.dtype]
        return piece

    def _opened(self, i: int) -> Piece:
        """Raster ``i``, opened if need be."""
        if i not in self._open:
            while len(self._open) >= MAX_OPEN:
                self._open.popitem(last=False)[1].close()
            self._open[i] = self._parts[i].open()
        self._open.move_to_end(i)
        return self._open[i]


def wrapped(left: int, width: int, world: int) -> Iterator[tuple[int, int, int]]:
    """Cut a row of pixels where the world begins anew: offset in the row, first pixel in the world, pixels."""
    done = 0
    while done < width:
        x = (left + done) % world
        across = min(width - done, world - x)
        yield done, x, across
        done += across
