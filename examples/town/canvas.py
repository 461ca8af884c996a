"""A z-buffered drawing canvas in metres: the paper on which the town is drawn.

Coordinates are metres, x to the east (right) and y to the south (down), origin at the top left corner of the map.
Heights are metres above the terrain; a thing with a height only covers what is lower, so roofs and canopies that
overlap come out right in whatever order they are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float32]
Points = NDArray[np.float64]
Colour = tuple[float, float, float]
Paint = Sequence[float] | NDArray[np.floating]
Surface = Callable[[Floats, Floats], Floats]
Window = tuple[slice, slice]


class Material(IntEnum):
    """What a pixel is made of; decides the texture it gets in ``town_light``."""

    GRASS = 0
    TREE = 1
    ASPHALT = 2
    PAVING = 3
    WATER = 4
    ROOF = 5
    SOIL = 6
    PAINT = 7


# Sun at 42° above the horizon in the south-south-east, late morning of a clear day; x east, y south, z up.
SUN_AZIMUTH_DEG = 148.0
SUN_ELEVATION_DEG = 42.0
SUN = np.array(
    [
        np.sin(np.radians(SUN_AZIMUTH_DEG)) * np.cos(np.radians(SUN_ELEVATION_DEG)),
        -np.cos(np.radians(SUN_AZIMUTH_DEG)) * np.cos(np.radians(SUN_ELEVATION_DEG)),
        np.sin(np.radians(SUN_ELEVATION_DEG)),
    ]
)
SKY_LIGHT = 0.45  # share of the light that comes from the sky and reaches every slope alike


def lambert(slope_x: NDArray[np.floating] | float, slope_y: NDArray[np.floating] | float) -> Floats:
    """Brightness of a slope relative to flat ground under the sun and the sky (Lambert's cosine law)."""
    length = np.sqrt(1.0 + np.square(slope_x) + np.square(slope_y))
    facing = np.maximum(0.0, (-slope_x * SUN[0] - slope_y * SUN[1] + SUN[2]) / length)
    return np.asarray(SKY_LIGHT + (1.0 - SKY_LIGHT) * facing / SUN[2], np.float32)


def vary(rng: np.random.Generator, colour: Paint, amount: float = 8.0) -> Colour:
    """The colour a little brighter or darker and a little off in hue."""
    shift = rng.normal(0.0, amount) + rng.normal(0.0, amount * 0.3, 3)
    red, green, blue = np.clip(np.asarray(colour, float) + shift, 0, 255)
    return float(red), float(green), float(blue)


class Canvas:
    """Colour, material and height of a square piece of ground, and what is already taken.

    Attributes:
        rgb: uint8 ``[n, n, 3]``, colours under flat light.
        height_m: float32 ``[n, n]``, height above the terrain.
        material: uint8 ``[n, n]``, values of :class:`Material`.
        taken: bool ``[n, n]``, true where nothing more may be built or planted.
    """

    def __init__(self, size_m: float, gsd_m: float, pixels: int, ground: Colour) -> None:
        self.size_m, self.gsd_m = size_m, gsd_m
        self.rgb = np.empty((pixels, pixels, 3), np.uint8)
        self.rgb[:] = np.round(ground).astype(np.uint8)
        self.height_m = np.zeros((pixels, pixels), np.float32)
        self.material = np.full((pixels, pixels), Material.GRASS, np.uint8)
        self.taken = np.zeros((pixels, pixels), bool)

    def _mask(self, points: Points, width_m: float | None = None) -> tuple[Window, NDArray[np.bool_]] | None:
        pixels = np.asarray(points, float) / self.gsd_m
        pad = 1.0 + (width_m or 0.0) / self.gsd_m
        n = len(self.material)
        x0, y0 = (max(0, int(v)) for v in np.floor(pixels.min(0) - pad))
        x1, y1 = (min(n, int(v)) for v in np.ceil(pixels.max(0) + pad))
        if x0 >= x1 or y0 >= y1:
            return None
        image = Image.new("L", (x1 - x0, y1 - y0))
        path = [(float(x), float(y)) for x, y in pixels - (x0, y0)]
        draw = ImageDraw.Draw(image)
        if width_m is None:
            draw.polygon(path, fill=1)
        else:
            draw.line(path, fill=1, width=max(1, round(width_m / self.gsd_m)), joint="curve")
        return (slice(y0, y1), slice(x0, x1)), np.asarray(image).astype(bool)

    def _metres(self, window: Window) -> tuple[Floats, Floats]:
        rows, columns = np.ogrid[window]
        return ((columns + 0.5) * self.gsd_m).astype(np.float32), ((rows + 0.5) * self.gsd_m).astype(np.float32)

    def fill(
        self,
        points: Points,
        colour: Paint,
        material: Material,
        *,
        z: float | Surface | None = None,
        texture: Surface | None = None,
        width_m: float | None = None,
        take: bool = False,
    ) -> None:
        """Paint a polygon, or with ``width_m`` a line along the points.

        Args:
            points: ``[N, 2]`` in metres.
            colour: RGB, 0–255.
            material: what the surface is made of.
            z: height in metres, or a function of (x, y) for slopes; hidden where something is higher. None paints the
                ground and leaves heights alone.
            texture: brightness factor as a function of (x, y) in metres.
            width_m: width of the line; None fills the polygon.
            take: reserve the ground, see :meth:`free`.
        """
        found = self._mask(points, width_m)
        if found is None:
            return
        window, mask = found
        x, y = self._metres(window)
        if z is not None:
            top = np.broadcast_to(np.asarray(z(x, y) if callable(z) else z, np.float32), mask.shape)
            mask = mask & (top >= self.height_m[window])
            self.height_m[window][mask] = top[mask]
        paint: NDArray[np.floating] = np.asarray(colour, np.float32)
        if texture is not None:
            paint = paint * np.broadcast_to(texture(x, y), mask.shape)[mask][:, None]
        self.rgb[window][mask] = np.clip(paint, 0, 255).astype(np.uint8)
        self.material[window][mask] = material
        if take:
            self.taken[window] |= mask

    def face(self, corners: Points, colour: Paint, pitch_m: float = 0.0) -> None:
        """Paint one plane of a roof, shaded by its slope.

        Args:
            corners: ``[N, 3]``, N ≥ 3, x, y and height in metres, all in one plane.
            colour: RGB of the roofing under flat light.
            pitch_m: spacing of visible courses (tiles, sheets) down the slope; 0 for none.
        """
        origin = corners[0]
        slope_x, slope_y = np.linalg.lstsq(corners[1:, :2] - origin[:2], corners[1:, 2] - origin[2], rcond=None)[0]

        def height(x: Floats, y: Floats) -> Floats:
            return origin[2] + slope_x * (x - origin[0]) + slope_y * (y - origin[1])  # type: ignore[no-any-return]

        def courses(x: Floats, y: Floats) -> Floats:
            steep = max(float(np.hypot(slope_x, slope_y)), 1e-6)
            along = ((x - origin[0]) * slope_x + (y - origin[1]) * slope_y) / steep
            return np.where(along % pitch_m < 0.3 * pitch_m, 0.9, 1.03).astype(np.float32)

        shade = lambert(float(slope_x), float(slope_y))
        lit = np.asarray(colour, float) * shade
        self.fill(corners[:, :2], lit, Material.ROOF, z=height, texture=courses if pitch_m else None, take=True)

    def stamp(self, x_m: float, y_m: float, top: Floats, shade: Floats, colour: Colour) -> None:
        """Put a small height map (a canopy) at a place; it shows only where it is the highest thing.

        Args:
            x_m: centre, metres east.
            y_m: centre, metres south.
            top: ``[k, k]`` heights in metres, 0 outside the thing.
            shade: ``[k, k]`` brightness factors.
            colour: RGB, 0–255.
        """
        k, n = len(top), len(self.material)
        row, column = round(y_m / self.gsd_m - k / 2), round(x_m / self.gsd_m - k / 2)
        r0, c0, r1, c1 = max(0, row), max(0, column), min(n, row + k), min(n, column + k)
        if r0 >= r1 or c0 >= c1:
            return
        window = (slice(r0, r1), slice(c0, c1))
        part = (slice(r0 - row, r1 - row), slice(c0 - column, c1 - column))
        mask = top[part] > np.maximum(self.height_m[window], 0.05)
        self.height_m[window][mask] = top[part][mask]
        self.rgb[window][mask] = np.clip(shade[part][mask][:, None] * np.asarray(colour, np.float32), 0, 255)
        self.material[window][mask] = Material.TREE

    def level(self, at: Points) -> float:
        """Height above the terrain at a point, for things that stand on a bridge; 0 off the map."""
        column, row = (int(v / self.gsd_m) for v in at)
        n = len(self.material)
        return float(self.height_m[row, column]) if 0 <= row < n and 0 <= column < n else 0.0

    def free(self, points: Points) -> bool:
        """True if the polygon is at least partly on the map and covers no reserved ground."""
        found = self._mask(points)
        return found is not None and not bool((self.taken[found[0]] & found[1]).any())
