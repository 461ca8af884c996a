"""A raster of any projection, read as rectangles of Web Mercator pixels, however much of it lies below each."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject
from rasterio.warp import transform as project
from rasterio.windows import Window

from service.errors import SourceUnreadable
from service.geo import MAX_MERCATOR_LAT, Bounds, wrap_east, wrap_lon
from service.maps.dates import date_of
from service.maps.elevation import check_is_picture
from service.maps.gdal import calling, open_raster
from service.maps.place import EDGE_POINTS, MERCATOR_RADIUS_M, WGS84, Georeference, to_mercator
from service.maps.rendering import Rendering, Stretch
from service.maps.survey import Collar, Survey, find_collar, survey

WORLD_M = 2 * math.pi * MERCATOR_RADIUS_M
"""The Web Mercator square has this side."""

OVERVIEW_SLACK = 1.05
"""An overview that is so little too coarse will do: what is lost is less than the resampling's own blur."""

MAX_PART_PX = 512
"""Larger rectangles are warped in parts of this side."""

MAX_SCALE = 4.0
"""From so many pixels of the raster to each of the rectangle on, it is averaged while it is read, not after."""

TOLERANCE_PX = 0.02
"""The warper follows a projection this exactly; its default is an eighth of a pixel."""

_LOSSY = ("jpeg", "webp", "ycbcr jpeg", "jpeg2000", "lerc", "jxl")


