"""Heights of the ground out of a raster: a surface or a terrain model, one band, in metres or in stated feet."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from service.errors import SourceUnreadable
from service.geo import Bounds, metres_per_degree
from service.ground.elevation import Elevation, Grid
from service.maps.gdal import calling, open_raster
from service.maps.place import LOCAL

CELL_M = 5.0
"""Heights are kept no finer: a camera 100 m up sees no further for it, and a map of 1 km² takes 160 kB."""

MAX_CELLS = 4_000_000
"""A grid has at most so many cells (100 km² at 5 m, 16 MB); beyond, they become larger."""

MARGIN_M = 300.0
"""Heights are kept so far around the map: a camera that looks at its edge may stand outside."""

LOWEST_M, HIGHEST_M = -500.0, 9_000.0
"""The Dead Sea's shore lies at -430 m, Mount Everest at 8,849 m; other values mean that nobody knows."""

VOID = -99_999.0
"""This stands for heights that nobody knows while GDAL warps."""

FOOT_M, SURVEY_FOOT_M = 0.3048, 1200 / 3937
_UNITS = {
    **dict.fromkeys(("m", "meter", "metre", "meters", "metres"), 1.0),
    **dict.fromkeys(("ft", "foot", "feet", "international foot"), FOOT_M),
    **dict.fromkeys(("us survey foot", "us survey feet", "us-ft", "ftus", "foot_us", "us foot"), SURVEY_FOOT_M),
}


def read_elevation(path: Path, name: str, bounds: Bounds) -> tuple[Elevation, list[str]]:
    """Read the heights of a map's ground.

    Args:
        path: a raster that GDAL reads, in any coordinate system.
        name: what the user calls it.
        bounds: ``(west, south, east, north)`` of the map.

    Returns:
        The heights, on a grid over the map and a little around it, and what the user should know, in sentences.

    Raises:
        SourceUnreadable: it holds no heights, not of this ground, or in a unit that cannot be told; says the fix.
    """
    dataset = open_raster(path, name)
    with calling(name, path), dataset:
        factor, grid = _metres_of_one(dataset, name), _grid(dataset, bounds)
        heights, scale, offset = _warped(dataset, *grid), float(dataset.scales[0]), float(dataset.offsets[0])
    notes = []
    known = heights != VOID
    heights = np.where(known, (heights * scale + offset) * factor, np.nan).astype(np.float32)
    wild = known & ~((heights >= LOWEST_M) & (heights <= HIGHEST_M))
    if wild.any():
        heights[wild] = np.nan
        notes.append(
            f"{name} has {int(wild.sum())} heights outside {LOWEST_M:.0f} to {HIGHEST_M:.0f} m; they count as unknown. "
            f"If they stand for gaps, say so: gdal_edit.py -a_nodata VALUE {name}"
        )
    inside = _inside(bounds, *grid)
    covers = float(np.isfinite(heights[inside]).mean()) if inside.any() else 0.0
    if covers == 0:
        raise SourceUnreadable(
            f"{name} has no heights on the map's ground (west, south, east, north: "
            f"{', '.join(f'{edge:.5f}' for edge in bounds)}). Check that it is the right file and has its coordinate "
            f"system: gdalinfo {name}"
        )
    if covers < 0.99:
        notes.append(f"{name} has heights on {covers:.0%} of the map; elsewhere its ground counts as level.")
    low, high = float(np.nanmin(heights)), float(np.nanmax(heights))
    return Elevation(Grid(name, *grid[:4], low, high, round(covers, 4)), heights), notes


def check_is_picture(dataset: Any, name: str) -> None:
    """Refuse a map that is an elevation, and says so: by the unit of its one band, or by its coordinate system.

    Raises:
        SourceUnreadable: as said; with the fix.
    """
    if dataset.count == 1 and (unit := _stated_unit(dataset)) and _factor(unit) is not None:
        raise SourceUnreadable(
            f"{name} holds heights (one band, in {unit!r:.40}), which are no picture. Add them to a map that shows the "
            f"same ground: aerofix map add --map NAME --elevation {name} (POST /maps/NAME/elevation). If it is a "
            f"picture all the same, take the unit away: gdal_edit.py -units '' -a_srs EPSG:… {name}"
        )


