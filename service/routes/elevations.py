"""``/maps/{map}/elevation``: how high the ground of a map is."""

import asyncio
from pathlib import Path

from fastapi import APIRouter, Request

from service import errors
from service.ground.gallery import Gallery
from service.ground.store.imports import new_import_id
from service.http.multipart import save_form
from service.http.problems import documented
from service.importing.jobs import Importer
from service.maps.elevation import read_elevation
from service.routes import ground_schemas as schemas
from service.routes.imports import base_name, form_with_file, room_for
from service.routes.maps import elevation_of

PATTERN = r"/maps/[^/]+/elevation"
"""Its paths look like this: what is sent there may be as large as a map."""

router = APIRouter(prefix="/maps", tags=["maps"])

_BODY = form_with_file(
    "a surface or terrain model: a raster of one band, metres above sea level (feet if it says so), in any coordinate "
    "system"
)


@router.post(
    "/{map}/elevation",
    response_model=schemas.ElevationAdded,
    openapi_extra=_BODY,
    responses=documented(
        errors.MissingParameter,
        errors.InvalidParameter,
        errors.MapNotFound,
        errors.SourceUnreadable,
        errors.BodyTooLarge,
        errors.StorageFull,
        errors.GalleryReadOnly,
        errors.GalleryUnusable,
    ),
)
async def add_elevation(request: Request, map: str) -> schemas.ElevationAdded:
    """Say how high the ground of a map is: cameras over hills are then placed right.

    It is kept with the map, in steps of 5 m or more, in the place of what was told before, and goes when the map is
    deleted or replaced.
    """
    gallery: Gallery = request.app.state.gallery
    importer: Importer = request.app.state.importer
    known = gallery.maps.get(map)
    path = await asyncio.to_thread(room_for, importer, new_import_id(), request.headers.get("content-length", ""))
    try:
        form = await save_form(request, "file", [], path)

        def store() -> list[str]:
            elevation, notes = read_elevation(path, base_name(form.file_name), known.bounds)
            gallery.maps.put_elevation(known, elevation)
            return notes

        notes = await asyncio.to_thread(store)
    finally:
        await asyncio.to_thread(Path.unlink, path, missing_ok=True)
    told = await asyncio.to_thread(elevation_of, gallery, known)
    if told is None:
        raise errors.MapNotFound(f"the map {map!r:.120} was deleted meanwhile.")
    return schemas.ElevationAdded(map=map, warnings=notes, generation=gallery.generation, **told.model_dump())


@router.delete(
    "/{map}/elevation",
    response_model=schemas.ElevationDeleted,
    responses=documented(
        errors.MapNotFound, errors.InvalidParameter, errors.GalleryReadOnly, errors.GalleryUnusable, errors.StorageFull
    ),
)
async def delete_elevation(request: Request, map: str) -> schemas.ElevationDeleted:
    """Forget how high the ground of a map is: it counts as level again."""
    gallery: Gallery = request.app.state.gallery
    known = gallery.maps.get(map)
    there = await asyncio.to_thread(gallery.maps.elevation_grid, known) is not None
    await asyncio.to_thread(gallery.maps.put_elevation, known, None)
    return schemas.ElevationDeleted(map=map, deleted=there, generation=gallery.generation)
