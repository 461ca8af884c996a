"""A first look at a raster: small samples all over it, which tell its stretch, its fill and if it shows anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window

from service.maps.rendering import Rendering

CELL_PX = 16
"""A sample has this side: large enough that no ground is one colour all over it, but for still water and glaring
roofs."""

MAX_CELLS = 64
"""There are at most so many samples along each side of a map."""

MAX_DECIMATED_PX = 2**26
"""Larger maps without overviews are sampled, not read through."""

MAX_SAMPLED_BYTES = 2**34
"""The samples of such a map may take the decoding of so many bytes, half a minute: however small a sample is, the block
that it lies in is decoded whole, and a file of a kilobyte may claim terabytes. Blocks of 1,024 pixels allow all."""

NEARLY = 3
"""JPEG leaves so much of a flat colour."""

MIN_COLLAR_SHARE = 0.02
"""A smaller flat area at the edge hides too little to matter."""


@dataclass(frozen=True, eq=False)
class Survey:
    """Samples on a grid.

    Attributes:
        bands: the shown bands, ``[B, rows, columns, S, S]``.
        valid: ``[rows, columns, S, S]``.
    """

    bands: NDArray[Any]
    valid: NDArray[np.bool_]

    def pixels(self) -> NDArray[Any]:
        """Return all valid pixels, ``[B, N]``."""
        return np.asarray(self.bands[:, self.valid])


@dataclass(frozen=True, eq=False)
class Collar:
    """Fill that nobody declared: one colour all over a large area at the edge of a map.

    Attributes:
        value: of the shown bands, ``[B]``.
        tolerance: how far a pixel of it may be from that.
        cells: ``[rows, columns]`` of the survey that it may reach into.
        share: of the map that it takes.
    """

    value: NDArray[Any]
    tolerance: int
    cells: NDArray[np.bool_]
    share: float

    def covers(self, bands: NDArray[Any], columns: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which pixels ``[H, W]`` are fill.

        Args:
            bands: the shown ones, ``[B, H, W]``.
            columns: of the pixels, as shares of the map's width, ``[W]``.
            rows: likewise, ``[H]``.
        """
        gate = self.cells[np.ix_(_cells_of(rows, len(self.cells)), _cells_of(columns, self.cells.shape[1]))]
        if not gate.any():
            return gate
        value = self.value[:, None, None].astype(np.int64 if bands.dtype.kind in "iu" else bands.dtype)
        same = gate & (np.abs(bands.astype(value.dtype) - value) <= self.tolerance).all(axis=0)
        return _without_specks(same) if same.any() else same


