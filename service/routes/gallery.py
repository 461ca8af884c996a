"""``POST /gallery`` adds tiles, ``GET /gallery`` describes what is there."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile

from service import errors
from service.errors import InvalidParameter
from service.ground.gallery import Gallery
from service.ground.records import NewTile
from service.ground.tile import MAX_PROPERTIES_BYTES
from service.http.problems import documented, problem_of
from service.importing.tiles import TileMaker
from service.routes import ground_schemas as schemas
from service.routes.uploads import gather_limited
from service.telemetry import step
from service.threads import Threads

router = APIRouter(prefix="/gallery", tags=["gallery"])

# An entry of ``tiles`` with all that it may hold: JSON may write a character in three times the bytes that it has in
# UTF-8, which is how properties are measured; beside them an id and corners.
MAX_ENTRY_BYTES = 3 * MAX_PROPERTIES_BYTES + 2048

_SPACE = re.compile(r"[ \t\n\r]*")

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
        errors.GalleryReadOnly,
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
    entries = await _entries(tiles, len(image), maker.settings.max_images)

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
async def describe_gallery(request: Request) -> dict[str, Any]:
    """Count, bounds, generation, model identity and index of the gallery."""
    gallery: Gallery = request.app.state.gallery
    watchers: Threads = request.app.state.watchers
    return vars(await watchers.run(gallery.info))


async def _entries(tiles: str, images: int, max_images: int) -> list[Any]:
    """Read the array entry by entry, and let others have the event loop in between.

    Raises:
        InvalidParameter: it is not one of as many entries as there are images, or there are too many.
    """
    if images > max_images:
        raise InvalidParameter(f"send at most {max_images} images at once.", limit=max_images, actual=images)
    wanted = f"tiles must be a JSON array with one object for each of the {images} images"
    entries: list[Any] = []
    try:
        for entry in _read_array(tiles):
            entries.append(entry)
            if len(entries) > images:
                break
            await asyncio.sleep(0)
    except (ValueError, RecursionError) as error:
        told = f"{wanted}; entry {len(entries)} is none, or has more than {MAX_ENTRY_BYTES} characters ({error})."
        raise InvalidParameter(told, limit=MAX_ENTRY_BYTES) from error
    if len(entries) != images:
        raise InvalidParameter(f"{wanted}.", limit=images, actual=len(entries))
    return entries


def _read_array(text: str) -> Iterator[Any]:
    """The entries of a JSON array, each of at most ``MAX_ENTRY_BYTES`` characters.

    Raises:
        ValueError, RecursionError: the text is something else.
    """
    decoder, at = json.JSONDecoder(), _after_space(text, 0)
    mark, end = text[at : at + 1], _after_space(text, at + 1)
    if mark == "[" and text[end : end + 1] == "]":
        mark, at = "]", end
    while mark == "[" or mark == ",":
        at = _after_space(text, at + 1)
        entry, length = decoder.raw_decode(text[at : at + MAX_ENTRY_BYTES])
        yield entry
        at = _after_space(text, at + length)
        mark = text[at : at + 1]
    if mark != "]" or _after_space(text, at + 1) != len(text):
        raise ValueError(f"unexpected at character {at}")


def _after_space(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # matches anywhere


def _failed(entry: Any, error: Exception) -> schemas.TileResult:
    given = entry.get("id") if isinstance(entry, dict) else None
    # JSON can write half a character, which no answer can hold
    shown = given.encode(errors="replace").decode() if isinstance(given, str) else None
    return schemas.TileResult(id=shown, status="failed", problem=problem_of(error))
