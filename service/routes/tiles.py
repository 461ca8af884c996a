"""``/gallery/tiles``: look at tiles one by one or by area, and delete them."""

import asyncio
import hashlib
import math
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BeforeValidator

from service import errors
from service.errors import InvalidParameter, TileNotFound
from service.geo import Bounds
from service.ground.gallery import Gallery
from service.ground.tile import Tile
from service.http.problems import documented
from service.routes import ground_schemas as schemas

router = APIRouter(prefix="/gallery/tiles", tags=["gallery"])

MAX_PAGE = 1000

DEFAULT_PAGE = 100


def _unless_empty(default: object) -> BeforeValidator:
    """``limit=`` counts as left out, as an empty field of a form does."""
    return BeforeValidator(lambda value: default if value == "" else value)


Bbox = Annotated[
    str,
    Query(
        description="west,south,east,north in degrees: tiles whose centre lies inside; west above east crosses the "
        "antimeridian",
        examples=["120.70,24.25,120.73,24.27"],
    ),
]
_IMAGE: dict[int | str, dict[str, Any]] = {
    200: {"description": "the image", "content": {"image/jpeg": {}, "image/webp": {}}},
    304: {"description": "unchanged"},
}


@router.get("", response_model=schemas.TilePage, responses=documented(errors.InvalidParameter, errors.GalleryUnusable))
async def list_tiles(
    request: Request,
    bbox: Bbox | None = None,
    limit: Annotated[
        int, _unless_empty(DEFAULT_PAGE), Query(ge=1, le=MAX_PAGE, description="tiles a page")
    ] = DEFAULT_PAGE,
    cursor: Annotated[
        str,
        _unless_empty("0"),
        Query(pattern=r"^\d{1,18}$", description="that of the page before; left out for the first"),
    ] = "0",
) -> schemas.TilePage:
    """List tiles in the order in which they were added; one that is there throughout is on exactly one page."""
    gallery: Gallery = request.app.state.gallery
    bounds = None if bbox is None else parse_bbox(bbox)
    page = await asyncio.to_thread(gallery.page, bounds, limit, int(cursor))
    after = None if page.cursor is None else str(page.cursor)
    return schemas.TilePage(tiles=[_described(tile) for tile in page.tiles], cursor=after)


@router.delete(
    "",
    response_model=schemas.TilesDeleted,
    responses=documented(
        errors.InvalidParameter,
        errors.MissingParameter,
        errors.GalleryReadOnly,
        errors.GalleryUnusable,
        errors.StorageFull,
    ),
)
async def delete_area(request: Request, bbox: Bbox) -> schemas.TilesDeleted:
    """Delete the tiles whose centre lies in an area."""
    gallery: Gallery = request.app.state.gallery
    deleted = await asyncio.to_thread(gallery.delete_in, parse_bbox(bbox))
    return _left(gallery, deleted)


@router.get(
    "/{tile_id:path}/image",
    response_class=Response,
    responses=_IMAGE | documented(errors.TileNotFound, errors.InvalidParameter, errors.GalleryUnusable),
)
async def get_image(request: Request, tile_id: str) -> Response:
    """Return the tile's image, JPEG or WebP, at most as fine as the gallery keeps it, with an ETag."""
    gallery: Gallery = request.app.state.gallery
    image = await asyncio.to_thread(gallery.image, tile_id)
    if image is None:
        if gallery.tile(f"{tile_id}/image") is not None:  # a tile may be called so
            found = await get_tile(request, f"{tile_id}/image")
            return Response(found.model_dump_json(), media_type="application/json")
        raise _unknown(tile_id)
    tag = f'"{hashlib.sha256(image).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}  # may be kept, is to be asked for again: tiles change
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    kind = "image/jpeg" if image.startswith(b"\xff\xd8") else "image/webp"
    return Response(image, media_type=kind, headers=headers)


@router.get(
    "/{tile_id:path}",
    response_model=schemas.StoredTile,
    responses=documented(errors.TileNotFound, errors.InvalidParameter),
)
async def get_tile(request: Request, tile_id: str) -> schemas.StoredTile:
    """Return a tile's footprint and properties; slashes in its id need no escaping."""
    gallery: Gallery = request.app.state.gallery
    tile = gallery.tile(tile_id)
    if tile is None:
        raise _unknown(tile_id)
    return _described(tile)


@router.delete(
    "/{tile_id:path}",
    response_model=schemas.TilesDeleted,
    responses=documented(
        errors.TileNotFound, errors.InvalidParameter, errors.GalleryReadOnly, errors.GalleryUnusable, errors.StorageFull
    ),
)
async def delete_tile(request: Request, tile_id: str) -> schemas.TilesDeleted:
    """Delete a tile; no photo finds it from then on."""
    gallery: Gallery = request.app.state.gallery
    deleted = await asyncio.to_thread(gallery.delete, [tile_id])
    if not deleted:
        raise _unknown(tile_id)
    return _left(gallery, deleted)


def parse_bbox(bbox: str) -> Bounds:
    """Read ``w,s,e,n``.

    Raises:
        InvalidParameter: not four numbers, or not a box on Earth.
    """
    try:
        west, south, east, north = (float(part) for part in bbox.split(","))
    except ValueError:
        raise InvalidParameter(f"bbox is {bbox!r:.100}; give west,south,east,north in degrees.") from None
    if not (all(map(math.isfinite, (west, east))) and -180 <= west <= 180 and -180 <= east <= 180):
        raise InvalidParameter(f"bbox has west {west} and east {east}; give longitudes from -180 to 180.")
    if not -90 <= south <= north <= 90:
        raise InvalidParameter(f"bbox has south {south} and north {north}; give -90 to 90, south first.")
    return west, south, east, north


def _described(tile: Tile) -> schemas.StoredTile:
    footprint = tile.footprint
    lat, lon = footprint.centre
    return schemas.StoredTile(
        id=tile.id,
        lat=lat,
        lon=lon,
        bounds=footprint.bounds,
        corners=list(footprint.corners),
        gsd_m=footprint.gsd_m,
        properties=dict(tile.properties),
    )


def _left(gallery: Gallery, deleted: int) -> schemas.TilesDeleted:
    return schemas.TilesDeleted(deleted=deleted, count=gallery.count(), generation=gallery.generation)


def _unknown(tile_id: str) -> TileNotFound:
    return TileNotFound(f"there is no tile {tile_id!r:.220}; GET /gallery/tiles lists them.")
