"""Maps on disk, read piece by piece as north-up squares.

Every map, whatever its projection, is seen through GDAL's warper in a transverse Mercator projection centred on it:
there a metre is a metre (to 1 in 10,000 within 90 km) and the antimeridian is nowhere near. Only the windows that are
asked for are read, from the map's overviews where they suffice.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what PROJ's errors arrive as; rasterio.errors does not list it
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine, from_gcps, xy
from rasterio.warp import transform as reproject
from rasterio.windows import Window

from service.errors import InvalidFootprint, SourceUnreadable
from service.geo import offset_m, wrap_lon
from service.ground.tile import Footprint
from service.maps.tiling import Grid, Tiling
from service.maps.warped import Warped, can_be_read

WGS84 = CRS.from_epsg(4326)

EDGE_POINTS = 21
"""Points along each edge of a map to find its extent in another projection, as GDAL's own tools do."""

STRETCH_PERCENTILES = (2, 98)
"""What becomes black and white in a map that is not 8-bit; the usual stretch of GIS viewers."""

MAX_CORNER_MISFIT = 0.05
"""Corners further than this share of the side from any parallelogram are a perspective view or a mistake."""

MAX_BLOCK_BYTES = 256 * 2**20
"""A block is read whole, however small a window of it is asked for."""

OVERVIEW_SLACK = 1.05
"""An overview that is so little too coarse will do: what is lost is less than the warper's own blur."""

MAX_DECIMATED_PX = 2**26
"""Larger maps without overviews are sampled, not read through, for their stretch."""

HOW_TO_GIVE_CORNERS = (
    'Put its corners beside it as {stem}.json or corners.json: {{"corners": [[lat, lon], … clockwise from top-left]}} '
    'or {{"bounds": [w, s, e, n]}}.'
)


def open_map(path: Path, corners: Path | None = None, driver: str | None = None, name: str | None = None) -> Map:
    """Open a georeferenced raster of any projection, or an ordinary image with a JSON file of its corners.

    Args:
        path: GeoTIFF, JPEG, PNG or any other raster that GDAL reads.
        corners: JSON file; it wins over the raster's own georeference. Without it, an image that has none is looked
            up in ``<name>.json`` and ``corners.json`` beside it. Forms: ``{"corners": [[lat, lon] × 4]}`` clockwise
            from top-left, ``{"bounds": [w, s, e, n]}``, ``{"corners_lonlat": {"TL": [lon, lat], "TR", "BR", "BL"}}``.
        driver: the only GDAL driver that may read the file: for files from strangers, as some formats name others.
        name: what to call the file in errors; its own name by default.

    Raises:
        SourceUnreadable: not a raster, not georeferenced, or of a kind that cannot be resampled.
        InvalidFootprint: the corners are not in order or not on Earth.
    """
    name = name or path.name
    with _gdal(path, name), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # whether it is follows below
        dataset = rasterio.open(path, driver=driver)
    try:
        if corners is None and not _is_georeferenced(dataset):
            beside = (path.with_suffix(".json"), path.with_name("corners.json"))
            corners = next((candidate for candidate in beside if candidate.is_file()), None)
            if corners is None:
                how = HOW_TO_GIVE_CORNERS.format(stem=path.stem)
                raise SourceUnreadable(f"{name} does not say where it lies. {how}")
        if corners is not None:
            return Map(path, name, dataset, WGS84, _transform_of(corners, dataset.width, dataset.height))
        if dataset.crs is None:
            gcps, crs = dataset.gcps
            return Map(path, name, dataset, crs, from_gcps(gcps))
        return Map(path, name, dataset, dataset.crs, dataset.transform)
    except BaseException:
        dataset.close()
        raise


