"""``/maps``: the maps of the gallery, and their pixels as tiles that any map viewer shows."""

import asyncio
import hashlib
import io
from functools import cache
from typing import Any

from fastapi import APIRouter, Request, Response
from PIL import Image

from service import errors
from service.errors import TileNotFound
from service.geo import MAX_ZOOM, metres_per_degree
from service.ground.gallery import Gallery
from service.ground.maps import GroundMap
from service.ground.windows import TILE_PX
from service.http.prefix import PREFIX
from service.http.problems import documented
from service.importing.jobs import Importer
from service.routes import ground_schemas as schemas

router = APIRouter(prefix="/maps", tags=["maps"])

_TILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "256 x 256 pixels, transparent where the map shows nothing", "content": {"image/webp": {}}},
    304: {"description": "unchanged"},
}


@router.get("", response_model=schemas.MapList, responses=documented(errors.GalleryUnusable))
async def list_maps(request: Request) -> schemas.MapList:
    """List all maps, in the order in which they were added."""
    gallery: Gallery = request.app.state.gallery
    described = [await asyncio.to_thread(_described, gallery, known) for known in gallery.maps.all()]
    return schemas.MapList(maps=described)


@router.get(
    "/{map}",
    response_model=schemas.MapState,
    responses=documented(errors.MapNotFound, errors.InvalidParameter, errors.GalleryUnusable),
)
async def get_map(request: Request, map: str) -> schemas.MapState:
    """Describe one map."""
    gallery: Gallery = request.app.state.gallery
    return await asyncio.to_thread(_described, gallery, gallery.maps.get(map))


@router.delete(
    "/{map}",
    response_model=schemas.MapDeleted,
    responses=documented(
        errors.MapNotFound, errors.InvalidParameter, errors.GalleryReadOnly, errors.GalleryUnusable, errors.StorageFull
    ),
)
async def delete_map(request: Request, map: str) -> schemas.MapDeleted:
    """Delete a map, and end the imports that add to it; no photo finds it from then on."""
    gallery: Gallery = request.app.state.gallery
    importer: Importer = request.app.state.importer
    deleted = await importer.delete_map(map)
    return schemas.MapDeleted(map=map, deleted=deleted, count=gallery.count(), generation=gallery.generation)


@router.get("/{map}/tilejson.json", responses=documented(errors.MapNotFound, errors.InvalidParameter))
async def tilejson(request: Request, map: str) -> dict[str, Any]:
    """Tell map viewers what they ask for first (TileJSON 3.0.0): where the tiles are, their zooms and bounds."""
    gallery: Gallery = request.app.state.gallery
    known = gallery.maps.get(map)
    west, south, east, north = known.bounds
    east = east if east >= west else east + 360
    here = str(request.url.replace(path=request.scope[PREFIX] + request.url.path, query=""))
    return {
        "tilejson": "3.0.0",
        "name": known.name,
        "scheme": "xyz",
        "tiles": [f"{here.removesuffix('tilejson.json')}{{z}}/{{x}}/{{y}}.webp"],
        "minzoom": known.min_zoom,
        "maxzoom": known.max_zoom,
        "bounds": [west, south, east, north],
        "center": [(west + east) / 2, (south + north) / 2, known.max_zoom],
    }


@router.get(
    "/{map}/{z}/{x}/{y}.webp",
    response_class=Response,
    responses=_TILE
    | documented(errors.MapNotFound, errors.InvalidParameter, errors.TileNotFound, errors.GalleryUnusable),
)
async def get_map_tile(request: Request, map: str, z: int, x: int, y: int) -> Response:
    """Return a tile of the map's pixels in the XYZ scheme, with an ETag."""
    gallery: Gallery = request.app.state.gallery
    known = gallery.maps.get(map)
    if not (0 <= z <= MAX_ZOOM and 0 <= x < 2**z and 0 <= y < 2**z):
        raise TileNotFound(f"there is no tile {z}/{x}/{y}: zooms go from 0 to {MAX_ZOOM}, x and y from 0 to 2^z - 1.")
    image = await asyncio.to_thread(gallery.maps.tile, known, z, x, y) or nothing()
    tag = f'"{hashlib.sha256(image).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}  # may be kept, is to be asked for again: maps change
    seen = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if tag in seen or "*" in seen:
        return Response(status_code=304, headers=headers)
    return Response(image, media_type="image/webp", headers=headers)


@cache
def nothing() -> bytes:
    """Make a transparent tile."""
    out = io.BytesIO()
    Image.new("RGBA", (TILE_PX, TILE_PX), (0, 0, 0, 0)).save(out, "WEBP", lossless=True)
    return out.getvalue()


def elevation_of(gallery: Gallery, known: GroundMap) -> schemas.ElevationState | None:
    """Tell how high a map's ground is."""
    grid = gallery.maps.elevation_grid(known)
    if grid is None:
        return None
    step_m = grid.step_lat * float(metres_per_degree(known.lat)[1])
    told = {name: round(value, 2) for name, value in (("low_m", grid.low_m), ("high_m", grid.high_m))}
    return schemas.ElevationState(origin=grid.origin, covers=grid.covers, step_m=round(step_m, 2), **told)


def _described(gallery: Gallery, known: GroundMap) -> schemas.MapState:
    sides_m = [round(gallery.lattice.side_m(zoom, known.lat), 1) for zoom in known.levels]
    return schemas.MapState(
        name=known.name,
        origin=known.origin,
        bounds=known.bounds,
        gsd_m=known.gsd_m,
        date=known.date,
        windows=gallery.maps.windows(known),
        levels=[
            schemas.MapLevel(zoom=zoom, window_m=side_m) for zoom, side_m in zip(known.levels, sides_m, strict=True)
        ],
        minzoom=known.min_zoom,
        maxzoom=known.max_zoom,
        bytes=gallery.maps.size_bytes(known),
        elevation=elevation_of(gallery, known),
        created_at=known.created_at,
    )
