"""``/gallery/snapshots``: consistent copies of the gallery's file."""

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from service import errors
from service.ground.gallery import Gallery
from service.ground.snapshots import Snapshots
from service.http.problems import documented
from service.routes import ground_schemas as schemas

router = APIRouter(prefix="/gallery/snapshots", tags=["gallery"])

MEDIA_TYPE = "application/vnd.sqlite3"

_FILE: dict[int | str, dict[str, Any]] = {200: {"description": "an SQLite file", "content": {MEDIA_TYPE: {}}}}


@router.post(
    "",
    status_code=201,
    response_model=schemas.SnapshotState,
    responses=documented(
        errors.SnapshotsFull, errors.Overloaded, errors.StorageFull, errors.GalleryUnusable, errors.NotReady
    ),
)
async def make_snapshot(request: Request, response: Response) -> dict[str, Any]:
    """Copy the gallery into the service's folder of snapshots, while it is in use; the copy has been read and checked.

    ``aerofix gallery restore FILE`` puts one back. One is made at a time, and ``AEROFIX_MAX_SNAPSHOTS`` are kept.
    """
    gallery: Gallery = request.app.state.gallery
    snapshots: Snapshots = request.app.state.snapshots
    made = await snapshots.create(gallery.generation)
    response.headers["Location"] = f"/gallery/snapshots/{made.name}"
    return asdict(made)


@router.get("", response_model=schemas.SnapshotList)
async def list_snapshots(request: Request) -> dict[str, Any]:
    """List all snapshots, newest first."""
    snapshots: Snapshots = request.app.state.snapshots
    return {"snapshots": [asdict(each) for each in await asyncio.to_thread(snapshots.newest)]}


@router.get(
    "/{name}",
    response_class=FileResponse,
    responses=_FILE | documented(errors.SnapshotNotFound, errors.InvalidParameter),
)
async def get_snapshot(request: Request, name: str) -> FileResponse:
    """Download a snapshot."""
    snapshots: Snapshots = request.app.state.snapshots
    path, state = await asyncio.to_thread(snapshots.find, name)
    return FileResponse(path, media_type=MEDIA_TYPE, filename=name, stat_result=state)


@router.delete(
    "/{name}",
    status_code=204,
    response_class=Response,
    responses=documented(errors.SnapshotNotFound, errors.InvalidParameter, errors.GalleryUnusable),
)
async def delete_snapshot(request: Request, name: str) -> Response:
    """Remove a snapshot from the service's folder."""
    snapshots: Snapshots = request.app.state.snapshots
    await asyncio.to_thread(snapshots.delete, name)
    return Response(status_code=204)