class Map:
    """An open map. Made by :func:`open_map`; one thread at a time.

    Maps that are not 8-bit are stretched: the 2nd and 98th percentile of the whole map, over all bands, become 0 and
    255. One or two bands are read as grey, more as red, green and blue, by their colour interpretation or else the
    first three.
    """

    def __init__(self, path: Path, name: str, dataset: Any, crs: CRS, transform: Affine) -> None:
        self.path, self.name, self._dataset = path, name, dataset
        self._crs, self._transform = _in_one_piece(crs, transform, dataset.width)
        if any(kind.startswith("complex") for kind in dataset.dtypes):
            raise SourceUnreadable(
                f"{name} holds complex numbers, which are no picture; first run: "
                f"gdal_translate DERIVED_SUBDATASET:AMPLITUDE:{name} amplitude.tif"
            )
        if ColorInterp.palette in dataset.colorinterp:
            raise SourceUnreadable(
                f"{name} has a colour palette, which cannot be resampled; first run: "
                f"gdal_translate -expand rgb {name} rgb.tif"
            )
        _check_blocks(name, dataset)
        self._bands = _visible_bands(dataset)
        with _gdal(path, name):
            centre = xy(self._transform, [dataset.height / 2], [dataset.width / 2], offset="ul")
            (lon,), (lat,) = reproject(self._crs, WGS84, *centre)
            self._local = CRS.from_proj4(f"+proj=tmerc +lat_0={lat:.9f} +lon_0={lon:.9f} +datum=WGS84 +units=m")
            self._west_m, self._south_m, self._east_m, self._north_m, self._gsd_m = self._extent()

    def grid(self, tiling: Tiling) -> tuple[Grid, float]:
        """Where the tiles lie; see :meth:`Grid.over`.

        Raises:
            InvalidParameter: see there.
            SourceUnreadable: tiles so large would need overviews, which the map does not have.
        """
        grid, pixel_m = Grid.over(self._east_m - self._west_m, self._north_m - self._south_m, self._gsd_m, tiling)
        if not can_be_read(grid.tile_px, self._bytes_below(pixel_m)):
            raise SourceUnreadable(
                f"{self.name} has no overview that is coarse enough for tiles of {grid.tile_px * pixel_m:.0f} m; first "
                f"run: gdaladdo -r average {self.name}, or give a smaller tile_size_m."
            )
        return grid, pixel_m

    def close(self) -> None:
        """Close the file."""
        self._dataset.close()

    def warped(self, grid: Grid, pixel_m: float, stack: ExitStack) -> Warped:
        """The map, or the overview of it that suffices, in the local projection and the pixels of the tiles.

        ``stack`` closes it; rasterio's own contexts would have to be left by the thread that entered them.
        """
        with _gdal(self.path, self.name):
            dataset, level = self._dataset, self._level(pixel_m)
            if level is not None:
                dataset = rasterio.open(self.path, driver=self._dataset.driver, overview_level=level)
                stack.callback(dataset.close)
            across, down = self._dataset.width / dataset.width, self._dataset.height / dataset.height
            t = self._transform
            options = {
                "src_crs": self._crs,
                "src_transform": Affine(t.a * across, t.b * down, t.c, t.d * across, t.e * down, t.f),
                "crs": self._local,
                "resampling": Resampling.bilinear,
                "add_alpha": ColorInterp.alpha not in dataset.colorinterp and dataset.nodata is None,
            }
            origin = Affine(pixel_m, 0, self._west_m, 0, -pixel_m, self._north_m)
            width_m, height_m = self._pixel_sides_m()
            scale = (width_m * across / pixel_m, height_m * down / pixel_m)
            size_px = (grid.width_px, grid.height_px)
            warped = Warped(dataset, options, origin, size_px, scale, self._bytes_below(pixel_m))
        stack.callback(warped.close)
        return warped

    def read(self, warped: Warped, left: int, top: int, side_px: int) -> NDArray[np.uint8] | None:
        """RGB of a window of :meth:`warped`, black where the map is empty; None if most of it is.

        Raises:
            SourceUnreadable: the file is damaged.
        """
        with _gdal(self.path, self.name):
            read = warped.read(self._bands, left, top, side_px)
        if read is None:
            return None
        bands, valid = read
        if bands.dtype != np.uint8:
            low, high = self._stretch
            bands = np.clip((np.nan_to_num(bands) - low) * (255 / (high - low)), 0, 255).round().astype(np.uint8)
        if not valid.all():
            bands[:, ~valid] = 0
        image = np.moveaxis(bands, 0, 2)
        return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))

    def footprint(self, left_m: float, top_m: float, side_px: int, pixel_m: float) -> Footprint:
        """Footprint of a square that starts so many metres from the map's west and north edge."""
        west, north, side_m = self._west_m + left_m, self._north_m - top_m, side_px * pixel_m
        x, y = [west, west + side_m, west + side_m, west], [north, north, north - side_m, north - side_m]
        lons, lats = reproject(self._local, WGS84, x, y)
        corners = [(lat, float(wrap_lon(lon))) for lat, lon in zip(lats, lons, strict=True)]
        return Footprint.from_corners(corners, side_px, side_px)

    def _extent(self) -> tuple[float, float, float, float, float]:
        """West, south, east, north of the map in the local projection, and its metres a pixel."""
        width, height = self._dataset.width, self._dataset.height
        along, zero, one = np.linspace(0, 1, EDGE_POINTS)[:-1], np.zeros(EDGE_POINTS - 1), np.ones(EDGE_POINTS - 1)
        columns = np.concatenate([along, one, 1 - along, zero]) * width
        rows = np.concatenate([zero, along, one, 1 - along]) * height
        edge = xy(self._transform, rows, columns, offset="ul")
        x, y = map(np.array, reproject(self._crs, self._local, *edge))
        area_m2 = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2  # shoelace formula
        gsd_m = float(np.sqrt(area_m2 / (width * height)))
        if not (np.isfinite([x, y]).all() and gsd_m > 0):
            raise SourceUnreadable(f"{self.name} does not lie on Earth in its projection; check its georeference.")
        back = reproject(self._local, self._crs, x, y)
        pixel = np.hypot(self._transform.a, self._transform.d)
        if np.abs(np.subtract(back, edge)).max() > pixel:  # the warper would not find these pixels
            raise SourceUnreadable(
                f"{self.name} is not in one piece in its projection, as when it crosses the antimeridian; export "
                "it again in its UTM zone, or in degrees (EPSG:4326)."
            )
        return float(x.min()), float(y.min()), float(x.max()), float(y.max()), gsd_m

    def _pixel_sides_m(self) -> tuple[float, float]:
        """Width and height of the pixel at the centre, on the ground."""
        row, column = self._dataset.height / 2, self._dataset.width / 2
        rows, columns = [row, row, row + 1], [column, column + 1, column]
        x, y = map(np.array, reproject(self._crs, self._local, *xy(self._transform, rows, columns, offset="ul")))
        width_m, height_m = np.hypot(x[1:] - x[0], y[1:] - y[0]).tolist()
        return width_m, height_m

    def _level(self, pixel_m: float) -> int | None:
        """The coarsest overview that is as fine as ``pixel_m``, None for the map itself: the warper does not look."""
        wanted = pixel_m / self._gsd_m * OVERVIEW_SLACK
        coarser = [i for i, factor in enumerate(self._dataset.overviews(1)) if factor <= wanted]
        return coarser[-1] if coarser else None

    def _bytes_below(self, pixel_m: float) -> float:
        """Bytes of the map, or of the overview that suffices, that one pixel of a tile is made of."""
        level = self._level(pixel_m)
        factor = 1 if level is None else self._dataset.overviews(1)[level]
        itemsizes = sum(np.dtype(kind).itemsize for kind in self._dataset.dtypes)
        return float((pixel_m / self._gsd_m / factor) ** 2 * itemsizes)

    @cached_property
    def _stretch(self) -> tuple[float, float]:
        """Values that become black and white, from about 512 × 512 pixels spread over the whole map."""
        values = np.concatenate([bands[:, valid].ravel() for bands, valid in self._samples()])
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, STRETCH_PERCENTILES) if values.size else (0.0, 1.0)
        return float(low), float(high if high > low else low + 1)

    def _samples(self) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
        """Pieces of the map and which of their pixels are valid, without reading all of it."""
        width, height = self._dataset.width, self._dataset.height
        with _gdal(self.path, self.name):
            if self._dataset.overviews(1) or width * height <= MAX_DECIMATED_PX:
                shape = (min(512, height), min(512, width))
                bands = self._dataset.read(self._bands, out_shape=(len(self._bands), *shape))
                yield bands, self._dataset.dataset_mask(out_shape=shape) > 0
                return
            for row, column in np.ndindex(8, 8):
                window = Window(int((column + 0.5) / 8 * width), int((row + 0.5) / 8 * height), 64, 64)
                yield self._dataset.read(self._bands, window=window), self._dataset.dataset_mask(window=window) > 0