def survey(dataset: Any, rendering: Rendering) -> Survey:
    """Sample an open raster. A small one is read whole; of a large one only its overview, or single blocks."""
    width, height, bands = dataset.width, dataset.height, list(rendering.bands)
    if dataset.overviews(1) or width * height <= MAX_DECIMATED_PX:
        shape = tuple(min(side, MAX_CELLS * CELL_PX) for side in (height, width))
        read = dataset.read(bands, out_shape=(len(bands), *shape), resampling=Resampling.nearest)
        mask = rendering.mask(dataset, out_shape=shape)
        return _in_cells(read, rendering.valid(read, mask))
    block, side = dataset.block_shapes[bands[0] - 1], _samples_along(dataset, bands)
    starts = [[int((i + 0.5) / side * length) - CELL_PX // 2 for i in range(side)] for length in (height, width)]
    read = np.zeros((len(bands), side, side, CELL_PX, CELL_PX), dataset.dtypes[bands[0] - 1])
    valid = np.zeros((side, side, CELL_PX, CELL_PX), bool)
    in_turn = sorted(np.ndindex(side, side), key=lambda at: [starts[i][at[i]] // block[i] for i in (0, 1)])
    for row, column in in_turn:  # block after block, for few are kept
        window = Window(max(0, starts[1][column]), max(0, starts[0][row]), CELL_PX, CELL_PX)
        piece = dataset.read(bands, window=window)
        h, w = piece.shape[1:]
        read[:, row, column, :h, :w] = piece
        valid[row, column, :h, :w] = rendering.valid(piece, rendering.mask(dataset, window=window))
    return Survey(read, valid)


def _samples_along(dataset: Any, bands: list[int]) -> int:
    """Return how many samples along each side the decoding of their blocks allows."""
    rows, columns = dataset.block_shapes[bands[0] - 1]
    together = dataset.count if str(dataset.profile.get("interleave")).lower() == "pixel" else len(bands)
    block_bytes = rows * columns * np.dtype(dataset.dtypes[bands[0] - 1]).itemsize * together
    down, across = -(-dataset.height // rows), -(-dataset.width // columns)
    side = MAX_CELLS
    while min(side, down) * min(side, across) * -(-CELL_PX // rows) * block_bytes > MAX_SAMPLED_BYTES:
        side //= 2
    return side


def _in_cells(bands: NDArray[Any], valid: NDArray[np.bool_]) -> Survey:
    """Cut an image into cells; those at the right and bottom edge are filled up with nothing."""
    rows, columns = (-(-side // CELL_PX) for side in valid.shape)
    down, right = rows * CELL_PX - valid.shape[0], columns * CELL_PX - valid.shape[1]
    bands = np.pad(bands, ((0, 0), (0, down), (0, right)), "edge")
    valid = np.pad(valid, ((0, down), (0, right)))
    cut = bands.reshape(len(bands), rows, CELL_PX, columns, CELL_PX).swapaxes(2, 3)
    return Survey(cut, valid.reshape(rows, CELL_PX, columns, CELL_PX).swapaxes(1, 2))


def find_collar(seen: Survey, is_lossy: bool) -> Collar | None:
    """Return the fill of a map, if it has one: cells of one colour that hang together with the edge.

    Of a picture that lost detail in compression (JPEG, WebP) only black, white and the pure colours count, as still
    water is nearly flat as well; else exactly one value.
    """
    tolerance = NEARLY if is_lossy and seen.bands.dtype == np.uint8 else 0
    low, high = seen.bands.min(axis=(3, 4)), seen.bands.max(axis=(3, 4))  # [B, rows, columns]
    flat = (high.astype(float) - low <= 2 * tolerance).all(axis=0) & seen.valid.any(axis=(2, 3))
    rim = np.zeros_like(flat)
    rim[[0, -1], :] = rim[:, [0, -1]] = True
    if not (flat & rim).any():
        return None
    colours = np.median(seen.bands[:, flat & rim].astype(np.float64), axis=(2, 3)).astype(seen.bands.dtype)  # [B, N]
    values, counts = np.unique(colours, axis=1, return_counts=True)
    value = values[:, counts.argmax()]
    if tolerance:
        value = np.where(value <= NEARLY, 0, np.where(value >= 255 - NEARLY, 255, value))
        if not np.isin(value, (0, 255)).all():
            return None
    near = (np.abs(low.astype(float) - value[:, None, None]) <= 2 * tolerance).all(axis=0)
    reached = _grow(flat & near & rim, flat & near)
    share = float(reached.mean())
    if share < MIN_COLLAR_SHARE:
        return None
    return Collar(value, 2 * tolerance, _beside(reached), share)


def _grow(seeds: NDArray[np.bool_], room: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What of ``room`` hangs together with the seeds."""
    while True:
        grown = _beside(seeds) & room
        if (grown == seeds).all():
            return grown
        seeds = grown


def _beside(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The cells and their eight neighbours."""
    padded = np.pad(cells, 1)
    rows, columns = cells.shape
    moved = [padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return np.asarray(np.logical_or.reduce(moved))


def _cells_of(shares: NDArray[Any], count: int) -> NDArray[np.int64]:
    return np.clip((shares * count).astype(np.int64), 0, count - 1)


def _without_specks(same: NDArray[np.bool_], side: int = 5) -> NDArray[np.bool_]:
    """Areas of at least ``side`` squared, with the pixel around them that is mixed from both."""
    half = side // 2
    core = (
        _box(np.pad(same, half, constant_values=True), side) == side * side
    )  # at the edge of a window, more may follow
    return np.asarray(_box(np.pad(core, half + 1), side + 2) > 0)


def _box(values: NDArray[np.bool_], side: int) -> NDArray[np.int64]:
    """Sums over squares of ``side``; ``side - 1`` rows and columns fewer."""
    total = np.pad(values.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return np.asarray(total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side])
