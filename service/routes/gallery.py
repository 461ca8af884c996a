"""``POST /gallery`` adds tiles, ``GET /gallery`` describes what is there."""

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile

from service import errors
from service.errors import InvalidParameter
from service.ground.gallery import Gallery, NewTile
from service.ground.tile import MAX_PROPERTIES_BYTES
from service.http.problems import documented, problem_of
from service.importing.tiles import TileMaker
from service.routes import schemas
from service.routes.uploads import gather_limited
from service.telemetry import step

router = APIRouter(prefix="/gallery", tags=["gallery"])

# An entry of ``tiles`` with all that it may hold: JSON may write a character in three times the bytes that it has in
# UTF-8, which is how properties are measured; beside them an id and corners.
MAX_ENTRY_BYTES = 3 * MAX_PROPERTIES_BYTES + 2048

# These say nothing about a tile but that the service has no time now: the whole request is to be sent again.
_TRY_AGAIN = (errors.Overloaded, errors.DeadlineExceeded, errors.NotReady)


@router.post(
    "",
    response_model=schemas.TilesAdded,
    response_model_exclude_none=True,
    responses=documented(
        errors.MissingParameter,
        errors.InvalidParameter,
        errors.BodyTooLarge,
        errors.StorageFull,
        errors.GalleryUnusable,
        *_TRY_AGAIN,
    ),
)
async def add_tiles(
    request: Request,
    image: Annotated[list[UploadFile], File(description="one image a tile: JPEG, PNG, WebP or TIFF")],
    tiles: Annotated[
        str,
        Form(
            description="JSON array with one object an image, in their order: an optional `id` (an existing tile of "
            'this id is replaced), optional `properties`, and one of `{"bounds": [w, s, e, n]}`, `{"corners": '
            '[[lat, lon], …]}` (four, clockwise from top-left), `{"lat", "lon", "gsd_m"}`, `{"z", "x", "y"}`.',
            examples=['[{"id": "fengyuan/r03c07", "bounds": [120.718, 24.2595, 120.7192, 24.2605]}]'],
        ),
    ],
) -> schemas.TilesAdded:
    """Add tiles, or replace those with the same id; a bad one carries its problem and does not stop the others.

    A tile that is answered as added or updated is on disk and survives whatever happens a moment later.
    """
    gallery: Gallery = request.app.state.gallery
    maker: TileMaker = request.app.state.tile_maker
    entries = _entries(tiles, len(image), maker.settings.max_images)

    async def make(pair: tuple[UploadFile, Any]) -> NewTile:
        upload, entry = pair
        return await maker.make(await upload.read(), entry)

    made = await gather_limited(list(zip(image, entries, strict=True)), make, maker.settings.max_batch)
    for error in made:
        if isinstance(error, _TRY_AGAIN):
            raise error
    good = [tile for tile in made if isinstance(tile, NewTile)]
    with step("store"):
        statuses = iter(await asyncio.to_thread(gallery.upsert, good))
    results = [
        _failed(entry, each)
        if isinstance(each, Exception)
        else schemas.TileResult(id=each.tile.id, status=next(statuses))
        for entry, each in zip(entries, made, strict=True)
    ]
    counts = {status: sum(result.status == status for result in results) for status in ("added", "updated", "failed")}
    return schemas.TilesAdded(**counts, tiles=results, count=gallery.count(), generation=gallery.generation)


@router.get("", response_model=schemas.GalleryState, responses=documented(errors.GalleryUnusable))
async def describe(request: Request) -> dict[str, Any]:
    """Count, bounds, generation, model identity and index of the gallery."""
    gallery: Gallery = request.app.state.gallery
    return vars(await asyncio.to_thread(gallery.info))


def _entries(tiles: str, images: int, max_images: int) -> list[Any]:
    try:
        entries = json.loads(tiles)
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"tiles must be a JSON array ({error}).") from error
    if not isinstance(entries, list) or len(entries) != images:
        raise InvalidParameter(
            f"tiles must be a JSON array with one object for each of the {images} images.",
            limit=images,
            actual=len(entries) if isinstance(entries, list) else 1,
        )
    if images > max_images:
        raise InvalidParameter(f"send at most {max_images} images at once.", limit=max_images, actual=images)
    return entries


def _failed(entry: Any, error: Exception) -> schemas.TileResult:
    given = entry.get("id") if isinstance(entry, dict) else None
    # JSON can write half a character, which no answer can hold
    shown = given.encode(errors="replace").decode() if isinstance(given, str) else None
    return schemas.TileResult(id=shown, status="failed", problem=problem_of(error))
