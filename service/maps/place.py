"""Where a raster lies: from its pixels to a coordinate system, by one affine map or through tie points."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine, GCPTransformer, from_gcps
from rasterio.warp import transform as reproject

from service.errors import InvalidFootprint, SourceUnreadable
from service.geo import LatLon, offset_m, wrap_lon

WGS84 = CRS.from_epsg(4326)

FloatArray = NDArray[np.float64]

MAX_MISFIT = 0.05
"""Points further than this share of the map's side from any view straight from above are a mistake, or a view that no
picture with so few points can be laid flat by."""

FLAT_PX = 1.0
"""Points that fit an affine map this well are taken for one: they are rounded."""

MERCATOR_RADIUS_M = 6_378_137.0
"""The sphere of EPSG:3857 has this radius."""

LOCAL = ("LOCAL_CS", "ENGCRS", "ENGINEERINGCRS", "GEOCCS")
"""The WKT of systems that lie nowhere on the ground begins like this."""

EDGE_POINTS = 21
"""So many points along each edge of a map give its extent in another projection, as in GDAL's own tools."""


@dataclass(frozen=True)
class Georeference:
    """From pixels, counted from the top-left corner of the top-left one, to coordinates.

    Args:
        crs: of the coordinates.
        transform: the affine map; None where tie points say it.
        points: tie points for a thin plate spline.
        note: what the user should know of it.
    """

    crs: CRS
    transform: Affine | None
    points: tuple[GroundControlPoint, ...] = ()
    note: str = ""

    def coordinates(self, columns: FloatArray, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return coordinates x, y of pixels."""
        if self.transform is not None:
            t = self.transform
            return t.a * columns + t.b * rows + t.c, t.d * columns + t.e * rows + t.f
        with GCPTransformer(self.points, tps=True) as spline:
            x, y = spline.xy(rows.tolist(), columns.tolist(), offset="ul")
        return np.asarray(x), np.asarray(y)

    def pixels(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return columns and rows of coordinates; the inverse of :meth:`coordinates`."""
        if self.transform is not None:
            t = ~self.transform
            return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f
        with GCPTransformer(self.points, tps=True) as spline:
            rows, columns = spline.rowcol(x.tolist(), y.tolist(), op=float)
        return np.asarray(columns), np.asarray(rows)

    def part(self, left: float, top: float, across: float, down: float) -> dict[str, Any]:
        """Make options of rasterio's ``reproject`` for a part that starts there, its pixels so many times as large."""
        if self.transform is not None:
            return {"src_transform": self.transform @ Affine.translation(left, top) @ Affine.scale(across, down)}
        moved = [GroundControlPoint((p.row - top) / down, (p.col - left) / across, p.x, p.y) for p in self.points]
        return {"gcps": moved, "METHOD": "GCP_TPS"}


def placed(crs: CRS, transform: Affine, width_px: int, name: str) -> Georeference:
    """Place a raster by its own affine map.

    Raises:
        SourceUnreadable: the coordinates are local ones, of no place on Earth, or the map has no area.
    """
    _check_crs(crs, name)
    if not (all(map(math.isfinite, transform[:6])) and transform.determinant):
        raise SourceUnreadable(f"{name} has a geotransform without area; write it anew with gdal_translate -a_ullr.")
    crs, transform = _in_one_piece(crs, transform, width_px)
    note = ""
    if _is_mirrored(transform):
        what = "columns of {} run from east to west" if transform.a < 0 else "rows of {} run from south to north"
        note = f"the {what.format(name)} (mirrored geotransform); turned north-up."
    return Georeference(crs, transform, note=note)


def tied(points: Sequence[GroundControlPoint], crs: CRS, width_px: int, height_px: int, name: str) -> Georeference:
    """Place a raster by three or more tie points.

    Points that fit an affine map to a pixel are taken for one. Others bend the raster by a thin plate spline, as
    ``gdalwarp -tps`` does, if they confirm one another: each lies where the others say to a 20th of the map's side.

    Raises:
        InvalidFootprint: they do not, or show the map as in a mirror.
        SourceUnreadable: they are in local coordinates, or lie on one line.
    """
    _check_crs(crs, name)
    rows, columns = np.array([p.row for p in points]), np.array([p.col for p in points])
    x, y = np.array([p.x for p in points]), np.array([p.y for p in points])
    design = np.column_stack([columns, rows, np.ones_like(rows)])
    if not np.isfinite(np.concatenate([x, y, rows, columns])).all() or np.linalg.matrix_rank(design) < 3:
        raise SourceUnreadable(f"the tie points of {name} lie on one line; give at least three that span it.")
    flat: Affine = from_gcps(list(points))
    fitted = Georeference(crs, flat)
    if _is_mirrored(flat):
        raise InvalidFootprint(
            f"the tie points of {name} turn it into its mirror image, as when rows or columns are counted from the "
            "wrong edge, or x and y are swapped; no photo is found in that. Correct them. If the picture itself is "
            f"stored mirrored: gdalwarp -tps -r bilinear {name} out.tif"
        )
    side_px = math.sqrt(width_px * height_px)
    misfit_px = _misfit_px(fitted, x, y, columns, rows)
    if misfit_px.max() <= FLAT_PX:
        note = f"{name} has three tie points, which nothing confirms; its place is as good as they are."
        return Georeference(*_in_one_piece(crs, flat, width_px), note=note if len(points) == 3 else "")
    worst = float((misfit_px if len(points) < 6 else _left_out(crs, points)).max())
    if not worst <= MAX_MISFIT * side_px:
        raise InvalidFootprint(
            f"the tie points of {name} contradict each other: one is {worst:.0f} pixels from where the others put it. "
            "Check them, add more, or rectify the map first: gdalwarp -tps -r bilinear "
            f"{name} out.tif",
            actual=worst,
            limit=MAX_MISFIT * side_px,
        )
    note = (
        f"{name} is bent to its {len(points)} tie points, which are up to {misfit_px.max():.1f} pixels from any view "
        "straight from above."
    )
    return Georeference(crs, None, tuple(points), note)


def cornered(corners: Sequence[LatLon], width_px: int, height_px: int, name: str) -> Georeference:
    """Place an image by the four corners ``(lat, lon)`` of its ground, clockwise from its top-left one.

    Raises:
        InvalidFootprint: they are further from any view straight from above than a 20th of the image's side.
    """
    rows, columns = np.array([0, 0, height_px, height_px]), np.array([0, width_px, width_px, 0])
    lat, lon = np.array(corners, float).T
    lon = lon[0] + wrap_lon(lon - lon[0])  # in one piece over the antimeridian
    points = [GroundControlPoint(*map(float, point)) for point in zip(rows, columns, lon, lat, strict=True)]
    flat: Affine = from_gcps(points)
    fitted_lon, fitted_lat = Georeference(WGS84, flat).coordinates(columns.astype(float), rows.astype(float))
    misfit_m = float(np.hypot(*offset_m(lat, lon, fitted_lat, fitted_lon)).max())
    east_m, north_m = offset_m(lat[0], lon[0], lat, lon)
    area_m2 = abs(east_m @ np.roll(north_m, -1) - north_m @ np.roll(east_m, -1)) / 2  # shoelace formula
    side_m = math.sqrt(area_m2)
    if not misfit_m <= MAX_MISFIT * side_m:
        raise InvalidFootprint(
            f"The corners in {name} are {misfit_m:.1f} m from any map seen straight from above; check them, or "
            "rectify the image first."
        )
    crs, flat = _in_one_piece(WGS84, flat, width_px)
    if misfit_m <= FLAT_PX * side_m / math.sqrt(width_px * height_px):
        return Georeference(crs, flat)
    shift = flat.c - float(from_gcps(points).c)  # where longitudes are counted from the west edge
    moved = tuple(GroundControlPoint(p.row, p.col, p.x + shift, p.y) for p in points)
    note = f"the corners in {name} are up to {misfit_m:.1f} m from any view from above; the image is bent to them."
    return Georeference(crs, None, moved, note)


def _is_mirrored(transform: Affine) -> bool:
    """Whether a picture is turned over: seen from above, rows run down where columns run to the right."""
    return bool(transform.a * transform.e - transform.b * transform.d > 0)


def _misfit_px(place: Georeference, x: FloatArray, y: FloatArray, columns: FloatArray, rows: FloatArray) -> FloatArray:
    """How far each point is from where it should be, in pixels of the raster."""
    fitted_columns, fitted_rows = place.pixels(x, y)
    return np.hypot(fitted_columns - columns, fitted_rows - rows)


def _left_out(crs: CRS, points: Sequence[GroundControlPoint]) -> FloatArray:
    """How far each point is from where a spline through the others puts it, in pixels; the best two thirds count."""
    misfits = []
    step = max(1, len(points) // 50)
    for i in range(0, len(points), step):
        p, others = points[i], Georeference(crs, None, tuple(points[:i]) + tuple(points[i + 1 :]))
        misfits.append(_misfit_px(others, *(np.array([value]) for value in (p.x, p.y, float(p.col), float(p.row))))[0])
    ordered = np.sort(np.array(misfits))
    return ordered[: max(1, 2 * len(ordered) // 3)]  # those on the rim are extrapolated to


def _check_crs(crs: CRS, name: str) -> None:
    """Refuse coordinates that no projection ties to the Earth."""
    wkt = crs.to_wkt() if crs else ""
    if wkt.startswith(LOCAL) or not (crs.is_geographic or crs.is_projected):
        raise SourceUnreadable(
            f"{name} has local coordinates, which are tied to no place on Earth. If you know their system, name it: "
            f"gdal_translate -a_srs EPSG:… {name} out.tif; else give the corners: gdal_translate -a_srs EPSG:4326 "
            f"-a_ullr WEST NORTH EAST SOUTH {name} out.tif"
        )


def _in_one_piece(crs: CRS, transform: Affine, width_px: int) -> tuple[CRS, Affine]:
    """Count longitudes from the map's west edge where they would pass ±180°, and be lost on the way back."""
    west, east = sorted((transform.c, transform.c + transform.a * width_px))
    if crs.is_geographic:
        if west >= -180 and east <= 180:
            return crs, transform
        meridian = f'PRIMEM["west edge",{float(wrap_lon(west))!r}]'
        wkt = re.sub(r'PRIMEM\["Greenwich",\s*0(,AUTHORITY\["EPSG","\d+"\])?\]', meridian, crs.to_wkt())
        wkt = re.sub(r',AUTHORITY\["EPSG","\d+"\]\]$', "]", wkt)  # it is no longer what its number says
        shifted = Affine(transform.a, transform.b, transform.c - west, transform.d, transform.e, transform.f)
        return CRS.from_wkt(wkt), shifted
    edge = math.pi * MERCATOR_RADIUS_M
    if crs.to_epsg() == 3857 and (west < -edge or east > edge):
        middle = round(math.degrees((west + east) / 2 / MERCATOR_RADIUS_M), 6)
        moved = CRS.from_proj4(f"+proj=merc +a=6378137 +b=6378137 +lon_0={float(wrap_lon(middle))!r} +units=m +no_defs")
        t, shift = transform, math.radians(middle) * MERCATOR_RADIUS_M
        return moved, Affine(t.a, t.b, t.c - shift, t.d, t.e, t.f)
    return crs, transform


def mercator_of(lats: Sequence[float], lons: Sequence[float]) -> tuple[float, float, float, float]:
    """Return west, south, east and north edge of places, in Web Mercator metres and in one piece around the first."""
    east, north = to_mercator(WGS84, np.array(lons, float), np.array(lats, float))
    return float(east.min()), float(north.min()), float(east.max()), float(north.max())


def to_mercator(crs: CRS, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return Web Mercator coordinates in metres, in one piece around the first point; ``inf`` where there are none."""
    lon, lat = (np.asarray(values) for values in reproject(crs, WGS84, x.tolist(), y.tolist()))
    lon = lon[0] + wrap_lon(lon - lon[0])
    with np.errstate(invalid="ignore", divide="ignore"):
        north = MERCATOR_RADIUS_M * np.arctanh(np.sin(np.radians(lat)))
    return MERCATOR_RADIUS_M * np.radians(lon), np.where(np.abs(lat) < 89.9, north, np.inf)
