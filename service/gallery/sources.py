"""Maps on disk, read piece by piece and cut into north-up square tiles.

Every map, whatever its projection, is seen through GDAL's warper in a transverse Mercator projection centred on it:
there a metre is a metre (to 1 in 10,000 within 90 km) and the antimeridian is nowhere near. Only the windows that are
asked for are read, from the map's overviews where they suffice.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
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
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as reproject
from rasterio.windows import Window

from service.errors import InvalidFootprint, SourceUnreadable
from service.gallery.tile import Footprint, check_id
from service.gallery.tiling import Grid, Tiling
from service.geo import offset_m, wrap_lon

WGS84 = CRS.from_epsg(4326)

MIN_VALID_SHARE = 0.5
"""Tiles with a smaller share of valid pixels are left out: mostly nothing cannot be told from other nothing."""

EDGE_POINTS = 21
"""Points along each edge of a map to find its extent in another projection, as GDAL's own tools do."""

STRETCH_PERCENTILES = (2, 98)
"""What becomes black and white in a map that is not 8-bit; the usual stretch of GIS viewers."""

MAX_CORNER_MISFIT = 0.05
"""Corners further than this share of the side from any parallelogram are a perspective view or a mistake."""

HOW_TO_GIVE_CORNERS = (
    'Put its corners beside it as {stem}.json or corners.json: {{"corners": [[lat, lon], … clockwise from top-left]}} '
    'or {{"bounds": [w, s, e, n]}}.'
)


@dataclass(frozen=True, eq=False)
class MapTile:
    """A square piece of a map: its id, RGB image (uint8 ``[H, W, 3]``, black where the map is empty) and footprint."""

    id: str
    image: NDArray[np.uint8]
    footprint: Footprint


