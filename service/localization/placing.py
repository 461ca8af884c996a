"""The places where a square of a photo may lie on the ground: roughly over all of it, then exactly around the best."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from service.camera.look import Look
from service.camera.pinhole import apply
from service.geo import Circle, offset_m
from service.ground.gallery import Gallery
from service.ground.local_maps import LocalMap
from service.ground.search import Found
from service.ground.windows import Ids, cells_of, maps_of, zooms_of
from service.localization.correlation import Cells, Mask, correlate, halved, mean_of, peaks, standard, without
from service.localization.glance import inner_cells, unit
from service.localization.matching import Complex, Floats, cell_centres

LEAST_SHOWN = 0.1
"""A photo that shows less than this share of the square is not laid over anything."""

BLOCK = 8
"""Ground is tried in blocks of so many windows each way."""

MOST_BLOCKS = 64
"""At most so many blocks are tried, those of the best windows: each takes 5 ms of a core, and 1.3 MB."""

PEAKS = 12
"""So many of the roughly best places are tried exactly. Of 87 photos of other years that were laid over 9 km², the
exactly best is among the first 7 for 82; of the others none stands out by more than 4.1."""

MAIN_DIRECTIONS = 16
"""Roughly, descriptors are compared in so few directions, those in which the photo's differ most: a quarter of the
transforms."""

REACH = 10
"""Around each of these so many cells each way are tried."""


@dataclass(frozen=True, eq=False)
class Over:
    """Windows of one size, and a look whose square is as large: ``side_m`` metres."""

    windows: Found
    look: Look
    side_m: float

    @cached_property
    def cells(self) -> Ids:
        """Map, zoom, and row and column in windows of each, ``[N, 4]``."""
        ids = self.windows.ids
        return np.stack([maps_of(ids), zooms_of(ids), *cells_of(ids)], axis=1)


@dataclass(frozen=True, eq=False)
class Square:
    """What is laid over the ground: descriptors ``[C, h, w]`` and which are of use."""

    over: Over
    local: Cells
    shown: Mask

    @cached_property
    def own(self) -> Cells:
        """The descriptors less what they have in common, 0 where they are of no use."""
        local, shown = self.local[None], self.shown[None]
        own: Cells = without(mean_of(local, shown), local, shown)[0]
        return own

    @property
    def half(self) -> tuple[int, int]:
        """Cells from a window to the next, down and across."""
        return self.shown.shape[0] // 2, self.shown.shape[1] // 2


@dataclass(frozen=True, eq=False)
class Place:
    """Where a square may lie: how far it stands out, its first cell, where the photo's centre is then, and with what.

    ``photo_m`` is east + i·north from an origin that all places share.
    """

    stands_out: float
    photo_m: complex
    square: Square
    map_zoom: tuple[int, int]
    top: int
    left: int


def square_of(over: Over, local: NDArray[np.float32]) -> Square | None:
    """Return what is laid over the ground, in cells as that is kept; None when the photo shows too little of it."""
    local = local.repeat(1 + local.shape[1] % 2, 1).repeat(1 + local.shape[2] % 2, 2)
    height, width = local.shape[1:]
    shown = inner_cells(height, width) & over.look.shown(cell_centres(height, width)).reshape(height, width)
    return Square(over, local, shown) if shown.mean() >= LEAST_SHOWN else None


def places_of(square: Square, gallery: Gallery, origin: tuple[float, float], prior: Circle | None) -> list[Place]:
    """Return the places of a square that are roughly the best, each where it is exactly so.

    Args:
        square: of the photo.
        gallery: has the ground.
        origin: ``lat, lon`` from which places count.
        prior: the photo's centre lies in this circle.
    """
    corners, windows, sides = _blocks(square)
    rough = _roughly(square, gallery, corners, sides)
    photo_m = _photo_m(square, gallery, origin, corners, windows)
    step = 2 * square.over.side_m / square.shown.shape[1]
    rows, columns = np.indices(rough.shape[1:])
    where_m = photo_m[:, None, None] + step * (columns - 1j * rows)
    if prior is not None:
        middle_m = complex(*offset_m(*origin, prior.lat, prior.lon))
        rough[np.abs(where_m - middle_m) > prior.radius_m] = -np.inf
    best = peaks(rough, PEAKS, REACH // 2)
    first = np.array([[*corners[n][:2], corners[n][2] + 2 * i, corners[n][3] + 2 * j] for n, i, j in best], np.int64)
    return _exactly(square, gallery, first, [complex(where_m[place]) for place in best])


def _blocks(square: Square) -> tuple[Ids, Ids, tuple[int, int]]:
    """Blocks of ground to try, those of the best windows first.

    Returns:
        Map, zoom and first cell of each ``[B, 4]``, its best window (a row of ``over.cells``), cells of a side.
    """
    cells, (down, across) = square.over.cells, square.half
    blocks = cells.copy()
    blocks[:, 2:] //= BLOCK
    best = np.sort(np.unique(blocks, axis=0, return_index=True)[1])[:MOST_BLOCKS]
    chosen = blocks[best]
    chosen[:, 2:] = chosen[:, 2:] * BLOCK * [down, across] - [down // 2, across // 2]
    return chosen, best, ((BLOCK + 2) * down, (BLOCK + 2) * across)


def _roughly(square: Square, gallery: Gallery, corners: Ids, sides: tuple[int, int]) -> Floats:
    """How far the square stands out at every second place of each block."""
    laid, shown = halved(square.own, square.shown)
    laid /= np.linalg.norm(laid, axis=0) + np.float32(1e-6)
    laid *= shown
    ground = np.empty((len(corners), len(laid), sides[0] // 2, sides[1] // 2), np.float32)
    there = np.empty((len(corners), *ground.shape[2:]), bool)
    for n, corner in enumerate(corners):
        cells = ground_at(gallery, square, corner, sides)
        ground[n], there[n] = halved(cells, there_in(cells))
        ground[n] /= np.linalg.norm(ground[n], axis=0) + np.float32(1e-6)
    mean, directions = mean_of(ground, there), _main_directions(laid)
    laid = np.tensordot(directions, laid, 1)
    scores = []
    for block, of_use in zip(ground, there, strict=True):
        left = np.tensordot(directions, without(mean, block[None], of_use[None])[0], 1)
        scores.append(correlate(laid, shown, left[None], of_use[None]))
    return standard(np.concatenate(scores))


def _main_directions(cells: Cells) -> NDArray[np.float32]:
    """Return the directions ``[D, C]`` in which descriptors ``[C, h, w]`` differ most."""
    flat = cells.reshape(len(cells), -1)
    directions: NDArray[np.float32] = np.linalg.eigh(flat @ flat.T)[1][:, -MAIN_DIRECTIONS:].T
    return directions


def _exactly(square: Square, gallery: Gallery, first: Ids, where_m: list[complex]) -> list[Place]:
    """The best place around each of some, and how far it stands out from what is around all of them."""
    if not len(first):
        return []
    around = first - np.array([0, 0, REACH, REACH])
    sides = square.shown.shape[0] + 2 * REACH, square.shown.shape[1] + 2 * REACH
    stored = [ground_at(gallery, square, corner, sides) for corner in around]
    there = np.stack([there_in(cells) for cells in stored])
    ground = np.stack([unit(cells, axis=0) for cells in stored])
    scores = standard(correlate(square.own, square.shown, without(mean_of(ground, there), ground, there), there))
    step, places = square.over.side_m / square.shown.shape[1], []
    for corner, each, photo_m in zip(around.tolist(), scores, where_m, strict=True):
        i, j = (int(index) for index in np.unravel_index(each.argmax(), each.shape))
        if np.isfinite(each[i, j]):
            moved_m = step * complex(j - REACH, REACH - i)
            map_zoom = corner[0], corner[1]
            places.append(Place(float(each[i, j]), photo_m + moved_m, square, map_zoom, corner[2] + i, corner[3] + j))
    return places


def _photo_m(square: Square, gallery: Gallery, origin: tuple[float, float], corners: Ids, windows: Ids) -> Complex:
    """Where the photo's centre is when the square lies at the first cell of each block, from the origin."""
    over = square.over
    lats, lons = gallery.geometry(over.windows.take(windows))[0].T
    east_m, north_m = offset_m(*origin, lats, lons)
    below, right = (over.cells[windows, 2:] * square.half - corners[:, 2:]).T
    centre = complex(apply(over.look.from_photo, np.zeros(1, np.complex128))[0])
    cell_m = over.side_m / square.shown.shape[1]
    found: Complex = east_m + 1j * north_m - cell_m * (right - 1j * below) + over.side_m * centre
    return found


def ground_at(gallery: Gallery, square: Square, corner: Ids, sides: tuple[int, int]) -> LocalMap:
    """Return a rectangle of cells that begins at map, zoom, row and column; zeros where there are none."""
    number, zoom, top, left = (int(each) for each in corner)
    cells = gallery.cells(number, zoom, top, left, *sides)
    return np.zeros((len(square.local), *sides), np.int8) if cells is None else cells


def there_in(cells: LocalMap) -> Mask:
    """Tell where ground is stored: cells without are zeros."""
    there: Mask = np.any(cells, axis=0)
    return there
