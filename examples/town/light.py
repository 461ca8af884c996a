"""From the drawing to the picture: terrain, sun and shadow, surface texture, lens and sensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from town.canvas import SUN, SUN_ELEVATION_DEG, Canvas, Floats, Material, lambert

# Strength of brightness mottle per material at cells of 0.6, 2, 9 and 45 m.
MOTTLE = {
    Material.GRASS: (0.040, 0.040, 0.045, 0.050),
    Material.TREE: (0.080, 0.030, 0.020, 0.030),
    Material.ASPHALT: (0.015, 0.018, 0.028, 0.030),
    Material.PAVING: (0.022, 0.025, 0.030, 0.030),
    Material.WATER: (0.012, 0.015, 0.030, 0.060),
    Material.ROOF: (0.028, 0.025, 0.020, 0.010),
    Material.SOIL: (0.045, 0.045, 0.055, 0.050),
    Material.PAINT: (0.020, 0.010, 0.020, 0.020),
}
CELLS_M = (0.6, 2.0, 9.0, 45.0)
DRY = np.array([0.13, 0.04, -0.02], np.float32)  # what a dry patch adds to grass, per channel, relative
SHADOW = np.array([0.40, 0.45, 0.54], np.float32)  # sky light left in a cast shadow, bluer than the sun

SATURATION = 0.8  # an aerial camera sees through haze: colours are duller than paint


def noise(rng: np.random.Generator, pixels: int, cell: float) -> Floats:
    """Smooth noise ``[pixels, pixels]`` of unit variance whose bumps are about ``cell`` pixels wide."""
    count = max(2, int(np.ceil(pixels / max(cell, 1.0))) + 1)
    image = Image.fromarray(rng.standard_normal((count, count), dtype=np.float32))
    field = np.asarray(image.resize((pixels, pixels), Image.Resampling.BICUBIC))
    return np.asarray(field / max(float(field.std()), 1e-6), np.float32)


def terrain(rng: np.random.Generator, pixels: int, gsd_m: float) -> Floats:
    """Gently rolling ground ``[pixels, pixels]``, 0–6 m over a few hundred metres."""
    hills = noise(rng, pixels, 260 / gsd_m) + 0.15 * noise(rng, pixels, 90 / gsd_m)
    return np.asarray(6.0 * (hills - hills.min()) / max(float(np.ptp(hills)), 1e-6), np.float32)


def shadows(height_m: Floats, gsd_m: float) -> Floats:
    """Share of the sun that is blocked, ``[H, W]``, 0–1: march from every pixel towards the sun.

    The edge is soft over 0.5 m of height, about the penumbra plus the blur of foliage.
    """
    across = SUN[:2] / np.hypot(*SUN[:2])
    rise = np.tan(np.radians(SUN_ELEVATION_DEG)) * gsd_m
    blocker = np.full_like(height_m, -np.inf)
    rows, columns = height_m.shape
    for k in range(1, int(np.ptp(height_m) / rise) + 2):
        dx, dy = round(k * across[0]), round(k * across[1])
        if abs(dx) >= columns or abs(dy) >= rows:
            break
        here = (slice(max(0, -dy), rows - max(0, dy)), slice(max(0, -dx), columns - max(0, dx)))
        there = (slice(max(0, dy), rows - max(0, -dy)), slice(max(0, dx), columns - max(0, -dx)))
        np.maximum(blocker[here], height_m[there] - np.float32(k * rise), out=blocker[here])
    return np.asarray(np.clip((blocker - height_m) / 0.5, 0.0, 1.0), np.float32)


def _crowding(height_m: Floats, gsd_m: float) -> Floats:
    """How much of the sky walls and crowns hide, 0–0.3, from the mean height within some 6 m."""
    rows, columns = height_m.shape
    step = max(1, round(6.0 / gsd_m))
    small = Image.fromarray(height_m).resize((max(1, columns // step), max(1, rows // step)), Image.Resampling.BOX)
    around = np.asarray(small.resize((columns, rows), Image.Resampling.BICUBIC))
    return np.asarray(np.clip((around - height_m) / 22.0, 0.0, 0.3), np.float32)


def expose(
    canvas: Canvas, ground_m: Floats, gsd_m: float, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Floats]:
    """Light the drawing and take the picture.

    Args:
        canvas: the drawing, at twice the resolution of the picture.
        ground_m: terrain height ``[H, W]`` in metres.
        gsd_m: metres per pixel of the picture.
        rng: source of all texture and noise.

    Returns:
        The picture, uint8 ``[H, W, 3]``, and the surface height (terrain and objects), float32 ``[H, W]``.
    """
    pixels = len(ground_m)
    colour = np.asarray(Image.fromarray(canvas.rgb).reduce(2), np.float32)
    objects = np.asarray(Image.fromarray(canvas.height_m).resize((pixels, pixels), Image.Resampling.BOX))
    material = canvas.material[::2, ::2]
    height = (ground_m + objects).astype(np.float32)

    strength = np.array([MOTTLE[m] for m in Material], np.float32)
    tone = np.ones((pixels, pixels), np.float32)
    for i, cell_m in enumerate(CELLS_M):
        tone += strength[material, i] * noise(rng, pixels, cell_m / gsd_m)
    dry = np.clip(noise(rng, pixels, 60 / gsd_m) + 0.5 * noise(rng, pixels, 12 / gsd_m), -0.6, 1.6)
    dry *= material == Material.GRASS
    blocked = shadows(height, gsd_m)[..., None]
    slope_y, slope_x = (np.asarray(s) for s in np.gradient(ground_m, gsd_m))
    tone *= lambert(slope_x, slope_y) * (1.0 - _crowding(height, gsd_m))
    colour *= tone[..., None] * (1.0 + dry[..., None] * DRY) * (1.0 - blocked * (1.0 - SHADOW))

    haze = np.array([7.0, 8.0, 11.0], np.float32)  # light scattered in the air lifts the darks
    grey = colour.mean(-1, keepdims=True)
    colour = grey + SATURATION * (colour - grey)
    picture = Image.fromarray(np.clip(1.2 * colour + haze, 0, 255).astype(np.uint8))
    sharp = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.55)), np.float32)
    grain = rng.normal(0, 1.6, (pixels, pixels, 1)) + rng.normal(0, 0.7, sharp.shape)
    return np.clip(sharp + grain, 0, 255).astype(np.uint8), height
