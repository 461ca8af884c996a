"""Squares of a map in another projection, however much of the map lies below each."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

MIN_VALID_SHARE = 0.5
"""Squares with a smaller share of valid pixels are left out: mostly nothing cannot be told from other nothing."""

MAX_STRIP_BYTES = 128 * 2**20
"""Of the map, read at once to be warped; that takes as much again, and GDAL keeps a cache of 5 % of the memory."""

MIN_STRIP_PX = 4
"""The warper reads a pixel more above and below, so thinner strips would read most of the map twice. At both limits a
tile of 384 pixels shows four gigapixels of the map, which take most of a minute."""


class Warped:
    """A map in another projection and other pixels, of which squares are read.

    GDAL warps in blocks, and reads all of the map below a block at once. Where that is too much, as of maps without
    overviews, each square is warped in strips instead.

    Args:
        dataset: the open map.
        options: of the warper; see rasterio's ``WarpedVRT``.
        origin: from pixels to the projection.
        size_px: width and height of the whole.
        scale: pixels for each pixel of the map, along its rows and its columns.
        bytes_below: bytes of the map that one pixel is made of.
    """

    def __init__(
        self,
        dataset: Any,
        options: dict[str, Any],
        origin: Affine,
        size_px: tuple[int, int],
        scale: tuple[float, float],
        bytes_below: float,
    ) -> None:
        self._dataset, self._options, self._origin, self._bytes_below = dataset, options, origin, bytes_below
        self._whole = self._open(0, 0, *size_px)
        rows, columns = self._whole.block_shapes[0]
        if rows * columns * bytes_below > MAX_STRIP_BYTES:
            self.close()
            self._whole = None
            # from a thin strip GDAL would tell the scale wrongly, and blur it
            self._options = options | {"XSCALE": str(scale[0]), "YSCALE": str(scale[1])}

    def read(
        self, bands: list[int], left: int, top: int, side_px: int
    ) -> tuple[NDArray[Any], NDArray[np.bool_]] | None:
        """Bands ``[B, S, S]`` of a square and which of its pixels are valid ``[S, S]``; None if most are not."""
        if self._whole is not None:
            window = Window(left, top, side_px, side_px)
            valid = self._whole.dataset_mask(window=window) > 0
            return None if valid.mean() < MIN_VALID_SHARE else (self._whole.read(bands, window=window), valid)
        height = int(MAX_STRIP_BYTES / (side_px * self._bytes_below))
        strips = []
        for row in range(0, side_px, height):
            with closing(self._open(left, top + row, side_px, min(height, side_px - row))) as strip:
                strips.append((strip.read(bands), strip.dataset_mask() > 0))
        valid = np.concatenate([mask for _, mask in strips])
        return None if valid.mean() < MIN_VALID_SHARE else (np.concatenate([part for part, _ in strips], 1), valid)

    def close(self) -> None:
        """Close what is kept open; the map stays."""
        if self._whole is not None:
            self._whole.close()

    def _open(self, left: int, top: int, width: int, height: int) -> Any:
        """A piece, warped when it is read."""
        transform = self._origin @ Affine.translation(left, top)
        return WarpedVRT(self._dataset, transform=transform, width=width, height=height, **self._options)


def can_be_read(side_px: int, bytes_below: float) -> bool:
    """Whether strips of a square of ``side_px`` are not too thin, with so many bytes of the map below each pixel."""
    return bytes_below * side_px * MIN_STRIP_PX <= MAX_STRIP_BYTES