class Piece:
    """An open raster with its place. One thread at a time.

    Args:
        path: the file, as GDAL finds it; a context that is left when this is closed.
        name: what the user calls it.
        locate: tells where the open raster lies.
        options: of ``open_raster``.

    Attributes:
        bounds: ``(west, south, east, north)``, degrees.
        gsd_m: metres a pixel on the ground, at its centre.
        date: the day that the file tells, ISO 8601, or None.
        dtype: of its bands.
        is_numbers: whether it is one band of something else than bytes: heights, or what a sensor measured.
        collar: undeclared fill that is left out.

    Raises:
        SourceUnreadable: it does not lie on Earth, holds heights, or is damaged.
    """

    def __init__(
        self, path: AbstractContextManager[str], name: str, locate: Callable[[Any], Georeference], **options: Any
    ) -> None:
        self.name, self._options, self._levels = name, options, dict[int, Any]()
        self.stretch: Stretch | None = None
        self.collar: Collar | None = None
        self._stack = ExitStack()
        try:
            self.path = self._stack.enter_context(path)
            self._dataset = self._open()
            with calling(name, self.path):
                self.place = locate(self._dataset)
                check_is_picture(self._dataset, name)
                self.rendering = Rendering.of(self._dataset)
                self.dtype = str(self._dataset.dtypes[self.rendering.bands[0] - 1])
                self.is_numbers = self._dataset.count == 1 and self.dtype not in ("uint8", "int8")
                self.date = date_of(self._dataset.tags() | self._dataset.tags(ns="IMAGERY"))
                self._find_extent()
        except BaseException:
            self.close()
            raise

    def survey(self) -> Survey:
        """Look at samples all over it, and find its collar."""
        with calling(self.name, self.path):
            seen = survey(self._dataset, self.rendering)
            if self.rendering.palette is None:
                compression = str(self._dataset.profile.get("compress") or self._dataset.driver).lower()
                self.collar = find_collar(seen, compression in _LOSSY)
        return seen

    def read(self, zoom: int, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return red, green, blue and alpha ``[4, H, W]`` of a rectangle that does not cross the antimeridian.

        Raises:
            SourceUnreadable: the file is damaged.
        """
        rgba = np.zeros((4, height, width), np.uint8)
        with calling(self.name, self.path):
            for y in range(0, height, MAX_PART_PX):
                for x in range(0, width, MAX_PART_PX):
                    part = rgba[:, y : y + MAX_PART_PX, x : x + MAX_PART_PX]
                    self._warp(zoom, left + x, top + y, part)
        return rgba

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def _find_extent(self) -> None:
        """Bounds, metres a pixel, and the Mercator metres of the edges."""
        width, height = self._dataset.width, self._dataset.height
        along, zero, one = np.linspace(0, 1, EDGE_POINTS)[:-1], np.zeros(EDGE_POINTS - 1), np.ones(EDGE_POINTS - 1)
        columns = np.concatenate([along, one, 1 - along, zero]) * width
        rows = np.concatenate([zero, along, one, 1 - along]) * height
        x, y = self.place.coordinates(columns, rows)
        east, north = to_mercator(self.place.crs, x, y)
        if not np.isfinite([east, north]).all():
            raise SourceUnreadable(
                f"{self.name} does not lie on Earth between ±85° of latitude in its projection; check its georeference "
                f"(its corner is at {x[0]:.6g}, {y[0]:.6g}). If the projection is wrong: gdal_translate -a_srs EPSG:… "
                f"{self.name} out.tif"
            )
        if north.max() > WORLD_M / 2 or north.min() < -WORLD_M / 2:
            raise SourceUnreadable(
                f"{self.name} reaches beyond ±{MAX_MERCATOR_LAT:.2f}° of latitude, where Web Mercator ends; cut "
                "it there."
            )
        self.mercator = float(east.min()), float(north.min()), float(east.max()), float(north.max())
        w, s, e, n = self.mercator
        degrees = 180 / math.pi / MERCATOR_RADIUS_M
        lats = np.degrees(np.arctan(np.sinh(np.array([s, n]) / MERCATOR_RADIUS_M)))
        self.bounds: Bounds = float(wrap_lon(w * degrees)), float(lats[0]), wrap_east(e * degrees), float(lats[1])
        self.sides_m = self._pixel_sides_m(width, height)
        self.gsd_m = math.sqrt(self.sides_m[0] * self.sides_m[1])
        if not (self.gsd_m > 0 and math.isfinite(self.gsd_m)):
            raise SourceUnreadable(f"{self.name} has no area on Earth in its projection; check its georeference.")
        back = self.place.pixels(*self._coordinates(east, north))
        if np.hypot(back[0] - columns, back[1] - rows).max() > 1:  # the warper would not find these pixels
            raise SourceUnreadable(
                f"{self.name} is not in one piece in its projection, as when it crosses the antimeridian; export it "
                "again in its UTM zone, or in degrees (EPSG:4326)."
            )

    def _coordinates(self, east: NDArray[np.float64], north: NDArray[np.float64]) -> tuple[Any, Any]:
        """From Mercator metres to the raster's own coordinates."""
        lon = np.degrees(east / MERCATOR_RADIUS_M)
        lat = np.degrees(np.arctan(np.sinh(north / MERCATOR_RADIUS_M)))
        x, y = project(WGS84, self.place.crs, np.asarray(wrap_lon(lon)).tolist(), lat.tolist())
        return np.asarray(x), np.asarray(y)

    def _pixel_sides_m(self, width: int, height: int) -> tuple[float, float]:
        """Width and height of the pixel at the centre, on the ground."""
        columns = width / 2 + np.array([-0.5, 0.5, 0, 0])
        rows = height / 2 + np.array([0, 0, -0.5, 0.5])
        lon, lat = project(self.place.crs, WGS84, *(v.tolist() for v in self.place.coordinates(columns, rows)))
        local = f"+proj=tmerc +lat_0={lat[0]:.9f} +lon_0={lon[0]:.9f} +datum=WGS84 +units=m"
        x, y = project(WGS84, local, lon, lat)
        return math.hypot(x[1] - x[0], y[1] - y[0]), math.hypot(x[3] - x[2], y[3] - y[2])

    def _warp(self, zoom: int, left: int, top: int, out: NDArray[np.uint8]) -> None:
        """Fill ``out`` ``[4, H, W]`` with the rectangle that begins there."""
        height, width = out.shape[1:]
        pixel_m = WORLD_M / (256 << zoom)
        origin = Affine(pixel_m, 0, left * pixel_m - WORLD_M / 2, 0, -pixel_m, WORLD_M / 2 - top * pixel_m)
        columns, rows = np.meshgrid(np.linspace(0, width, 9), np.linspace(0, height, 9))
        east, north = origin.c + columns.ravel() * pixel_m, origin.f - rows.ravel() * pixel_m
        source_columns, source_rows = self.place.pixels(*self._coordinates(east, north))
        dataset = self._level(pixel_m * math.cos(math.atan(math.sinh(float(north.mean()) / MERCATOR_RADIUS_M))))
        across, down = self._dataset.width / dataset.width, self._dataset.height / dataset.height
        reach = [
            _reach(values / factor, length)
            for values, factor, length in (
                (source_columns, across, dataset.width),
                (source_rows, down, dataset.height),
            )
        ]
        if reach[0] is None or reach[1] is None:
            return
        (x0, x1), (y0, y1) = reach[0], reach[1]
        scale = _scale(source_columns / across, width, height), _scale(source_rows / down, width, height)
        shrink = [int(each / MAX_SCALE * 2) if each > MAX_SCALE else 1 for each in scale]
        shape = -(-(y1 - y0) // shrink[1]), -(-(x1 - x0) // shrink[0])
        rgba = self._rgba(dataset, Window(x0, y0, x1 - x0, y1 - y0), shape)
        shrunk_across, shrunk_down = (x1 - x0) / shape[1], (y1 - y0) / shape[0]
        reproject(
            rgba,
            out,
            src_crs=self.place.crs,
            **self.place.part(x0 * across, y0 * down, across * shrunk_across, down * shrunk_down),
            dst_transform=origin,
            dst_crs="EPSG:3857",
            src_alpha=4,
            dst_alpha=4,
            resampling=Resampling.bilinear,
            tolerance=TOLERANCE_PX,
            XSCALE=str(min(1.0, shrunk_across / scale[0])),  # GDAL would guess them from the part's outline
            YSCALE=str(min(1.0, shrunk_down / scale[1])),
        )

    def _rgba(self, dataset: Any, window: Window, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Red, green, blue and alpha (0 or 255) of a window, ``[4, *shape]``."""
        bands = list(self.rendering.bands)
        how = Resampling.nearest if self.rendering.palette is not None else Resampling.average
        read = dataset.read(bands, window=window, out_shape=(len(bands), *shape), resampling=how)
        mask = self.rendering.mask(dataset, window=window, out_shape=shape)
        valid = self.rendering.valid(read, mask)
        if self.collar is not None:
            columns = (window.col_off + (np.arange(shape[1]) + 0.5) * window.width / shape[1]) / dataset.width
            rows = (window.row_off + (np.arange(shape[0]) + 0.5) * window.height / shape[0]) / dataset.height
            valid &= ~self.collar.covers(read, columns, rows)
        rgb = self.rendering.rgb(read, self.stretch)
        return np.concatenate([rgb, valid[None] * np.uint8(255)])

    def _level(self, pixel_m: float) -> Any:
        """The file, or the coarsest overview of it that is as fine as ``pixel_m``."""
        wanted = pixel_m / self.gsd_m * OVERVIEW_SLACK
        coarser = [i for i, factor in enumerate(self._dataset.overviews(1)) if factor <= wanted]
        if not coarser:
            return self._dataset
        level = coarser[-1]
        if level not in self._levels:
            self._levels[level] = self._open(overview_level=level)
        return self._levels[level]

    def _open(self, **more: Any) -> Any:
        """The file, closed with this."""
        dataset = open_raster(self.path, self.name, **self._options, **more)
        self._stack.callback(dataset.close)
        return dataset


def _reach(values: NDArray[np.float64], length: int) -> tuple[int, int] | None:
    """First and last (exclusive) pixel that an interpolation at these places looks at, None if there are none."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return None
    step = (finite.max() - finite.min()) / 8 if finite.size < values.size else 0.0
    # three pixels for the kernel, more where pixels of the rectangle are wide
    margin = 3 + step + 0.02 * (finite.max() - finite.min())
    first, last = math.floor(finite.min() - margin), math.ceil(finite.max() + margin)
    first, last = max(0, first), min(length, last)
    return (first, last) if first < last else None


def _scale(values: NDArray[np.float64], width: int, height: int) -> float:
    """Pixels of the raster for each of a rectangle, along one axis of the raster, from a grid of 9 x 9 places."""
    grid = np.where(np.isfinite(values), values, np.nan).reshape(9, 9)
    steps = [np.abs(np.diff(grid, axis=axis)) * 8 / side for axis, side in ((1, width), (0, height))]
    along = [float(np.nanmedian(each)) if np.isfinite(each).any() else 1.0 for each in steps]
    return max(1e-6, math.hypot(*along))
