"""Bands of any raster → red, green and blue of 8 bits, by the rule that the service follows as well.

1. Bands: a palette gives its colours. Else the bands that are called red, green and blue, by their description or by
   their colour, if all three are there; else the first three that are not alpha; of fewer, the first one as grey.
2. Valid is what neither a nodata value, a mask nor an alpha band leaves out, and what in every band that is shown is
   finite, less than 1e15 away from zero and none of the values that stand for nothing (``VOIDS``).
3. Bytes stay as they are, and so do whole numbers of other types that lie between 0 and 255. Of everything else the 2nd
   and the 98th percentile of the valid pixels of the whole map, over all shown bands together, become 0 and 255. Fill
   does not count: what all shown bands of over 1 % of the pixels have in common, if at most 0.5 % of all values lie
   below it, or above. This is looked for twice, as some maps have two kinds of fill.
4. ``MINISWHITE`` is turned around.

``tests/contract/test_raster_rule.py`` gives both the same rasters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling

#: Below and above, a brightness is cut off: the usual stretch of GIS viewers.
STRETCH_PERCENTILES = (2, 98)

#: Programs write these where there is nothing, when they forget to declare it.
VOIDS = (-9999.0, -32768.0, -32767.0, -2147483648.0)

#: No brightness is so far from zero.
ABSURD = 1e15

#: Extremes that are more of the pixels than this are fill; fewer are shadows and glare.
COMMON_SHARE = 0.01

#: Fill lies at the ends of a map's values, but for a few outliers.
FILL_PERCENTILES = (0.5, 99.5)


def read_rgb(source: rasterio.DatasetReader, shape: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read all of a raster.

    Args:
        source: the open raster.
        shape: rows and columns of the result; the raster's own, or fewer.

    Returns:
        Red, green and blue ``[3, H, W]``, and which pixels are valid ``[H, W]``.
    """
    alpha = source.colorinterp.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in source.colorinterp else None
    valid = source.dataset_mask(out_shape=shape, resampling=Resampling.nearest) > 0
    if alpha is not None:  # of more than four bands GDAL overlooks it
        valid &= source.read(alpha, out_shape=shape, resampling=Resampling.nearest) > 0
    if source.colorinterp[0] == ColorInterp.palette:
        index = source.read(1, out_shape=shape, resampling=Resampling.nearest)
        colours = source.colormap(1)
        palette = np.zeros((max(colours) + 1, 4), np.uint8)
        palette[list(colours)] = np.array(list(colours.values()), np.uint8)
        rgba = palette[np.minimum(index, len(palette) - 1)]
        return np.ascontiguousarray(np.moveaxis(rgba[..., :3], 2, 0)), valid & (rgba[..., 3] > 0)
    bands = source.read(_shown(source), out_shape=(len(_shown(source)), *shape), resampling=Resampling.average)
    if bands.dtype.kind == "f":
        valid &= (np.abs(bands) < ABSURD).all(axis=0)
    if bands.dtype.kind != "u":
        for void in VOIDS:
            valid &= (bands != void).all(axis=0)
    shown = _stretched(bands, valid)
    if source.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        shown = 255 - shown
    return np.ascontiguousarray(np.broadcast_to(shown, (3, *shape))), valid


def _shown(source: rasterio.DatasetReader) -> list[int]:
    """Numbers of the bands that are shown: one or three."""
    for names in ([str(text).strip().lower() for text in source.descriptions], [c.name for c in source.colorinterp]):
        if {"red", "green", "blue"} <= set(names):
            return [names.index(colour) + 1 for colour in ("red", "green", "blue")]
    plain = [i + 1 for i, colour in enumerate(source.colorinterp) if colour != ColorInterp.alpha] or [1]
    return plain[:3] if len(plain) >= 3 else plain[:1]


def _stretched(bands: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Point 3 of the rule, for ``[B, H, W]``."""
    pixels = bands[:, valid]
    is_whole = pixels.dtype.kind in "iu"
    if pixels.dtype == np.uint8 or pixels.size == 0 or (is_whole and pixels.min() >= 0 and pixels.max() <= 255):
        return bands.astype(np.uint8)
    for _ in range(2):
        ends = np.percentile(pixels, FILL_PERCENTILES, method="nearest")
        fills = [same for end in ends if (same := (pixels == end).all(axis=0)).mean() > COMMON_SHARE]
        keep = ~np.logical_or.reduce(fills) if fills else np.ones(pixels.shape[1], bool)
        pixels = pixels[:, keep] if keep.any() else pixels
    low, high = np.percentile(pixels.astype(np.float64), STRETCH_PERCENTILES)
    scale = 255 / ((high if high > low else low + 1) - low)
    shown: NDArray[np.uint8] = (
        np.clip((np.nan_to_num(bands.astype(np.float64)) - low) * scale, 0, 255).round().astype(np.uint8)
    )
    return shown
