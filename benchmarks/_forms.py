"""The demo map, written in every form that maps come in; ``formats.py`` imports them."""

from __future__ import annotations

import io
import json
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from PIL import Image
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine, from_bounds
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window

TILE_PX = 256
WORLD_M = 2 * np.pi * 6_378_137
ZOOMS = ((17,), (18,), (19,), (17, 18, 19))

Form = Callable[[Path, Path], Path]
"""Writes the map at the first path into the folder at the second. Returns what a user would name: a file or folder."""


def forms() -> dict[str, Form]:
    """Return all forms by their names, in the order of the table."""
    found: dict[str, Form] = {
        "GeoTIFF": lambda town, out: Path(shutil.copy(town, out)),
        "COG": lambda town, out: _copy(town, out / "town.tif", driver="COG", compress="JPEG"),
        "MBTiles": lambda town, out: _copy(town, out / "town.mbtiles", driver="MBTiles", tile_format="JPEG"),
        "GeoPackage": lambda town, out: _copy(town, out / "town.gpkg", driver="GPKG"),
        "JPEG 2000": lambda town, out: _copy(town, out / "town.jp2", driver="JP2OpenJPEG"),
        "KMZ, one overlay": overlay,
        "KMZ, superoverlay": lambda town, out: _copy(town, out / "town.kmz", driver="KMLSUPEROVERLAY", format="JPEG"),
    }
    for zooms in ZOOMS:
        which = ", ".join(map(str, zooms))
        found[f"XYZ folder, zoom {which}"] = lambda town, out, zooms=zooms: tiles(town, out, zooms)
        found[f"XYZ zip, zoom {which}"] = lambda town, out, zooms=zooms: zipped(tiles(town, out, zooms))
    return found | {
        "TMS folder, tilemapresource.xml": lambda town, out: tiles(town, out, (17, 18), tms=True, describe=True),
        "TMS zip, tilemapresource.xml": lambda town, out: zipped(tiles(town, out, (17, 18), tms=True, describe=True)),
        "TMS folder, scheme=tms": lambda town, out: tiles(town, out, (17, 18), tms=True),
        "TMS zip, scheme=tms": lambda town, out: zipped(tiles(town, out, (17, 18), tms=True)),
        "CSV of nine pictures": table,
        "zip with one GeoTIFF": lambda town, out: zipped(sheets(town, out, 1)),
        "zip with nine GeoTIFFs": lambda town, out: zipped(sheets(town, out, 3)),
        "JPEG, world file, .prj": lambda town, out: photo(town, out, "prj"),
        "JPEG, .aux.xml": lambda town, out: photo(town, out, "aux"),
    }


def tiles(town: Path, out: Path, zooms: Iterable[int], tms: bool = False, describe: bool = False) -> Path:
    """Make a folder of ``z/x/y.png``, rows from the north or, as TMS has them, from the south."""
    folder = out / "town"
    with rasterio.open(town) as source:
        west, south, east, north = transform_bounds(source.crs, "EPSG:3857", *source.bounds)
        for z in zooms:
            side_m = WORLD_M / 2**z
            columns = range(*_tiles_between(west, east, side_m))
            rows = range(*_tiles_between(-north, -south, side_m))
            for x in columns:
                for y in rows:
                    left, top = x * side_m - WORLD_M / 2, WORLD_M / 2 - y * side_m
                    place = from_bounds(left, top - side_m, left + side_m, top, TILE_PX, TILE_PX)
                    tile = _warped(source, "EPSG:3857", place, TILE_PX, TILE_PX)
                    path = folder / str(z) / str(x) / f"{2**z - 1 - y if tms else y}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    tile.save(path)
    if describe:
        sets = "".join(f'<TileSet href="{z}" units-per-pixel="{WORLD_M / 2**z / TILE_PX}" order="{z}"/>' for z in zooms)
        (folder / "tilemapresource.xml").write_text(
            f'<TileMap version="1.0.0"><Title>town</Title><SRS>EPSG:3857</SRS><BoundingBox minx="{west}" '
            f'miny="{south}" maxx="{east}" maxy="{north}"/><Origin x="{west}" y="{south}"/>'
            f'<TileFormat width="256" height="256" mime-type="image/png" extension="png"/>'
            f'<TileSets profile="mercator">{sets}</TileSets></TileMap>'
        )
    return folder