@contextmanager
def _gdal(path: Path, name: str) -> Iterator[None]:
    """Call GDAL so that it writes nothing beside the map, and its errors become ours."""
    try:
        # A truncated JPEG is an error, not a grey map.
        with rasterio.Env(GDAL_PAM_ENABLED="NO", GDAL_ERROR_ON_LIBJPEG_WARNING="YES"):
            yield
    except (RasterioError, CRSError, CPLE_BaseError) as error:
        raise SourceUnreadable(
            f"{name} cannot be read as a map: {str(error).replace(str(path), name)}. Give a GeoTIFF, or an image."
        ) from error


def _is_georeferenced(dataset: Any) -> bool:
    gcps, gcp_crs = dataset.gcps
    return (dataset.crs is not None and not dataset.transform.is_identity) or (len(gcps) >= 3 and gcp_crs is not None)


def _check_blocks(name: str, dataset: Any) -> None:
    """Refuse a file that can only be read in pieces that fill the memory."""
    together = dataset.count if str(dataset.profile.get("interleave")).lower() == "pixel" else 1
    for (rows, columns), kind in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        size = rows * columns * np.dtype(kind).itemsize * together
        if size > MAX_BLOCK_BYTES:
            raise SourceUnreadable(
                f"{name} is stored in blocks of {columns} x {rows} pixels, {size} bytes; the limit is "
                f"{MAX_BLOCK_BYTES}. First run: gdal_translate -co TILED=YES {name} tiled.tif",
                limit=MAX_BLOCK_BYTES,
                actual=size,
            )


