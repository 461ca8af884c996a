"""The grids of pieces that a plan is made of, one for the tiles of each zoom and one for the windows of each level.

A piece is due as soon as what it is made of is, and a little later: so that nobody waits for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.ground.windows import Ids, Rectangle

Kind = Literal["read", "shrink", "embed"]
"""Finest tiles are read from the source, coarser ones made from finer ones, windows embedded."""

LAG = 1
"""A piece is due so many pieces of the source after what it is made of: meanwhile that is stored, and the encoder has
windows of other pieces."""

Reach = tuple[Ids, Ids]
"""For each row (or column) of pieces: the first and the last row of other pieces that they are made of."""


@dataclass(eq=False)
class Layer:
    """The pieces of one kind at one zoom.

    Args:
        kind: of them.
        zoom: of them.
        area: their tiles or windows, columns and rows.
        along: a piece is a square of so many.

    Attributes:
        due: ``[rows, columns]``, when each has its turn: a count of the source's pieces.
        below: the layer that these are made of, and the rows and columns of its pieces that each needs; None for those
            that are read.
    """

    kind: Kind
    zoom: int
    area: Rectangle
    along: int
    due: Ids = field(init=False)
    below: tuple[Layer, Reach, Reach] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of pieces."""
        return len(self.starts(1)), len(self.starts(0))

    def starts(self, axis: int) -> Ids:
        """Return the first column (axis 0) or row (axis 1) of each column or row of pieces."""
        return np.arange(self.area[axis], self.area[axis + 2], self.along)

    def ends(self, axis: int) -> Ids:
        """Return the column or row after the last one of each column or row of pieces."""
        return np.minimum(self.starts(axis) + self.along, self.area[axis + 2])

    def most(self, values: Ids) -> Ids:
        """Return the largest value of the pieces below that each piece is made of, ``[rows, columns]``.

        Args:
            values: ``[rows, columns]`` of the layer below.
        """
        if self.below is None:
            return np.zeros(self.shape, np.int64)
        _, (top, bottom), (left, right) = self.below
        found = np.zeros(self.shape, np.int64)
        for down, along in np.ndindex(int((bottom - top).max()) + 1, int((right - left).max()) + 1):
            rows, columns = np.minimum(top + down, bottom), np.minimum(left + along, right)
            found = np.maximum(found, values[np.ix_(rows, columns)])
        return found


def follow(layer: Layer, below: Layer, step: float, side: float) -> None:
    """Let a layer follow the one that it is made of.

    Args:
        layer: gets ``below`` and ``due``.
        below: a layer of tiles.
        step: from a tile or window of the layer to the next, in tiles below.
        side: of a tile or window, in tiles below.
    """

    def reach(axis: int) -> Reach:
        first = np.floor(layer.starts(axis) * step).astype(np.int64)
        last = np.ceil((layer.ends(axis) - 1) * step + side).astype(np.int64) - 1
        first, last = ((tile - below.area[axis]) // below.along for tile in (first, last))
        end = below.shape[1 - axis] - 1
        return np.clip(first, 0, end), np.clip(last, 0, end)

    layer.below = (below, reach(1), reach(0))
    layer.due = layer.most(below.due) + LAG


def z_order(rows: int, columns: int) -> Ids:
    """Return the places of a grid's cells ``[rows, columns]`` on a curve that stays near: a Z of Zs (Morton, 1966)."""
    row, column = np.indices((rows, columns))
    code = np.zeros((rows, columns), np.int64)
    for bit in range(math.ceil(math.log2(max(rows, columns, 2)))):
        code |= ((column >> bit & 1) << 2 * bit) | ((row >> bit & 1) << (2 * bit + 1))
    places: Ids = np.empty(code.size, np.int64)
    places[np.argsort(code, axis=None)] = np.arange(code.size)
    return places.reshape(rows, columns)


@dataclass(frozen=True, eq=False)
class Ordered:
    """All pieces of some layers in their order, each an entry of every array.

    Attributes:
        layer: number of the layer.
        area: ``[N, 4]``, see ``Rectangle``.
        first: places that come before.
        needs: so many places have to be finished before it can be made.
    """

    layer: Ids
    area: Ids
    first: Ids
    needs: Ids


def in_order(layers: list[Layer]) -> Ordered:
    """Put the pieces of all layers in the order in which they are due, tiles before windows and finer before coarser.

    Args:
        layers: of tiles, finest first, and then of windows.
    """
    numbers = np.repeat(np.arange(len(layers)), [layer.due.size for layer in layers])
    areas = np.concatenate([_areas(layer) for layer in layers])
    order = np.lexsort((numbers, np.concatenate([layer.due.ravel() for layer in layers])))
    sizes = (areas[:, 2] - areas[:, 0]) * (areas[:, 3] - areas[:, 1])
    ends = np.empty_like(sizes)
    ends[order] = np.cumsum(sizes[order])
    each = np.split(ends, np.cumsum([layer.due.size for layer in layers])[:-1])
    end_of = {id(layer): own.reshape(layer.shape) for layer, own in zip(layers, each, strict=True)}
    needs = [layer.most(end_of[id(layer.below[0])]) if layer.below else np.zeros(layer.shape) for layer in layers]
    needed = np.concatenate([own.ravel() for own in needs]).astype(np.int64)
    return Ordered(numbers[order], areas[order], (ends - sizes)[order], needed[order])


def _areas(layer: Layer) -> NDArray[np.int64]:
    """The pieces of a layer, row by row, ``[N, 4]``."""
    rows, columns = np.indices(layer.shape).reshape(2, -1)
    sides = [ends(axis)[index] for ends in (layer.starts, layer.ends) for axis, index in ((0, columns), (1, rows))]
    return np.stack(sides, axis=1)
