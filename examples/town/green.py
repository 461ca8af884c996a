"""Trees, hedges, ponds and furrows."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from town.canvas import Canvas, Colour, Floats, Material, Points, Surface, lambert, vary
from town.shapes import area, densify, inside, walk

LEAVES: list[Colour] = [
    (74, 94, 50),
    (84, 100, 56),
    (66, 86, 48),
    (96, 108, 62),
    (86, 92, 54),
    (104, 110, 70),
    (70, 86, 58),
]
NEEDLES: Colour = (58, 76, 54)
AUTUMN: list[Colour] = [(120, 92, 48), (108, 66, 48), (128, 112, 58)]
WATER: Colour = (56, 72, 70)
LAWNS: list[Colour] = [(96, 110, 62), (108, 116, 70), (88, 100, 58), (120, 118, 76), (102, 106, 66)]
VARIANTS = 12


@cache
def _canopy(variant: int, cells: int, radius_m: float, height_m: float) -> tuple[Floats, Floats]:
    """A tree crown seen from above: heights and brightness, ``[cells, cells]``; lumps make the leafy look."""
    rng = np.random.default_rng(variant)
    y, x = np.mgrid[-1.12:1.12:48j, -1.12:1.12:48j]
    theta = np.arctan2(y, x)
    edge = 1.0 + sum(rng.uniform(0.02, 0.1) * np.sin(k * theta + rng.uniform(0, 6.3)) for k in (2, 3, 5, 8))
    rho = np.hypot(x, y) / edge
    conifer = variant % 6 == 5
    dome = np.clip(1.0 - rho, 0, 1) if conifer else np.sqrt(np.clip(1.0 - rho**2, 0, 1))
    lumps = np.zeros_like(dome)
    for count, width in ((14, 0.24), (60, 0.11)):
        for cx, cy in rng.uniform(-0.95, 0.95, (count, 2)):
            lumps = np.maximum(lumps, width * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / width**2))
    unit = np.where(rho < 1.0, 0.2 + 0.75 * dome + 1.0 * lumps, 0.0).astype(np.float32)
    relief = 0.6 * dome + 1.7 * lumps
    slope_y, slope_x = np.gradient(relief, 2.24 / 47)
    shade = lambert(1.1 * slope_x, 1.1 * slope_y) * (0.74 + 1.5 * lumps)
    picture = [Image.fromarray(a.astype(np.float32)).resize((cells, cells)) for a in (unit, shade)]
    top, light = (np.asarray(p) for p in picture)
    return np.where(top > 0.15, top * height_m / 1.1, 0).astype(np.float32), light


def tree(canvas: Canvas, rng: np.random.Generator, at: Points, radius_m: float, colour: Colour | None = None) -> bool:
    """Plant one tree if its trunk finds free ground; true if it stands."""
    row, column = (int(v / canvas.gsd_m) for v in (at[1], at[0]))
    n = len(canvas.taken)
    if not (0 <= row < n and 0 <= column < n) or canvas.taken[row, column]:
        return False
    radius = max(1.0, round(radius_m * 4) / 4)
    variant = int(rng.integers(VARIANTS))
    if variant % 6 == 5:
        radius, colour = max(1.0, round(radius * 2.4) / 4), NEEDLES
    height = round(1.5 + 1.5 * radius)
    top, light = _canopy(variant, max(4, round(2.24 * radius / canvas.gsd_m)), radius, height)
    if colour is None:
        colour = LEAVES[rng.integers(len(LEAVES))] if rng.random() < 0.97 else AUTUMN[rng.integers(len(AUTUMN))]
    canvas.stamp(float(at[0]), float(at[1]), top, light, vary(rng, colour, 6))
    return True


def grove(canvas: Canvas, rng: np.random.Generator, outline: Points, per_ha: float, radius_m: float = 3.4) -> None:
    """Scatter trees over a polygon, in loose groups."""
    low, high = outline.min(0), outline.max(0)
    tone = LEAVES[rng.integers(len(LEAVES))]
    for _ in range(max(1, int(area(outline) * per_ha / 10_000 / 4))):
        middle = rng.uniform(low, high)
        spots = middle + rng.normal(0, 6.0, (rng.integers(2, 7), 2))
        for spot in spots[inside(outline, spots)]:
            tree(canvas, rng, spot, rng.gamma(9, radius_m / 9), tone if rng.random() < 0.5 else None)


def avenue(canvas: Canvas, rng: np.random.Generator, line: Points, step_m: float, radius_m: float) -> None:
    """Trees along a line at even steps, some missing, all of one kind."""
    tone = LEAVES[rng.integers(len(LEAVES))]
    for at, _ in walk(line, step_m, step_m / 2):
        if rng.random() < 0.85:
            tree(canvas, rng, at + rng.normal(0, 0.4, 2), radius_m * rng.uniform(0.75, 1.2), tone)


def hedge(canvas: Canvas, rng: np.random.Generator, line: Points, height_m: float = 1.5) -> None:
    """A clipped hedge along a polyline."""
    tone = vary(rng, LEAVES[rng.integers(len(LEAVES))], 5)
    for piece in np.array_split(densify(line, 2.0), max(1, len(line) // 8)):
        if len(piece) > 1:
            canvas.fill(piece, vary(rng, tone, 4), Material.TREE, z=height_m, width_m=rng.uniform(0.7, 1.2))


def pond(canvas: Canvas, outline: Points) -> None:
    """Still water with a pale rim."""
    canvas.fill(np.concatenate([outline, outline[:1]]), (140, 134, 112), Material.SOIL, width_m=2.2, take=True)
    canvas.fill(outline, WATER, Material.WATER, take=True)


def furrows(angle: float, period_m: float, depth: float, rng: np.random.Generator) -> Surface:
    """Brightness of ploughed or sown rows: stripes across ``angle`` radians, fading in and out, plus tramlines."""
    cos, sin = np.cos(angle), np.sin(angle)
    drift = rng.uniform(0, 6.3, 3)

    def surface(x: Floats, y: Floats) -> Floats:
        across, along = x * cos + y * sin, y * cos - x * sin
        fade = 0.65 + 0.35 * np.sin(along / 31 + drift[0]) * np.sin(across / 43 + drift[1])
        rows = np.sin(across * 2 * np.pi / period_m + 0.6 * np.sin(along / 17 + drift[2]))
        tram = np.where((across + 3) % 18 < 1.2, 0.9, 1.0)
        return (1 + depth * fade * rows) * tram * (1 + 0.06 * np.sin(across / 27 + along / 39 + drift[2]))  # type: ignore[no-any-return]

    return surface
