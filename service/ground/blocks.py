"""Local descriptors of the ground, kept once: blocks of cells that make up any rectangle.

The model gives each window a map of h by h cells. Windows overlap by half, so all of these maps together would hold
every piece of ground four times, and the cells along their edges tell of the edge. Only the middle half of each is
kept, the window's block: blocks adjoin, and are one map of the whole ground, in which window (row, column)
starts at cell (row · h/2, column · h/2).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from service.ground.local_maps import LocalMap
from service.ground.windows import Ids, cells_of, key_of, maps_of, zooms_of

CACHED_BYTES = 2**26
"""So much of the blocks that were asked for last is kept at hand: 5,000 blocks of the default model. The photos of a
flight look at the same ground again and again."""

CACHED_BLOCKS = 16_384
"""At most so many blocks are kept; those that are known not to be there count too."""


def even(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the shape ``[C, h, w]`` of windows' maps as they are kept: half of an odd side is no number of cells."""
    channels, height, width = shape
    return channels, height * (1 + height % 2), width * (1 + width % 2)


def middle(local: NDArray[np.int8]) -> LocalMap:
    """Cut the block of a window: the middle half of its map ``[C, h, w]``; of an odd side each cell is made two."""
    for axis in (1, 2):
        local = local.repeat(1 + local.shape[axis] % 2, axis)
    height, width = local.shape[1] // 2, local.shape[2] // 2
    top, left = first_cell(local.shape[1]), first_cell(local.shape[2])
    return np.ascontiguousarray(local[:, top : top + height, left : left + width])


def first_cell(side: int) -> int:
    """Tell where a block starts within its window of ``side`` cells."""
    return side // 4


class Blocks:
    """Puts maps of cells together from stored blocks. Safe to use from several threads.

    Args:
        read: the stored blocks among those with these ids (the ids of their windows).
    """

    def __init__(self, read: Callable[[list[int]], dict[int, LocalMap]]) -> None:
        self._read = read
        self._kept: OrderedDict[int, LocalMap | None] = OrderedDict()  # None: there is no such block
        self._bytes = 0
        self._changes = 0  # of what is stored: what was read before one is not kept after it
        self._lock = threading.Lock()

    def windows(self, ids: Ids, shape: tuple[int, int, int]) -> list[LocalMap | None]:
        """Return the maps of windows, ``shape`` each; None where there is no block at all.

        Cells without a stored block are zero, and so like nothing.
        """
        rows, columns = cells_of(ids)
        half_height, half_width = shape[1] // 2, shape[2] // 2
        numbers, zooms = maps_of(ids).tolist(), zooms_of(ids).tolist()
        wanted = [
            (numbers[i], zooms[i], int(rows[i]) * half_height, int(columns[i]) * half_width) for i in range(len(ids))
        ]
        return self.rectangles(wanted, shape)

    def rectangles(
        self,
        wanted: list[tuple[int, int, int, int]],
        shape: tuple[int, int, int],
        window: tuple[int, int] | None = None,
    ) -> list[LocalMap | None]:
        """Return rectangles of cells ``shape`` = ``[C, height, width]``, wherever they start.

        Args:
            wanted: of each the map, the zoom, and the first row and column of its cells.
            shape: of each.
            window: rows and columns of cells of a whole window; that of ``shape`` by default.
        """
        down, across = (side // 2 for side in (window or shape[1:]))
        offset_down, offset_across = (first_cell(side) for side in (window or shape[1:]))
        needed: list[dict[int, tuple[int, int]]] = []  # of each rectangle, blocks and where they start in it
        for number, zoom, top, left in wanted:
            first_row, last_row = (top - offset_down) // down, (top + shape[1] - 1 - offset_down) // down
            first_col, last_col = (left - offset_across) // across, (left + shape[2] - 1 - offset_across) // across
            place = {}
            for row in range(max(0, first_row), last_row + 1):
                for column in range(max(0, first_col), last_col + 1):
                    block = key_of(number, zoom, row, column)
                    place[block] = (row * down + offset_down - top, column * across + offset_across - left)
            needed.append(place)
        blocks = self._get({block for place in needed for block in place})
        return [_put_together(place, blocks, shape) for place in needed]

    def forget(self, ids: Iterable[int]) -> None:
        """Drop blocks that were written or deleted."""
        with self._lock:
            self._changes += 1
            for block in ids:
                self._drop(block)

    def forget_map(self, first: int, last: int) -> None:
        """Drop the blocks whose ids lie in this range."""
        with self._lock:
            self._changes += 1
            for block in [block for block in self._kept if first <= block <= last]:
                self._drop(block)

    def _drop(self, block: int) -> None:
        gone = self._kept.pop(block, None)
        self._bytes -= 0 if gone is None else gone.nbytes

    def _get(self, ids: set[int]) -> dict[int, LocalMap | None]:
        with self._lock:
            changes = self._changes
            found = {block: self._kept[block] for block in ids if block in self._kept}
            for block in found:
                self._kept.move_to_end(block)
        missing = sorted(ids - found.keys())
        read = self._read(missing) if missing else {}
        found.update((block, read.get(block)) for block in missing)
        with self._lock:
            if changes == self._changes:
                self._keep({block: found[block] for block in missing})
        return found

    def _keep(self, blocks: dict[int, LocalMap | None]) -> None:
        for block, local in blocks.items():
            self._drop(block)
            self._kept[block] = local
            self._bytes += 0 if local is None else local.nbytes
        while self._bytes > CACHED_BYTES or len(self._kept) > CACHED_BLOCKS:
            self._drop(next(iter(self._kept)))


def _put_together(
    place: dict[int, tuple[int, int]], blocks: dict[int, LocalMap | None], shape: tuple[int, int, int]
) -> LocalMap | None:
    """A rectangle of cells from blocks and the cells at which they start in it."""
    cells: LocalMap | None = None
    for block, (top, left) in place.items():
        local = blocks[block]
        if local is None:
            continue
        if cells is None:
            cells = np.zeros(shape, np.int8)
        y0, x0 = max(0, top), max(0, left)
        y1, x1 = min(shape[1], top + local.shape[1]), min(shape[2], left + local.shape[2])
        cells[:, y0:y1, x0:x1] = local[:, y0 - top : y1 - top, x0 - left : x1 - left]
    return cells
