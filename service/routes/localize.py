"""``POST /localize``."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Header, Request, UploadFile
from fastapi.responses import JSONResponse

from service import errors
from service.errors import AerofixError, DeadlineExceeded, InvalidParameter
from service.geo import Circle
from service.http.admission import VISIT
from service.http.negotiation import preferred
from service.http.problems import documented, problem_of
from service.localization.answer import Answer
from service.localization.hints import Hints
from service.localization.looks import Effort
from service.localization.pipeline import PhotoLocalizer
from service.routes import geojson, schemas
from service.routes.uploads import gather_limited, in_time
from service.telemetry import request_id

router = APIRouter(tags=["localize"])
JSON = "application/json"

# What a single image can be refused for; with several, these are the problems of single results.
PHOTO_ERRORS = (
    errors.ImageUndecodable,
    errors.ImageTruncated,
    errors.EmbeddingError,
    errors.UnsupportedMediaType,
    errors.ImageTooManyPixels,
    errors.ImageTooComplex,
    errors.ImageTooSlow,
    errors.OutOfMemory,
    errors.MissingParameter,
    errors.Overloaded,
    errors.DeadlineExceeded,
)


@dataclass
class LocalizeForm:
    """The form's fields beside the images."""

    top_k: Annotated[int, Form(ge=1, le=100, description="candidates to return", examples=[5])] = 5
    prior_lat: Annotated[
        float | None, Form(ge=-90, le=90, allow_inf_nan=False, description="with the other two: search only near here")
    ] = None
    prior_lon: Annotated[float | None, Form(ge=-180, le=180, allow_inf_nan=False)] = None
    prior_radius_m: Annotated[
        float | None,
        Form(gt=0, le=1_000_000, allow_inf_nan=False, description="metres round the prior", examples=[500]),
    ] = None
    heading_deg: Annotated[
        float | None,
        Form(ge=-360, le=360, allow_inf_nan=False, description="compass direction of the top edge, 0 = north"),
    ] = None
    altitude_m: Annotated[
        float | None, Form(gt=0, le=20_000, allow_inf_nan=False, description="height above ground", examples=[120])
    ] = None
    hfov_deg: Annotated[
        float | None, Form(gt=0, lt=180, allow_inf_nan=False, description="horizontal field of view", examples=[73.7])
    ] = None
    pitch_deg: Annotated[
        float | None, Form(ge=-120, le=90, allow_inf_nan=False, description="-90 looks straight down, 0 ahead")
    ] = None
    roll_deg: Annotated[
        float | None,
        Form(ge=-180, le=180, allow_inf_nan=False, description="with pitch_deg: clockwise, seen from behind"),
    ] = None
    ground_elevation_m: Annotated[
        float | None,
        Form(
            ge=-500,
            le=9_000,
            allow_inf_nan=False,
            description="ground above sea level: makes a GPS altitude in EXIF a height above ground, where the photo "
            "carries no relative altitude",
        ),
    ] = None
    use_exif: Annotated[
        bool, Form(description="fill attitude, altitude and field of view from EXIF/XMP where the form leaves them out")
    ] = True
    use_exif_position: Annotated[bool, Form(description="use the EXIF position as the prior, if none is given")] = False
    maps: Annotated[
        list[str] | None, Form(description="search only these maps; repeated for several", examples=[["town"]])
    ] = None
    effort: Annotated[
        Effort,
        Form(description="looks at the photo while the answer is unsure: fast takes one, thorough more than normal"),
    ] = "normal"
    refine: Annotated[bool, Form(description="a position between tile centres; else the best tile's centre")] = True
    matches: Annotated[bool, Form(description="answer the details that were found in both photo and map, too")] = False

    @property
    def named_maps(self) -> tuple[str, ...]:
        """The maps that are named; an empty field, as forms on pages send it, names none."""
        return tuple(filter(None, self.maps or ()))

    def hints(self) -> Hints:
        """Return the fields about the photo.

        Raises:
            InvalidParameter: one or two of the three prior fields are given.
        """
        prior = [self.prior_lat, self.prior_lon, self.prior_radius_m]
        lat, lon, radius_m = prior
        circle = None
        if lat is not None and lon is not None and radius_m is not None:
            circle = Circle(lat, lon, radius_m)
        elif prior != [None, None, None]:
            raise InvalidParameter("give all three of prior_lat, prior_lon and prior_radius_m, or none of them.")
        return Hints(
            circle,
            self.heading_deg,
            self.altitude_m,
            self.hfov_deg,
            self.pitch_deg,
            self.roll_deg,
            self.ground_elevation_m,
            self.use_exif,
            self.use_exif_position,
        )