def table(town: Path, out: Path) -> Path:
    """Make nine pictures of 206 m, and the CSV of their corners as wildnav has it."""
    folder = out / "town"
    folder.mkdir()
    lines = ["Filename,Top_left_lat,Top_left_lon,Bottom_right_lat,Bottom_right_long"]
    with rasterio.open(town) as source:
        west, south, east, north = transform_bounds(source.crs, "EPSG:4326", *source.bounds)
        side = source.width // 3
        for i, j in np.ndindex(3, 3):
            w, e = (west + (east - west) * step / 3 for step in (j, j + 1))
            n, s = (north - (north - south) * step / 3 for step in (i, i + 1))
            picture = _warped(source, "EPSG:4326", from_bounds(w, s, e, n, side, side), side, side).convert("RGB")
            picture.save(folder / f"sat_map_{i}{j}.jpg", quality=92)
            lines.append(f"sat_map_{i}{j}.jpg,{n:.8f},{w:.8f},{s:.8f},{e:.8f}")
    (folder / "map.csv").write_text("\n".join(lines))
    return folder / "map.csv"


def sheets(town: Path, out: Path, count: int) -> Path:
    """Make a folder of ``count`` squared GeoTIFFs side by side."""
    folder = out / "town"
    folder.mkdir()
    with rasterio.open(town) as source:
        width, height = source.width // count, source.height // count
        for i, j in np.ndindex(count, count):
            window = Window(j * width, i * height, width, height)
            place = source.transform @ Affine.translation(j * width, i * height)
            profile: dict[str, Any] = {"width": width, "height": height, "count": 3, "dtype": "uint8"}
            with rasterio.open(
                folder / f"{i}{j}.tif", "w", "GTiff", crs=source.crs, transform=place, **profile
            ) as file:
                file.write(source.read(window=window))
    return folder


def photo(town: Path, out: Path, beside: str) -> Path:
    """Make a JPEG with a world file and a ``.prj`` beside it, or with an ``.aux.xml``."""
    with rasterio.open(town) as source:
        _picture(source.read()).save(out / "town.jpg", quality=92)
        place, wkt = source.transform, source.crs.to_wkt()
    if beside == "aux":
        (out / "town.jpg.aux.xml").write_text(
            f"<PAMDataset><SRS>{wkt}</SRS><GeoTransform>{', '.join(map(str, place.to_gdal()))}</GeoTransform>"
            "</PAMDataset>"
        )
    else:
        corner = place @ Affine.translation(0.5, 0.5)
        (out / "town.jgw").write_text("\n".join(map(str, (place.a, place.d, place.b, place.e, corner.c, corner.f))))
        (out / "town.prj").write_text(wkt)
    return out / "town.jpg"


def overlay(town: Path, out: Path) -> Path:
    """Make a KMZ with one ground overlay."""
    with rasterio.open(town) as source:
        west, south, east, north = transform_bounds(source.crs, "EPSG:4326", *source.bounds)
        place = from_bounds(west, south, east, north, source.width, source.height)
        picture = io.BytesIO()
        _warped(source, "EPSG:4326", place, source.width, source.height).save(picture, "PNG")
    kml = (
        '<kml xmlns="http://www.opengis.net/kml/2.2"><GroundOverlay><Icon><href>files/town.png</href></Icon><LatLonBox>'
        f"<north>{north}</north><south>{south}</south><east>{east}</east><west>{west}</west></LatLonBox>"
        "</GroundOverlay></kml>"
    )
    with zipfile.ZipFile(out / "town.kmz", "w") as archive:
        archive.writestr("doc.kml", kml)
        archive.writestr("files/town.png", picture.getvalue())
    return out / "town.kmz"


def zipped(path: Path) -> Path:
    """Zip a folder, or all that lies in the folder of a file; named like it, and beside that folder."""
    folder = path if path.is_dir() else path.parent
    return Path(shutil.make_archive(str(folder.parent / path.stem), "zip", folder))


def truths(examples: Path) -> dict[str, tuple[float, float]]:
    """Return latitude and longitude of the ground point at the centre of each demo photo."""
    entries = json.loads((examples / "truth.json").read_text())
    return {entry["file"]: (entry["position"]["lat"], entry["position"]["lon"]) for entry in entries}


def _copy(town: Path, target: Path, **options: str) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        rasterio.shutil.copy(town, target, **options)
    return target


def _warped(source: Any, crs: str, place: Affine, width: int, height: int) -> Image.Image:
    """A north-up rectangle of an open raster in another projection, transparent around it."""
    grid: dict[str, Any] = {"transform": place, "width": width, "height": height, "crs": crs}
    with WarpedVRT(source, resampling=Resampling.bilinear, tolerance=0.02, add_alpha=True, **grid) as warped:
        return _picture(warped.read())


def _picture(bands: np.ndarray[Any, Any]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(np.moveaxis(bands, 0, 2)))


def _tiles_between(first_m: float, last_m: float, side_m: float) -> tuple[int, int]:
    """First tile and the one after the last, between two distances from the middle of the world."""
    return int((first_m + WORLD_M / 2) // side_m), int(np.ceil((last_m + WORLD_M / 2) / side_m))
