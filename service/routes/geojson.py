"""The answer as GeoJSON (RFC 7946): ``[lon, lat]``, exterior rings counter-clockwise."""

from collections.abc import Sequence
from typing import Any

from service.routes.schemas import Candidate, Failure, Localization, TrackHistory

FOUR = 4  # corners of a photo

MEDIA_TYPE = "application/geo+json"
EXAMPLE = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [120.71854, 24.26012]},
            "properties": {"kind": "position", "accuracy_m": 9.4, "confidence": 0.97},
        }
    ],
    "status": "located",
}


def collection(results: Sequence[Localization | Failure]) -> dict[str, Any]:
    """Make one FeatureCollection of all photos: for each its position, then its candidates' tiles, then its camera.

    What is not a place comes as foreign members: those of the only photo beside ``features``, those of several as a
    list under ``results``; the property ``photo`` of each feature counts from 0.
    """
    features = [feature for i, result in enumerate(results) for feature in _features(result, i)]
    places = {"position", "candidates", "camera", "footprint", "matches"}
    members = [result.model_dump(exclude=places) for result in results]
    extra = members[0] if len(members) == 1 else {"results": members}
    return {"type": "FeatureCollection", "features": features} | extra


def flight(history: TrackHistory) -> dict[str, Any]:
    """Write a flight: the line through its positions first, then a point for each photo after which it had one."""
    points, line = [], list[list[float]]()
    for entry in history.entries:
        if entry.position is None:
            continue
        lon0 = line[0][0] if line else entry.position.lon
        line.append([lon0 + (entry.position.lon - lon0 + 180) % 360 - 180, entry.position.lat])
        properties = {"kind": "fix"} | entry.model_dump(exclude={"position"})
        properties |= entry.position.model_dump(exclude={"lat", "lon", "confidence"})
        geometry = {"type": "Point", "coordinates": line[-1]}
        points.append({"type": "Feature", "geometry": geometry, "properties": properties})
    if len(line) > 1:
        path = {"type": "LineString", "coordinates": line}
        points.insert(0, {"type": "Feature", "geometry": path, "properties": {"kind": "flight"}})
    extra = {"track_id": history.track_id, "lens": None if history.lens is None else history.lens.model_dump()}
    return {"type": "FeatureCollection", "features": points} | extra


def _features(result: Localization | Failure, photo: int) -> list[dict[str, Any]]:
    if isinstance(result, Failure):
        return []
    features = [_tile(candidate, photo) for candidate in result.candidates]
    if (position := result.position) is not None:
        point = {"type": "Point", "coordinates": [position.lon, position.lat]}
        properties = {"kind": "position", "photo": photo, "status": result.status}
        properties |= position.model_dump(exclude={"lat", "lon"})
        features.insert(0, {"type": "Feature", "geometry": point, "properties": properties})
    if (camera := result.camera) is not None:
        point = {"type": "Point", "coordinates": [camera.lon, camera.lat]}
        properties = {"kind": "camera", "photo": photo} | camera.model_dump(exclude={"lat", "lon"})
        features.append({"type": "Feature", "geometry": point, "properties": properties})
    corners = [corner for corner in result.footprint or () if corner is not None]
    if len(corners) == FOUR:  # a photo that shows the horizon has no polygon
        polygon = {"type": "Polygon", "coordinates": [_ring(corners)]}
        features.append({"type": "Feature", "geometry": polygon, "properties": {"kind": "footprint", "photo": photo}})
    if result.matches:
        points = {"type": "MultiPoint", "coordinates": [[match.lon, match.lat] for match in result.matches]}
        features.append({"type": "Feature", "geometry": points, "properties": {"kind": "matches", "photo": photo}})
    return features


def _tile(candidate: Candidate, photo: int) -> dict[str, Any]:
    properties = {"kind": "tile", "photo": photo} | candidate.model_dump(exclude={"tile", "lat", "lon"})
    geometry = {"type": "Polygon", "coordinates": [_ring(candidate.tile.corners)]}
    return {"type": "Feature", "id": candidate.tile_id, "geometry": geometry, "properties": properties}


def _ring(corners: list[tuple[float, float]]) -> list[list[float]]:
    """Corners clockwise from top-left → a closed ring counter-clockwise, which does not go round the world."""
    lon0 = corners[0][1]
    ring = [[lon0 + (lon - lon0 + 180) % 360 - 180, lat] for lat, lon in reversed(corners)]
    return [*ring, ring[0]]
