"""``/tracks``: a flight, photo by photo."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Path, Request, Response, UploadFile

from service import errors
from service.http.access import OWNER
from service.http.admission import has_body
from service.http.problems import documented
from service.routes import schemas
from service.routes.histories import CAMERA, GROUND, lens_of, velocity_of
from service.routes.localize import PHOTO_ERRORS, LocalizeForm, localization
from service.routes.timestamps import parse_timestamp
from service.routes.uploads import in_time
from service.tracking.store import OpenTrack
from service.tracking.track import Estimate, Options, Track
from service.tracking.tracker import Tracker

router = APIRouter(prefix="/tracks", tags=["tracks"])
TrackId = Annotated[str, Path(max_length=64, description="as `POST /tracks` answered it")]


@dataclass
class TrackForm:
    """What is known of the aircraft; everything has a default."""

    max_speed_m_s: Annotated[
        float, Form(gt=0, le=300, allow_inf_nan=False, description="over ground; no fix is fused that would need more")
    ] = Options.max_speed_m_s
    acceleration_m_s2: Annotated[
        float,
        Form(
            gt=0,
            le=100,
            allow_inf_nan=False,
            description="standard deviation along each axis; small for straight flight, which is then smoothed more",
        ),
    ] = Options.acceleration_m_s2
    expiry_s: Annotated[
        float,
        Form(
            ge=1,
            le=86_400,
            allow_inf_nan=False,
            description="seconds without a photo until it is forgotten, at most AEROFIX_MAX_TRACK_EXPIRY_S (3600)",
        ),
    ] = Options.expiry_s


def only_forms(request: Request) -> None:
    """Refuse a body of another kind: every field has a default, so it would be ignored without a word.

    Raises:
        InvalidParameter: as said.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if has_body(request.headers) and kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise errors.InvalidParameter(f"the body's type is {kind or 'missing'!r:.80}; send a form; see /docs.")


@router.post(
    "",
    dependencies=[Depends(only_forms)],
    status_code=201,
    response_model=schemas.TrackState,
    responses=documented(errors.InvalidParameter, errors.BodyTooLarge, errors.Overloaded),
)
async def open_track(request: Request, response: Response, form: Annotated[TrackForm, Depends()]) -> schemas.TrackState:
    """Open a track: the photos of one flight, in the order in which they are taken.

    It lives in the memory of the service until `DELETE`, or until no photo came for `expiry_s`, and belongs to the key
    that opens it: for another it is not there.
    """
    tracker: Tracker = request.app.state.tracker
    longest_s = tracker.localizer.settings.max_track_expiry_s
    if form.expiry_s > longest_s:
        fix = f"expiry_s is {form.expiry_s}; give at most {longest_s}, or raise AEROFIX_MAX_TRACK_EXPIRY_S."
        raise errors.InvalidParameter(fix, limit=longest_s, actual=form.expiry_s)
    opened = tracker.store.open(Options(**asdict(form)), _owner(request))
    response.headers["Location"] = f"/tracks/{opened.id}"
    return _state(opened, tracker)


@router.get("", response_model=schemas.TrackList)
async def list_tracks(request: Request) -> schemas.TrackList:
    """List the open tracks of the key that asks, or all where none is needed, in the order of their opening."""
    tracker: Tracker = request.app.state.tracker
    return schemas.TrackList(tracks=[_state(opened, tracker) for opened in tracker.store.of(_owner(request))])


@router.get(
    "/{track_id}",
    response_model=schemas.TrackState,
    responses=documented(errors.TrackNotFound, errors.InvalidParameter),
)
async def get_track(request: Request, track_id: TrackId) -> schemas.TrackState:
    """Tell where the track was at its last photo, and what became of its photos; does not prolong its life."""
    tracker: Tracker = request.app.state.tracker
    return _state(tracker.store.get(track_id, _owner(request)), tracker)


@router.delete(
    "/{track_id}",
    status_code=204,
    response_model=None,
    responses=documented(errors.TrackNotFound, errors.InvalidParameter),
)
async def delete_track(request: Request, track_id: TrackId) -> None:
    """Forget a track."""
    tracker: Tracker = request.app.state.tracker
    tracker.store.delete(track_id, _owner(request))


