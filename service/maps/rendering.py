"""Bands of any kind → red, green and blue of 8 bits, by a rule that training follows as well.

1. Bands: a palette gives its colours. Else the bands that are called red, green and blue, by their description or by
   their colour, if all three are there; else the first three that are not alpha; of fewer, the first one as grey.
2. Valid is what neither a nodata value, a mask nor an alpha band leaves out, and what in every band that is shown is
   finite, less than 1e15 away from zero and none of the values that stand for nothing (``VOIDS``).
3. Bytes stay as they are, and so do whole numbers of other types that lie between 0 and 255. Of everything else the 2nd
   and the 98th percentile of the valid pixels of the whole map, over all shown bands together, become 0 and 255. Fill
   does not count: what all shown bands of over 1 % of the pixels have in common, if at most 0.5 % of all values lie
   below it, or above. This is looked for twice, as some maps have two kinds of fill.
4. ``MINISWHITE`` is turned around.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling

STRETCH_PERCENTILES = (2, 98)
"""These percentiles become black and white in a map that is not 8-bit; it is the usual stretch of GIS viewers."""

VOIDS = (-9999.0, -32768.0, -32767.0, -2147483648.0)
"""Programs write these where there is nothing, when they forget to declare it; no brightness is any of them."""

ABSURD = 1e15
"""No brightness is so far from zero; programs mark nothing by the largest number of a type, by 1e20 or by 9.97e36."""

COMMON_SHARE = 0.01
"""Extremes that are more of the pixels than this are fill; fewer are shadows and glare, which the stretch cuts off."""

FILL_PERCENTILES = (0.5, 99.5)
"""Fill lies at the ends of a map's values, but for a few outliers."""

COLOURS = ("red", "green", "blue")

Stretch = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Rendering:
    """Which bands of a raster are shown, and how.

    Attributes:
        bands: their numbers, from 1: one or three.
        palette: ``[N, 4]`` red, green, blue, alpha of each value of the one band; None without.
        inverted: whether the smallest value is white.
        alpha: number of the band that says what is transparent, None without.
    """

    bands: tuple[int, ...]
    palette: NDArray[np.uint8] | None = None
    inverted: bool = False
    alpha: int | None = None

    @classmethod
    def of(cls, dataset: Any) -> Rendering:
        """Tell what the rule says of an open raster."""
        inverted = dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
        if dataset.colorinterp[0] == ColorInterp.palette:
            colours = dataset.colormap(1)
            palette = np.zeros((max(colours) + 1, 4), np.uint8)
            palette[list(colours)] = np.array(list(colours.values()), np.uint8)
            return cls((1,), palette)
        alpha = dataset.colorinterp.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in dataset.colorinterp else None
        described = [(text or "").strip().lower() for text in dataset.descriptions]
        for names in (described, [colour.name for colour in dataset.colorinterp]):
            if all(colour in names for colour in COLOURS):
                return cls(tuple(names.index(colour) + 1 for colour in COLOURS), alpha=alpha)
        plain = [i + 1 for i, colour in enumerate(dataset.colorinterp) if colour != ColorInterp.alpha] or [1]
        return cls(tuple(plain[:3] if len(plain) >= 3 else plain[:1]), inverted=inverted, alpha=alpha)

    def mask(self, dataset: Any, **part: Any) -> NDArray[np.uint8]:
        """Tell what the file itself leaves out (0): by a nodata value, a mask or an alpha band.

        Args:
            dataset: the raster, or an overview of it.
            part: ``window`` and ``out_shape``, as rasterio's ``read`` takes them.
        """
        mask: NDArray[np.uint8] = dataset.dataset_mask(resampling=Resampling.nearest, **part)
        if self.alpha is not None:  # of more than four bands GDAL overlooks it
            mask = np.where(dataset.read(self.alpha, resampling=Resampling.nearest, **part) > 0, mask, np.uint8(0))
        return mask

    def valid(self, bands: NDArray[Any], mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Tell which pixels ``[…]`` show something, of bands ``[B, …]`` and the file's own mask ``[…]``."""
        valid = mask > 0
        if self.palette is not None:
            index = np.minimum(bands[0], len(self.palette) - 1)
            return np.asarray(valid & (self.palette[index, 3] > 0))
        if bands.dtype.kind == "f":
            valid = valid & (np.abs(bands) < ABSURD).all(axis=0)  # neither is what is not a number
        if bands.dtype.kind != "u":
            for void in VOIDS:
                valid = valid & (bands != void).all(axis=0)
        return np.asarray(valid)

    def rgb(self, bands: NDArray[Any], stretch: Stretch | None) -> NDArray[np.uint8]:
        """Return red, green and blue ``[3, …]`` of bands ``[B, …]``."""
        if self.palette is not None:
            index = np.minimum(bands[0], len(self.palette) - 1)
            return np.ascontiguousarray(np.moveaxis(self.palette[index, :3], -1, 0))
        if stretch is not None:
            low, high = stretch
            values = np.nan_to_num(bands.astype(np.float64 if bands.dtype.itemsize > 2 else np.float32))
            bands = np.clip((values - low) * (255 / (high - low)), 0, 255).round().astype(np.uint8)
        shown = bands.astype(np.uint8, copy=False)
        if self.inverted:
            shown = 255 - shown
        return np.ascontiguousarray(np.broadcast_to(shown, (3, *shown.shape[1:])))


def stretch_of(pixels: NDArray[Any]) -> Stretch | None:
    """Return values that become black and white; None for bytes, and for what fits into bytes.

    Args:
        pixels: valid ones of the whole map, or a fair sample, ``[B, N]``.
    """
    if pixels.dtype == np.uint8 or pixels.size == 0:
        return None
    if pixels.dtype.kind in "iu" and pixels.min() >= 0 and pixels.max() <= 255:
        return None
    for _ in range(2):
        pixels = _without_fill(pixels)
    low, high = np.percentile(pixels.astype(np.float64), STRETCH_PERCENTILES)
    return float(low), float(high if high > low else low + 1)


def _without_fill(pixels: NDArray[Any]) -> NDArray[Any]:
    """Pixels ``[B, N]`` without those that are fill; all of them, if nothing would be left."""
    is_fill = np.zeros(pixels.shape[1], bool)
    for end in np.percentile(pixels, FILL_PERCENTILES, method="nearest"):
        same = (pixels == end).all(axis=0)
        if same.mean() > COMMON_SHARE:
            is_fill |= same
    return pixels if is_fill.all() else pixels[:, ~is_fill]
