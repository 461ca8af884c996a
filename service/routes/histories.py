"""``/tracks/{id}/history``: a flight after each of its photos, as JSON or GeoJSON."""

import math
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request
from fastapi.responses import JSONResponse

from service import errors
from service.http.access import OWNER
from service.http.negotiation import preferred
from service.http.problems import documented
from service.routes import geojson, schemas
from service.tracking.flight import FlightLens
from service.tracking.history import Entry
from service.tracking.tracker import Tracker

router = APIRouter(prefix="/tracks", tags=["tracks"])
JSON = "application/json"
GROUND, CAMERA = "ground point at image centre, WGS84", "camera, WGS84"


@router.get(
    "/{track_id}/history",
    response_model=schemas.TrackHistory,
    responses={
        200: {
            "description": "Entries in the order of the photos; as GeoJSON the line and a point for each.",
            "content": {geojson.MEDIA_TYPE: {"schema": {"type": "object"}}},
        },
        **documented(errors.TrackNotFound, errors.InvalidParameter),
    },
)
async def get_history(
    request: Request,
    track_id: Annotated[str, Path(max_length=64, description="as `POST /tracks` answered it")],
    accept: Annotated[str, Header()] = "*/*",
) -> Any:
    """Tell what was believed of the flight after each of its photos; each entry says which point its position is of."""
    tracker: Tracker = request.app.state.tracker
    track = tracker.store.get(track_id, str(request.scope.get(OWNER, ""))).track
    history = schemas.TrackHistory(
        track_id=track_id,
        entries=[_entry(each) for each in track.history],
        lens=None if track.lens is None else lens_of(track.lens),
    )
    if preferred(accept, [JSON, geojson.MEDIA_TYPE]) != geojson.MEDIA_TYPE:
        return history
    return JSONResponse(geojson.flight(history), media_type=geojson.MEDIA_TYPE)


def lens_of(lens: FlightLens) -> schemas.FlightLens | None:
    """Tell what a flight tells of its lens, None while it does not."""
    found = lens.found
    if found is None:
        return None
    told = f"the field of view is {found.hfov_deg:.1f}°"
    differs = abs(found.hfov_deg - lens.stated_deg) > found.hfov_sigma_deg
    text = f"{told}, not {lens.stated_deg:.1f}°" if differs else f"{told}, as stated"
    return schemas.FlightLens(
        hfov_deg=found.hfov_deg, sigma_deg=found.hfov_sigma_deg, stated_hfov_deg=lens.stated_deg, text=text
    )


def velocity_of(east_m_s: float, north_m_s: float) -> schemas.Velocity | None:
    """Describe a velocity, with its speed and course; None for a motion that has just begun, of which nothing tells."""
    if east_m_s == north_m_s == 0:
        return None
    return schemas.Velocity(
        east_m_s=east_m_s,
        north_m_s=north_m_s,
        speed_m_s=math.hypot(east_m_s, north_m_s),
        course_deg=math.degrees(math.atan2(east_m_s, north_m_s)) % 360,
    )


def _entry(entry: Entry) -> schemas.TrackEntry:
    position = velocity = None
    passed, accuracy_m = entry.passed, entry.accuracy_m
    if passed is not None:
        velocity = velocity_of(passed.east_m_s, passed.north_m_s)
    if passed is not None and accuracy_m is not None:
        position = schemas.TrackPosition(
            lat=passed.lat,
            lon=passed.lon,
            accuracy_m=accuracy_m,
            confidence=entry.confidence,
            reference=CAMERA if passed.reference == "camera" else GROUND,
            height_m=passed.height_m,
        )
    return schemas.TrackEntry(
        timestamp_s=entry.timestamp_s,
        use=entry.use,
        status=entry.status,
        confidence=entry.confidence,
        position=position,
        velocity=velocity,
        hindsight=entry.hindsight,
    )