@router.post(
    "/{track_id}/localize",
    response_model=schemas.TrackedLocalization,
    responses=documented(
        *PHOTO_ERRORS,
        errors.TrackNotFound,
        errors.InvalidParameter,
        errors.BodyTooLarge,
        errors.GalleryEmpty,
        errors.NotReady,
        errors.IndexUnavailable,
    ),
)
async def localize_next_photo(
    request: Request,
    track_id: TrackId,
    image: Annotated[UploadFile, File(description="JPEG, PNG, WebP or TIFF")],
    form: Annotated[LocalizeForm, Depends()],
    timestamp: Annotated[
        str | None,
        Form(
            max_length=64,
            description="when the photo was taken: seconds on any clock, or ISO 8601 (UTC if without offset); later "
            "than that of the photo before. Default: EXIF DateTimeOriginal with SubSecTimeOriginal and "
            "OffsetTimeOriginal (UTC without)",
            examples=["2025-06-14T10:12:00.5Z"],
        ),
    ] = None,
) -> Any:
    """Localize the next photo of a flight and fuse it with those before.

    `photo` is the answer of `POST /localize` to the photo alone. `use` says what became of it: `fused` when the track
    took one of its places as a fix, `gated` when none of them fits the track, `lost` when it shows no known place; the
    position is then the prediction. `position` is that of the camera once a photo tells it. The flight tells its lens
    (`lens`), with which the next photo is looked at. Photos of one track are answered one after the other. A photo
    that is answered with a problem leaves the track as it was.
    """
    tracker: Tracker = request.app.state.tracker
    hints, data = form.hints(), await image.read()
    timestamp_s = None if timestamp is None or not timestamp.strip() else parse_timestamp(timestamp)

    async def answer() -> schemas.TrackedLocalization:
        async with tracker.store.turn(track_id, _owner(request)) as track:
            step = await tracker.localize(
                track, data, hints, timestamp_s, form.top_k, form.refine, form.named_maps, form.effort
            )
            return schemas.TrackedLocalization(
                track_id=track_id,
                use=step.use,
                fused_tile_id=None if step.place is None else step.place.tile_id,
                photo=localization(step.answer, tracker.localizer, form.matches),
                **_estimate(track),
            )

    return await in_time(answer(), tracker.localizer.settings.deadline_s)


def _owner(request: Request) -> str:
    return str(request.scope.get(OWNER, ""))


def _state(opened: OpenTrack, tracker: Tracker) -> schemas.TrackState:
    return schemas.TrackState(
        id=opened.id,
        expires_in_s=tracker.store.expires_in_s(opened),
        options=schemas.TrackOptions(**asdict(opened.track.options)),
        uses=schemas.PhotoUses(**opened.track.uses),
        **_estimate(opened.track),
    )


def _estimate(track: Track) -> dict[str, Any]:
    """The fields of ``schemas.TrackEstimate``."""
    ground, shown = track.estimate, track.shown
    lens = None if track.lens is None else lens_of(track.lens)
    if ground is None or shown is None:
        return {"timestamp_s": track.timestamp_s, "confidence": 0.0, "lens": lens}
    east_m_s, north_m_s = shown.motion.velocity_m_s.tolist()
    of_ground = _position(ground)
    return {
        "timestamp_s": track.timestamp_s,
        "confidence": shown.confidence,
        "position": of_ground if track.aircraft is None else _position(shown, track.aircraft.height_m, CAMERA),
        "ground": of_ground,
        "velocity": velocity_of(east_m_s, north_m_s),
        "covariance": schemas.Covariance(position_m2=shown.covariance_m2.tolist()),
        "lens": lens,
    }


def _position(
    estimate: Estimate, height_m: float | None = None, reference: str = GROUND
) -> schemas.TrackPosition | None:
    if estimate.accuracy_m is None:
        return None
    motion = estimate.motion
    return schemas.TrackPosition(
        lat=motion.lat,
        lon=motion.lon,
        accuracy_m=estimate.accuracy_m,
        confidence=estimate.confidence,
        reference=reference,
        height_m=height_m,
    )
