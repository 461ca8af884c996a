"""``/gallery/imports``: whole maps, added in the background."""

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError, field_validator

from service import errors
from service.errors import StorageFull, disk_error
from service.ground.maps import MAX_NAME_LENGTH
from service.ground.store.imports import new_import_id
from service.ground.tile import MAX_SIDE_M, MIN_SIDE_M
from service.http.multipart import save_form
from service.http.problems import documented, problem_named
from service.importing.jobs import Importer, Progress
from service.importing.options import MAX_TILE_SIZES, MapOptions, Scheme
from service.routes import ground_schemas as schemas

PATH = "/gallery/imports"

router = APIRouter(prefix=PATH, tags=["gallery"])

SideM = Annotated[float, Field(ge=MIN_SIDE_M, le=MAX_SIDE_M, allow_inf_nan=False)]


class ImportForm(BaseModel):
    """The fields of an import beside its file."""

    map: str | None = Field(
        None, max_length=MAX_NAME_LENGTH, description="Name of the map; default: the file's name without its suffix."
    )
    replace: bool = Field(False, description="Take the place of the map of this name, once all is imported.")
    extend: bool = Field(False, description="Add to the map of this name.")
    scheme: Scheme | None = Field(
        None, description="How the rows of z/x/y tiles are counted, where the file does not say: xyz from the north."
    )
    tile_size_m: list[SideM] = Field(
        [],
        max_length=MAX_TILE_SIZES,
        description="For experts: sides of the windows, metres; the levels nearest to them are made. Without it the "
        "map is searched at every scale from which a drone looks.",
    )
    date: str | None = Field(
        None,
        description="When its pictures were taken, ISO 8601: a day, a month, a year, or the first and the last of "
        "several days with a slash; default: as the file says.",
        examples=["2024-05-17"],
    )
    overlap: float = Field(0.5, description="For experts: share of a window that its neighbour repeats, 0.5 or 0.")

    @field_validator("tile_size_m", mode="before")
    @classmethod
    def _split(cls, values: list[str]) -> list[str]:
        """Take ``60,120`` as well as the field twice."""
        return [part for value in values for part in value.split(",")]


def form_with_file(description: str, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Tell what OpenAPI says of a form that ``save_form`` reads: its ``file``, and the fields beside it."""
    file = {"type": "string", "format": "binary", "description": description}
    schema = {"type": "object", "required": ["file"], "properties": {"file": file, **(fields or {})}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


_BODY = form_with_file(
    "a map, whatever it comes as: GeoTIFF, COG, MBTiles, GeoPackage, KMZ, or a zip of z/x/y tiles, of rasters with "
    "their side files, or of images with a CSV of corners",
    ImportForm.model_json_schema()["properties"],
)


@router.post(
    "",
    status_code=202,
    response_model=schemas.ImportState,
    openapi_extra=_BODY,
    responses=documented(
        errors.MissingParameter,
        errors.InvalidParameter,
        errors.SourceUnreadable,
        errors.ArchiveRefused,
        errors.MapExists,
        errors.UnsupportedMediaType,
        errors.BodyTooLarge,
        errors.StorageFull,
        errors.GalleryReadOnly,
        errors.GalleryUnusable,
    ),
)
async def start_import(request: Request, response: Response) -> schemas.ImportState:
    """Add a whole map in the background; it goes on after a restart, and adds nothing twice."""
    importer: Importer = request.app.state.importer
    import_id = new_import_id()
    path = await asyncio.to_thread(room_for, importer, import_id, request.headers.get("content-length", ""))
    try:
        form = await save_form(request, "file", list(ImportForm.model_fields), path)
        options = _options(form.fields)
        progress = await importer.submit(import_id, base_name(form.file_name), options)
    except BaseException:
        await asyncio.to_thread(path.unlink, missing_ok=True)  # takes a while if it is large
        raise
    response.headers["Location"] = f"{PATH}/{import_id}"
    return _state(progress)


@router.get(
    "", response_model=schemas.ImportList, responses=documented(errors.InvalidParameter, errors.GalleryUnusable)
)
async def list_imports(
    request: Request, limit: Annotated[int, Query(ge=1, le=1000, description="imports to list")] = 100
) -> schemas.ImportList:
    """List the last imports, newest first."""
    importer: Importer = request.app.state.importer
    return schemas.ImportList(imports=[_state(progress) for progress in await importer.newest(limit)])


@router.get(
    "/{import_id}",
    response_model=schemas.ImportState,
    responses=documented(errors.ImportNotFound, errors.InvalidParameter, errors.GalleryUnusable),
)
async def get_import(request: Request, import_id: str) -> schemas.ImportState:
    """Tell how far an import is."""
    importer: Importer = request.app.state.importer
    return _state(await importer.get(import_id))


@router.delete(
    "/{import_id}",
    response_model=schemas.ImportState,
    responses=documented(
        errors.ImportNotFound,
        errors.InvalidParameter,
        errors.GalleryReadOnly,
        errors.GalleryUnusable,
        errors.StorageFull,
    ),
)
async def cancel_import(request: Request, import_id: str) -> schemas.ImportState:
    """Stop an import; the tiles that it has added stay. One that has ended stays as it is."""
    importer: Importer = request.app.state.importer
    return _state(await importer.cancel(import_id))


def room_for(importer: Importer, import_id: str, announced: str) -> Path:
    """Tell where the upload goes, if there is space for the length that its sender announces."""
    try:
        path = importer.upload_path(import_id)
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise disk_error(error, "the imports folder cannot be written") from error
    if announced.isdigit() and int(announced) > free:
        raise StorageFull("No space for the upload; free space on the disk of the gallery.", actual=int(announced))
    return path


def _options(fields: Mapping[str, list[str]]) -> MapOptions:
    """Check the fields; one that is given twice, but for ``tile_size_m``, counts as its last."""
    given: dict[str, Any] = {name: values if name == "tile_size_m" else values[-1] for name, values in fields.items()}
    given = {name: value for name, value in given.items() if value not in ("", [""])}  # as an empty field of a form
    try:
        form = ImportForm.model_validate(given)
    except ValidationError as error:
        found = [item | {"loc": ("body", *item["loc"])} for item in error.errors(include_url=False)]
        raise RequestValidationError(found) from error
    sides_m = tuple(form.tile_size_m)
    return MapOptions(form.map, form.replace, form.extend, form.scheme, sides_m, form.overlap, form.date)


def base_name(given: str | None) -> str:
    """Return the last part of a file name, whichever system it is from."""
    return PurePosixPath((given or "").replace("\\", "/")).name or "upload"


def _state(progress: Progress) -> schemas.ImportState:
    job = progress.job
    whole = [trouble for trouble in job.troubles if trouble.item is None]
    if progress.waits_for is not None:
        whole = [progress.waits_for]
    return schemas.ImportState(
        id=job.id,
        state=job.state,
        name=job.name,
        map=job.options["map"],
        created_at=job.created_at,
        done=job.done,
        total=job.total,
        added=job.added,
        updated=job.updated,
        failed=job.failed,
        skipped=job.skipped,
        warnings=job.warnings,
        eta_s=None if progress.eta_s is None else round(progress.eta_s, 1),
        problem=problem_named(whole[0].kind, whole[0].detail) if whole else None,
        problems=[
            schemas.ImportTrouble(item=trouble.item, problem=problem_named(trouble.kind, trouble.detail))
            for trouble in job.troubles
            if trouble.item is not None
        ],
    )