def open_source(path: Path, corners: Path | None = None) -> Source:
    """Open a georeferenced raster of any projection, or an ordinary image with a JSON file of its corners.

    Args:
        path: GeoTIFF, JPEG, PNG or any other raster that GDAL reads.
        corners: JSON file; it wins over the raster's own georeference. Without it, an image that has none is looked
            up in ``<name>.json`` and ``corners.json`` beside it. Forms: ``{"corners": [[lat, lon] × 4]}`` clockwise
            from top-left, ``{"bounds": [w, s, e, n]}``, ``{"corners_lonlat": {"TL": [lon, lat], "TR", "BR", "BL"}}``.

    Raises:
        SourceUnreadable: not a raster, not georeferenced, or of a kind that cannot be resampled.
        InvalidFootprint: the corners are not in order or not on Earth.
    """
    with _gdal(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # whether it is follows below
        dataset = rasterio.open(path)
    try:
        if corners is None and not _is_georeferenced(dataset):
            beside = (path.with_suffix(".json"), path.with_name("corners.json"))
            corners = next((candidate for candidate in beside if candidate.is_file()), None)
            if corners is None:
                how = HOW_TO_GIVE_CORNERS.format(stem=path.stem)
                raise SourceUnreadable(f"{path} does not say where it lies. {how}")
        if corners is not None:
            return Source(path, dataset, WGS84, _transform_of(corners, dataset.width, dataset.height))
        if dataset.crs is None:
            gcps, crs = dataset.gcps
            return Source(path, dataset, crs, from_gcps(gcps))
        return Source(path, dataset, dataset.crs, dataset.transform)
    except BaseException:
        dataset.close()
        raise


class Source:
    """An open map. Made by :func:`open_source`; not to be shared between threads.

    Maps that are not 8-bit are stretched: the 2nd and 98th percentile of the whole map, over all bands, become 0 and
    255. One or two bands are read as grey, more as red, green and blue, by their colour interpretation or else the
    first three.
    """

    def __init__(self, path: Path, dataset: Any, crs: CRS, transform: Affine) -> None:
        self._path, self._dataset = path, dataset
        self._crs, self._transform = _in_one_piece(crs, transform, dataset.width)
        if ColorInterp.palette in dataset.colorinterp:
            raise SourceUnreadable(
                f"{path} has a colour palette, which cannot be resampled; first run: "
                f"gdal_translate -expand rgb {path.name} rgb.tif"
            )
        self._bands = _visible_bands(dataset)
        with _gdal(path):
            centre = xy(self._transform, [dataset.height / 2], [dataset.width / 2], offset="ul")
            (lon,), (lat,) = reproject(self._crs, WGS84, *centre)
            self._local = CRS.from_proj4(f"+proj=tmerc +lat_0={lat:.9f} +lon_0={lon:.9f} +datum=WGS84 +units=m")
            self._west_m, self._south_m, self._east_m, self._north_m, self._gsd_m = self._extent()

    def tiles(
        self, tile_size_m: float = 86.0, overlap: float = 0.5, max_px: int = 384, prefix: str | None = None
    ) -> Iterator[MapTile]:
        """Cut the map into tiles, row by row from the north-west; see :class:`Grid` for how they are laid.

        Args:
            tile_size_m: side of a tile, metres.
            overlap: share of a tile that its neighbour repeats, 0 to 0.9.
            max_px: largest side of a tile's image.
            prefix: start of the tile ids, ``<prefix>/r03c07``; the file's name by default.

        Yields:
            Tiles of which at least half is map.

        Raises:
            InvalidParameter: a parameter is out of range, or a tile would have fewer than 16 pixels.
            SourceUnreadable: the file is damaged.
        """
        prefix = self._path.stem if prefix is None else prefix
        check_id(f"{prefix}/r00c00")
        grid, pixel_m = self._grid(tile_size_m, overlap, max_px)
        digits = max(2, len(str(max(len(grid.rows), len(grid.columns)) - 1)))
        with self._warped(grid, pixel_m) as warped:
            for r, top in enumerate(grid.rows):
                for c, left in enumerate(grid.columns):
                    image = self._read(warped, Window(left, top, grid.tile_px, grid.tile_px))
                    if image is not None:
                        footprint = self._footprint(left * pixel_m, top * pixel_m, grid.tile_px, pixel_m)
                        yield MapTile(f"{prefix}/r{r:0{digits}}c{c:0{digits}}", image, footprint)

    def count(self, tile_size_m: float = 86.0, overlap: float = 0.5, max_px: int = 384) -> int:
        """Number of places for tiles; :meth:`tiles` yields fewer where the map is empty."""
        return len(self._grid(tile_size_m, overlap, max_px)[0])

    def close(self) -> None:
        """Close the file."""
        self._dataset.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

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
            raise SourceUnreadable(f"{self._path} does not lie on Earth in its projection; check its georeference.")
        back = reproject(self._local, self._crs, x, y)
        pixel = np.hypot(self._transform.a, self._transform.d)
        if np.abs(np.subtract(back, edge)).max() > pixel:  # the warper would not find these pixels
            raise SourceUnreadable(
                f"{self._path} is not in one piece in its projection, as when it crosses the antimeridian; export it "
                "again in its UTM zone, or in degrees (EPSG:4326)."
            )
        return float(x.min()), float(y.min()), float(x.max()), float(y.max()), gsd_m

    def _grid(self, tile_size_m: float, overlap: float, max_px: int) -> tuple[Grid, float]:
        tiling = Tiling(tile_size_m, overlap, max_px)
        return Grid.over(self._east_m - self._west_m, self._north_m - self._south_m, self._gsd_m, tiling)

    @contextmanager
    def _warped(self, grid: Grid, pixel_m: float) -> Iterator[Any]:
        """The map in the local projection, in the pixels of the tiles."""
        dataset = self._dataset
        has_mask = ColorInterp.alpha in dataset.colorinterp or dataset.nodata is not None
        with _gdal(self._path):
            warped = WarpedVRT(
                dataset,
                src_crs=self._crs,
                src_transform=self._transform,
                crs=self._local,
                transform=Affine(pixel_m, 0, self._west_m, 0, -pixel_m, self._north_m),
                width=grid.width_px,
                height=grid.height_px,
                resampling=Resampling.bilinear,
                add_alpha=not has_mask,
            )
        with warped:
            yield warped

    def _read(self, warped: Any, window: Window) -> NDArray[np.uint8] | None:
        """RGB of a window, black where the map is empty; None if most of it is."""
        with _gdal(self._path):
            valid = warped.dataset_mask(window=window) > 0
            if valid.mean() < MIN_VALID_SHARE:
                return None
            bands = warped.read(self._bands, window=window)
        if bands.dtype != np.uint8:
            low, high = self._stretch
            bands = np.clip((np.nan_to_num(bands) - low) * (255 / (high - low)), 0, 255).round()
        image = np.moveaxis(np.where(valid, bands, 0), 0, 2).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))

    @cached_property
    def _stretch(self) -> tuple[float, float]:
        """Values that become black and white, from at most 512 × 512 pixels of the whole map."""
        shape = (min(512, self._dataset.height), min(512, self._dataset.width))
        with _gdal(self._path):
            bands = self._dataset.read(self._bands, out_shape=(len(self._bands), *shape))
            valid = self._dataset.dataset_mask(out_shape=shape) > 0
        values = bands[:, valid]
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, STRETCH_PERCENTILES) if values.size else (0.0, 1.0)
        return float(low), float(high if high > low else low + 1)

    def _footprint(self, left_m: float, top_m: float, tile_px: int, pixel_m: float) -> Footprint:
        west, north, side_m = self._west_m + left_m, self._north_m - top_m, tile_px * pixel_m
        x, y = [west, west + side_m, west + side_m, west], [north, north, north - side_m, north - side_m]
        lons, lats = reproject(self._local, WGS84, x, y)
        corners = [(lat, float(wrap_lon(lon))) for lat, lon in zip(lats, lons, strict=True)]
        return Footprint.from_corners(corners, tile_px, tile_px)


@contextmanager
def _gdal(path: Path) -> Iterator[None]:
    """Call GDAL so that it writes nothing beside the map, and its errors become ours."""
    try:
        # A truncated JPEG is an error, not a grey map.
        with rasterio.Env(GDAL_PAM_ENABLED="NO", GDAL_ERROR_ON_LIBJPEG_WARNING="YES"):
            yield
    except (RasterioError, CRSError, CPLE_BaseError) as error:
        raise SourceUnreadable(f"{path} cannot be read as a map: {error}. Give a GeoTIFF, or an image.") from error


def _is_georeferenced(dataset: Any) -> bool:
    gcps, gcp_crs = dataset.gcps
    return (dataset.crs is not None and not dataset.transform.is_identity) or (len(gcps) >= 3 and gcp_crs is not None)


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
        raise SourceUnreadable(f"{corners} cannot be read as corners ({error!r}). {how}") from error
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
            f"The corners in {corners} are {misfit_m:.1f} m from any map seen straight from above; check them, or "
            "rectify the image first."
        )
    return transform