@router.post(
    "/localize",
    response_model=schemas.Localization | schemas.Localizations,
    responses={
        200: {
            "description": "One answer, or `results` when several images were sent; GeoJSON when asked for.",
            "content": {geojson.MEDIA_TYPE: {"schema": {"type": "object"}, "example": geojson.EXAMPLE}},
        },
        **documented(
            *PHOTO_ERRORS,
            errors.InvalidParameter,
            errors.BodyTooLarge,
            errors.GalleryEmpty,
            errors.MapNotFound,
            errors.NotReady,
            errors.IndexUnavailable,
            errors.StorageFull,
        ),
    },
)
async def localize(
    request: Request,
    image: Annotated[list[UploadFile], File(description="JPEG, PNG, WebP or TIFF; one or several")],
    form: Annotated[LocalizeForm, Depends()],
    accept: Annotated[str, Header()] = "*/*",
) -> Any:
    """Say where a photo was taken, how sure that is and how far off it may be."""
    localizer: PhotoLocalizer = request.app.state.localizer
    hints = form.hints()
    max_images = localizer.settings.max_images
    if len(image) > max_images:
        raise InvalidParameter(f"send at most {max_images} images at once.", limit=max_images, actual=len(image))

    deadline_s, several = localizer.settings.deadline_s, len(image) > 1
    ends_at = asyncio.get_running_loop().time() + deadline_s if several else None  # one deadline for all of them

    async def answer(upload: UploadFile) -> Answer:
        data = await upload.read()
        work = localizer.localize(
            data, hints, form.top_k, form.refine, in_line=several, maps=form.named_maps, effort=form.effort
        )
        return await in_time(work, deadline_s, ends_at)

    as_geojson = preferred(accept, [JSON, geojson.MEDIA_TYPE]) == geojson.MEDIA_TYPE
    if several:
        at_once = request.app.state.encoder.useful_batch(localizer.settings.max_batch)
        answers = await gather_limited(image, answer, at_once)
        request.scope[VISIT].late = any(isinstance(each, DeadlineExceeded) for each in answers)
        results = _each(answers, localizer, form.matches)
        content = geojson.collection(results) if as_geojson else {"results": [_dump(result) for result in results]}
    else:
        result = localization(await answer(image[0]), localizer, form.matches)
        content = geojson.collection([result]) if as_geojson else result.model_dump()
    return JSONResponse(content, media_type=geojson.MEDIA_TYPE if as_geojson else JSON)


def _each(
    answers: list[Answer | Exception], localizer: PhotoLocalizer, matches: bool
) -> list[schemas.Localization | schemas.Failure]:
    """The answers to several photos; what concerns one of them alone is its own problem.

    Raises:
        AerofixError: nothing can be localized at all, for example in an empty gallery.
    """
    for error in answers:
        if isinstance(error, AerofixError) and not isinstance(error, PHOTO_ERRORS):
            raise error
    return [
        schemas.Failure(problem=problem_of(each))
        if isinstance(each, Exception)
        else localization(each, localizer, matches)
        for each in answers
    ]


def localization(answer: Answer, localizer: PhotoLocalizer, matches: bool = False) -> schemas.Localization:
    """Return the answer as JSON has it; with the details that were found when ``matches`` are asked for."""
    position = answer.position
    return schemas.Localization(
        status=answer.verdict.status,
        position=None if position is None else schemas.Position(**vars(position)),
        candidates=[_candidate(answer, i) for i in range(len(answer.hits))],
        camera=_camera(answer),
        camera_missing=answer.whereabouts.missing,
        footprint=answer.whereabouts.footprint,
        matches=_details(answer) if matches else None,
        query=schemas.Query(
            width=answer.width,
            height=answer.height,
            used={name: source for name, source in answer.known.used.items() if name not in answer.disputed},
            values=answer.known.values,
            readings=answer.known.readings,
            unused=answer.known.unused,
            disputed=answer.disputed,
            looks=answer.looks,
            ground_width_m=answer.view.photo_width_m,
            view_side_m=answer.view.side_m,
            tile_side_m=answer.view.tile_side_m,
        ),
        searched_tiles=answer.searched_tiles,
        model_id=localizer.contract.model_id,
        gallery_generation=answer.generation,
        request_id=request_id.get() or "",
        timing_ms=schemas.Timing(**answer.timing_ms),
    )


def _camera(answer: Answer) -> schemas.Camera | None:
    camera, accuracy_m = answer.whereabouts.camera, answer.whereabouts.accuracy_m
    if camera is None or accuracy_m is None:
        return None
    return schemas.Camera(
        lat=camera.lat,
        lon=camera.lon,
        height_m=camera.height_m,
        heading_deg=camera.heading_deg,
        pitch_deg=camera.pitch_deg,
        roll_deg=camera.roll_deg,
        hfov_deg=camera.hfov_deg,
        accuracy_m=accuracy_m,
    )


def _details(answer: Answer) -> list[schemas.Detail] | None:
    if answer.fix is None:
        return None
    return [
        schemas.Detail(
            x=(0.5 + at.real) * answer.width, y=0.5 * answer.height - at.imag * answer.width, lat=lat, lon=lon
        )
        for at, (lat, lon) in zip(answer.fix.photo, answer.fix.ground_places, strict=True)
    ]


def _candidate(answer: Answer, i: int) -> schemas.Candidate:
    hit, footprint = answer.hits[i], answer.hits[i].tile.footprint
    lat, lon = footprint.centre
    place = answer.place if i == 0 and answer.place is not None else (lat, lon)
    return schemas.Candidate(
        rank=i + 1,
        tile_id=hit.tile.id,
        map=hit.map,
        score=hit.score,
        inliers=hit.inliers,
        support=answer.pool.supports[i],
        confidence=answer.verdict.candidate_confidences[i],
        lat=place[0],
        lon=place[1],
        tile=schemas.CandidateTile(
            lat=lat, lon=lon, bounds=footprint.bounds, corners=list(footprint.corners), gsd_m=footprint.gsd_m
        ),
    )


def _dump(result: schemas.Localization | schemas.Failure) -> dict[str, Any]:
    return result.model_dump(exclude_none=isinstance(result, schemas.Failure))
