"""A made-up town seen from the air: an orthophoto and its height field, drawn from a seed.

The demo area and much of the training variety come from here: it needs no download, carries no licence, and its
height field is exact. The plan is made in ``town_layout``, blocks are filled in ``town_homes`` and ``town_places``,
``town_light`` turns the drawing into a picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from town import homes
from town.canvas import Canvas, Points
from town.layout import plan
from town.light import expose, terrain
from town.places import BUILDERS
from town.roads import bankside, leftovers, river, roads, traffic


@dataclass(frozen=True)
class Town:
    """An orthophoto and what stands on it, north up.

    Attributes:
        rgb: uint8 ``[H, W, 3]``.
        height_m: float32 ``[H, W]``, surface height in metres ≥ 0: terrain plus buildings and trees.
        gsd_m: ground size of a pixel in metres.
    """

    rgb: NDArray[np.uint8]
    height_m: NDArray[np.float32]
    gsd_m: float


def _build(canvas: Canvas, rng: np.random.Generator, outline: Points, use: str) -> None:
    if use in homes.STYLES:
        homes.houses(canvas, rng, outline, use)
    elif use in BUILDERS:
        BUILDERS[use](canvas, rng, outline)
    else:
        getattr(homes, use)(canvas, rng, outline)


def make_town(seed: int, size_m: float = 620.0, gsd_m: float = 0.3) -> Town:
    """Draw a town.

    Args:
        seed: any integer ≥ 0; the same seed gives the same picture.
        size_m: side of the square map in metres, at least 100.
        gsd_m: ground size of a pixel in metres, 0.1–2.

    Returns:
        The town, ``round(size_m / gsd_m)`` pixels a side.

    Raises:
        ValueError: if the size or the resolution is out of range.
    """
    if size_m < 100 or not 0.1 <= gsd_m <= 2:
        raise ValueError(f"size_m must be at least 100 and gsd_m within 0.1-2, not {size_m} and {gsd_m}")
    rng = np.random.default_rng(seed)
    pixels = round(size_m / gsd_m)
    canvas = Canvas(size_m, gsd_m / 2, 2 * pixels, (102, 110, 68))
    layout = plan(rng, size_m)
    river(canvas, rng, layout.river)
    roads(canvas, rng, layout)
    traffic(canvas, rng, layout)
    for block in layout.blocks:
        low, high = block.outline.min(0), block.outline.max(0)
        if (high > 0).all() and (low < size_m).all():
            _build(canvas, rng, block.outline, block.use)
            if block.use in homes.STYLES:
                leftovers(canvas, rng, block.outline)
    bankside(canvas, rng, layout.river)
    rgb, height_m = expose(canvas, terrain(rng, pixels, gsd_m), gsd_m, rng)
    return Town(rgb, height_m, gsd_m)
