from service.routes import schemas
from service.routes.geojson import collection


def candidate(corners):
    tile = schemas.CandidateTile(lat=0, lon=180, bounds=(179.999, -0.001, -179.999, 0.001), corners=corners, gsd_m=1)
    return schemas.Candidate(rank=1, tile_id="t", score=0.5, confidence=0.2, lat=0, lon=180, tile=tile)


def answer(**fields):
    timing = schemas.Timing(decode=0, queue=0, encode=0, search=0, rerank=0, refine=0, total=0)
    query = schemas.Query(width=1, height=1, used={})
    defaults = {"status": "not_found", "position": None, "candidates": [], "query": query, "searched_tiles": 0}
    defaults |= {"model_id": "m", "gallery_generation": 1, "request_id": "r", "timing_ms": timing}
    return schemas.Localization(**defaults | fields)


def test_a_tile_on_the_antimeridian_stays_small():
    corners = [(0.001, 179.999), (0.001, -179.999), (-0.001, -179.999), (-0.001, 179.999)]
    (feature,) = collection([answer(candidates=[candidate(corners)])])["features"]
    (ring,) = feature["geometry"]["coordinates"]
    assert max(lon for lon, _ in ring) - min(lon for lon, _ in ring) < 0.01


def test_a_photo_that_is_not_found_has_no_point():
    body = collection([answer()])
    assert body["features"] == []
    assert body["status"] == "not_found"
    assert "candidates" not in body