def _in_one_piece(crs: CRS, transform: Affine, width_px: int) -> tuple[CRS, Affine]:
    """Count longitudes from the map's west edge where they would pass ±180°, and be lost on the way back."""
    west, east = transform.c, transform.c + transform.a * width_px
    if not crs.is_geographic or (west >= -180 and east <= 180):
        return crs, transform
    wkt = re.sub(r'PRIMEM\["Greenwich",\s*0', f'PRIMEM["west edge",{float(wrap_lon(west))!r}', crs.to_wkt())
    return CRS.from_wkt(wkt), Affine(transform.a, transform.b, 0, transform.d, transform.e, transform.f)


def _visible_bands(dataset: Any) -> list[int]:
    """Numbers (from 1) of the red, green and blue band, or of the one that is grey."""
    wanted = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in dataset.colorinterp for colour in wanted):
        return [dataset.colorinterp.index(colour) + 1 for colour in wanted]
    plain = [i + 1 for i, colour in enumerate(dataset.colorinterp) if colour != ColorInterp.alpha]
    return plain[:3] if len(plain) >= 3 else plain[:1]


def _transform_of(corners: Path, width_px: int, height_px: int) -> Affine:
    """Best affine map from pixels to ``lon, lat`` through the four corners in a JSON file."""
    try:
        entry = json.loads(corners.read_text(encoding="utf-8"))
        if "corners_lonlat" in entry:
            entry = {"corners": [entry["corners_lonlat"][name][::-1] for name in ("TL", "TR", "BR", "BL")]}
    except (OSError, ValueError, TypeError, KeyError) as error:
        how = HOW_TO_GIVE_CORNERS.format(stem=corners.stem)
        raise SourceUnreadable(f"{corners.name} cannot be read as corners ({error!r}). {how}") from error
    footprint = Footprint.parse({key: entry[key] for key in ("corners", "bounds") if key in entry}, width_px, height_px)
    rows, columns = np.array([0, 0, height_px, height_px]), np.array([0, width_px, width_px, 0])
    lat, lon = np.array(footprint.corners).T
    lon = lon[0] + wrap_lon(lon - lon[0])  # in one piece over the antimeridian
    points = zip(rows, columns, lon, lat, strict=True)
    transform: Affine = from_gcps([GroundControlPoint(*point) for point in points])
    fitted_lon, fitted_lat = xy(transform, rows, columns, offset="ul")
    misfit_m = float(np.hypot(*offset_m(lat, lon, fitted_lat, fitted_lon)).max())
    if misfit_m > MAX_CORNER_MISFIT * footprint.side_m:
        raise InvalidFootprint(
            f"The corners in {corners.name} are {misfit_m:.1f} m from any map seen straight from above; check them, or "
            "rectify the image first."
        )
    return transform