def _grid(dataset: Any, bounds: Bounds) -> tuple[float, float, float, float, int, int]:
    """West, north, steps and shape of the grid for a map: about as fine as the raster, no finer than ``CELL_M``."""
    west, south, east, north = bounds
    east = east if east >= west else east + 360
    lon_m, lat_m = (float(metres) for metres in metres_per_degree((south + north) / 2))
    across_m, down_m = (east - west) * lon_m + 2 * MARGIN_M, (north - south) * lat_m + 2 * MARGIN_M
    own_m = math.sqrt(abs(dataset.transform.determinant)) * (lat_m if dataset.crs.is_geographic else 1.0)
    cell_m = max(CELL_M, min(own_m, max(across_m, down_m) / 8), math.sqrt(across_m * down_m / MAX_CELLS))
    columns, rows = math.ceil(across_m / cell_m) + 1, math.ceil(down_m / cell_m) + 1
    return west - MARGIN_M / lon_m, min(north + MARGIN_M / lat_m, 90.0), cell_m / lon_m, cell_m / lat_m, rows, columns


def _warped(
    dataset: Any, west: float, north: float, step_lon: float, step_lat: float, rows: int, columns: int
) -> NDArray[np.float32]:
    """Heights at the grid's points in the raster's own unit, ``VOID`` where it has none; in two parts across 180°."""
    turn = min(columns, max(0, math.ceil((180 - west) / step_lon)))
    parts = [(west, turn), (west + turn * step_lon - 360, columns - turn)]
    read = []
    for start, count in parts:
        if count:
            options = {
                "crs": "EPSG:4326",
                "transform": Affine(step_lon, 0, start - step_lon / 2, 0, -step_lat, north + step_lat / 2),
                "width": count,
                "height": rows,
                "resampling": Resampling.bilinear,  # GDAL widens it where the raster is finer than the grid
                "src_nodata": dataset.nodata,
                "nodata": VOID,
                "dtype": "float32",
            }
            with WarpedVRT(dataset, **options) as view:
                read.append(view.read(1, masked=True).filled(VOID))
    heights = np.hstack(read)
    heights[~np.isfinite(heights)] = VOID
    return np.asarray(heights, np.float32)


def _inside(
    bounds: Bounds, west: float, north: float, step_lon: float, step_lat: float, rows: int, columns: int
) -> NDArray[np.bool_]:
    """Which points of the grid lie on the map itself."""
    w, s, e, n = bounds
    lat, lon = north - step_lat * np.arange(rows), west + step_lon * np.arange(columns)
    e = e if e >= w else e + 360
    inside: NDArray[np.bool_] = ((lat >= s) & (lat <= n))[:, None] & ((lon >= w) & (lon <= e))
    return inside


def _metres_of_one(dataset: Any, name: str) -> float:
    """Metres of one unit of the heights; also refuses what holds none.

    The band's own unit counts, then that of the vertical coordinate system. A system in feet on the map alone says
    nothing of the heights, which may be either.
    """
    if dataset.count != 1:
        raise SourceUnreadable(
            f"{name} has {dataset.count} bands, an elevation has one. Keep that of the heights: gdal_translate -b 1 "
            f"{name} heights.tif"
        )
    if dataset.crs is None or str(dataset.crs.to_wkt()).startswith(LOCAL):
        raise SourceUnreadable(
            f"{name} does not say where on Earth it lies. Write its coordinate system into it: gdal_translate -a_srs "
            f"EPSG:NUMBER {name} heights.tif"
        )
    stated = _stated_unit(dataset)
    fix = f"State the unit of its heights (m or ft): gdal_edit.py -units m {name}"
    if not stated:
        if dataset.crs.is_projected and not math.isclose(dataset.crs.linear_units_factor[1], 1.0):
            raise SourceUnreadable(f"{name} lies in a system of feet and does not say what its heights are in. {fix}")
        return 1.0
    factor = _factor(stated)
    if factor is None:
        raise SourceUnreadable(f"the heights of {name} are in {stated!r:.40}, which is not known here. {fix}")
    return factor


def _stated_unit(dataset: Any) -> str:
    """The unit that the first band names, or else the vertical coordinate system; empty when neither does."""
    wkt = dataset.crs.to_wkt() if dataset.crs else ""
    vertical = re.search(r'VERT(?:ICAL)?_?CR?S\[.*?UNIT\["([^"]+)"', wkt, re.DOTALL)
    return (dataset.units[0] or "").strip() or ("" if vertical is None else vertical[1])


def _factor(unit: str) -> float | None:
    """Metres of one of a unit of length; None for others."""
    return _UNITS.get(unit.lower().replace("_", " ").strip()) or _UNITS.get(unit.lower())
