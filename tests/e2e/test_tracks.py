import asyncio
import io
import json
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from service.geo import haversine_m, offset

COLUMNS = range(8)


@pytest.fixture
async def filled(http, tile_request):
    assert (await http.post("/gallery", **tile_request(*COLUMNS))).status_code == 200
    return http


async def open_track(http, **form):
    response = await http.post("/tracks", data=form)
    assert response.status_code == 201
    assert response.headers["location"] == f"/tracks/{response.json()['id']}"
    return response.headers["location"]


def send(http, url, photo, timestamp, **form):
    return http.post(f"{url}/localize", files={"image": ("p.jpg", photo)}, data={"timestamp": timestamp, **form})


async def test_a_flight_along_the_map(filled, photo, place):
    """A photo of the next tile, 200 m further, every 10 s: 20 m/s to the east."""
    url = await open_track(filled)
    for column in COLUMNS:
        response = await send(filled, url, photo(column), 10 * column)
        answer = response.json()
        assert response.status_code == 200
        assert (answer["use"], answer["fused_tile_id"]) == ("fused", f"map/{column}")
        assert (answer["velocity"] is None) == (column == 0)  # one photo tells no speed
        assert haversine_m(answer["position"]["lat"], answer["position"]["lon"], *place(column)) < 15
    assert answer["track_id"] == url.rsplit("/", 1)[1]
    assert answer["timestamp_s"] == 70
    velocity = answer["velocity"]
    assert velocity["east_m_s"] == pytest.approx(20, abs=1)
    assert velocity["speed_m_s"] == pytest.approx(20, abs=1)
    assert velocity["course_deg"] == pytest.approx(90, abs=3)
    assert answer["covariance"]["axes"] == ["east", "north"]
    covariance = np.array(answer["covariance"]["position_m2"])
    np.testing.assert_allclose(covariance, covariance.T)
    assert (np.linalg.eigvalsh(covariance) > 0).all()
    assert answer["confidence"] == answer["position"]["confidence"] > 0.99
    assert answer["photo"]["status"] == "located"
    assert answer["photo"]["candidates"][0]["tile_id"] == "map/7"


async def test_the_photos_own_answer_is_that_of_localize(filled, photo):
    url = await open_track(filled)
    await send(filled, url, photo(2), 0)
    tracked = (await send(filled, url, photo(5), 1, top_k=3)).json()["photo"]
    alone = (await filled.post("/localize", files={"image": ("p.jpg", photo(5))}, data={"top_k": 3})).json()
    for answer in (tracked, alone):
        del answer["timing_ms"], answer["request_id"]
    assert tracked == alone


async def test_a_far_photo_is_gated_and_a_lost_one_predicted(filled, photo, place):
    url = await open_track(filled)
    for column in range(4):
        await send(filled, url, photo(column), 10 * column)
    gated = (await send(filled, url, photo(0), 31)).json()
    assert (gated["use"], gated["fused_tile_id"], gated["photo"]["status"]) == ("gated", None, "located")
    assert haversine_m(gated["position"]["lat"], gated["position"]["lon"], *place(3)) < 40
    lost = (await send(filled, url, photo(99), 40)).json()
    assert (lost["use"], lost["fused_tile_id"], lost["photo"]["position"]) == ("lost", None, None)
    assert haversine_m(lost["position"]["lat"], lost["position"]["lon"], *place(4)) < 40
    assert lost["position"]["accuracy_m"] > gated["position"]["accuracy_m"]
    state = (await filled.get(url)).json()
    assert state["uses"] == {"fused": 4, "gated": 1, "lost": 1}
    assert {key: state[key] for key in ("timestamp_s", "confidence", "position", "velocity", "covariance")} == {
        key: lost[key] for key in ("timestamp_s", "confidence", "position", "velocity", "covariance")
    }


async def test_the_track_decides_between_twins(http, tile_request, photo, place):
    """Two tiles look alike. A photo of them is ambiguous; on a track that comes from the west it is the western one."""
    await http.post("/gallery", **tile_request(0, 1, 2))
    lat, lon = offset(*place(3), 0.0, 2000.0)
    for tile_id, (tile_lat, tile_lon) in {"here": place(3), "far": (float(lat), float(lon))}.items():
        form = tile_request(5)
        form["data"]["tiles"] = json.dumps([{"id": tile_id, "lat": tile_lat, "lon": tile_lon, "gsd_m": 1.5}])
        await http.post("/gallery", **form)
    url = await open_track(http)
    for column in range(3):
        await send(http, url, photo(column), 10 * column)
    answer = (await send(http, url, photo(5), 30)).json()
    assert answer["photo"]["status"] == "ambiguous"
    assert (answer["use"], answer["fused_tile_id"]) == ("fused", "here")
    assert haversine_m(answer["position"]["lat"], answer["position"]["lon"], *place(3)) < 20


@pytest.mark.parametrize("pose", [{}, {"heading_deg": 0, "altitude_m": 48, "hfov_deg": 90}])
async def test_overlapping_photos_measure_the_movement(
    start, tiny_model, tmp_path, calibration_json, tile_request, ground, encode_image, pose
):
    """Unknown ground that moves through the picture: no fix after the first, but its descriptors tell the shift."""
    section = {"min_inliers": 20, "inlier_weight": 0.8, "sigma_tiles": 0.02}
    calibration = json.dumps(calibration_json | {"local": section})
    model = tiny_model(tmp_path / "local.onnx", local=True, metadata={"calibration": calibration})
    canvas = ground(60, 256, 64)
    canvas.paste(ground(3, 64, 64), (0, 0))
    async with start(model=model) as http:
        await http.post("/gallery", **tile_request(*COLUMNS))
        url = await open_track(http, max_speed_m_s=30)
        places, uses = [], []
        for step in range(6):
            picture = encode_image(canvas.crop((8 * step, 0, 8 * step + 64, 64)))
            answer = (await send(http, url, picture, step, **pose)).json()
            places.append((answer["position"]["lat"], answer["position"]["lon"]))
            uses.append(answer["use"])
    assert (uses[0], uses[-1]) == ("fused", "lost")
    assert haversine_m(*places[0], *places[-1]) == pytest.approx(5 * 8 * 1.5, rel=0.15)
    assert answer["velocity"]["east_m_s"] == pytest.approx(12, abs=2)


async def test_timestamps_must_increase_and_be_times(filled, photo, problem_of):
    url = await open_track(filled)
    await send(filled, url, photo(0), "2025-06-14T10:12:00.5Z")
    for bad in ("2025-06-14T10:12:00.5Z", "2025-06-14T12:12:00+02:00", "5", "noon", "nan"):
        problem_of(await send(filled, url, photo(1), bad), "invalid-parameter", 422)
    missing = await filled.post(f"{url}/localize", files={"image": ("p.jpg", photo(1))})
    problem_of(missing, "missing-parameter", 422)
    answer = (await send(filled, url, photo(0), "2025-06-14T10:12:02.5")).json()
    assert (answer["use"], answer["timestamp_s"]) == ("fused", 1749895922.5)


async def test_a_bad_photo_leaves_the_track_as_it_was(filled, photo, problem_of):
    url = await open_track(filled)
    await send(filled, url, photo(0), 0)
    before = (await filled.get(url)).json()
    problem_of(await send(filled, url, b"not an image", 10), "unsupported-media-type", 415)
    problem_of(await send(filled, url, photo(1)[:700], 10), "image-truncated", 422)
    problem_of(await send(filled, url, photo(1), 10, prior_lat=3), "invalid-parameter", 422)
    after = (await filled.get(url)).json()
    assert after | {"expires_in_s": 0} == before | {"expires_in_s": 0}
    assert (await send(filled, url, photo(1), 10)).json()["use"] == "fused"


async def test_tracks_that_are_not_there(http, photo, problem_of):
    for call in (http.get("/tracks/x"), http.delete("/tracks/x"), send(http, "/tracks/x", photo(0), 0)):
        problem_of(await call, "track-not-found", 404)
    url = await open_track(http)
    assert (await http.delete(url)).status_code == 204
    problem_of(await http.get(url), "track-not-found", 404)


async def test_options(http, problem_of):
    state = (await http.post("/tracks", data={"max_speed_m_s": 15, "expiry_s": 30, "acceleration_m_s2": 0.5})).json()
    assert state["options"] == {"max_speed_m_s": 15, "acceleration_m_s2": 0.5, "expiry_s": 30}
    assert 29 < state["expires_in_s"] <= 30
    assert (state["position"], state["velocity"], state["timestamp_s"], state["confidence"]) == (None, None, None, 0)
    for bad in ({"max_speed_m_s": 0}, {"max_speed_m_s": "nan"}, {"expiry_s": 0}, {"acceleration_m_s2": 1e9}):
        problem_of(await http.post("/tracks", data=bad), "invalid-parameter", 422)


async def test_a_body_that_is_no_form_is_refused(http, problem_of):
    for given in ({"json": {"max_speed_m_s": 15}}, {"content": b"max_speed_m_s=15"}):
        assert "send a form" in problem_of(await http.post("/tracks", **given), "invalid-parameter", 422)["detail"]
    for given in ({"headers": {"Content-Type": "application/json"}}, {"files": {"expiry_s": (None, b"30")}}):
        assert (await http.post("/tracks", **given)).status_code == 201


async def test_the_number_of_tracks_is_bounded(start, problem_of):
    async with start(max_tracks=2) as http:
        urls = [await open_track(http) for _ in range(2)]
        response = await http.post("/tracks")
        problem_of(response, "overloaded", 429)
        assert 1 <= int(response.headers["retry-after"]) <= 600
        await http.delete(urls[0])
        await open_track(http)


async def test_an_empty_gallery_is_said_to_be_empty(http, photo, problem_of):
    url = await open_track(http)
    problem_of(await send(http, url, photo(0), 0), "gallery-empty", 409)


async def test_photos_at_once_are_answered_in_turn(filled, photo, problem_of):
    """Which of them comes first is up to the threads that read them; one that comes after a later one is refused."""
    url = await open_track(filled)
    answers = await asyncio.gather(*(send(filled, url, photo(i), 10 * i) for i in range(5)))
    for refused in (answer for answer in answers if answer.status_code != 200):
        problem_of(refused, "invalid-parameter", 422)
    answered = [(i, answer.json()) for i, answer in enumerate(answers) if answer.status_code == 200]
    assert [answer["timestamp_s"] for _, answer in answered] == [10 * i for i, _ in answered]
    assert answered[-1][0] == 4  # nothing is later than the last
    state = (await filled.get(url)).json()
    assert (state["uses"]["fused"], state["timestamp_s"]) == (len(answered), 40)


async def test_a_turned_photo_fuses_too(filled, ground, encode_image):
    url = await open_track(filled)
    turned = encode_image(ground(3, 64, 64).transpose(Image.Transpose.ROTATE_90))
    answer = (await send(filled, url, turned, 0, heading_deg=90)).json()
    assert (answer["use"], answer["photo"]["query"]["used"]) == ("fused", {"heading_deg": "form"})


READER, OTHER = "reader-0123456789", "other-0123456789a"


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


async def test_a_track_is_there_for_the_key_that_opened_it_only(start, photo, problem_of):
    async with start(read_keys=(READER, OTHER), max_tracks_per_key=2) as http:
        mine = [(await http.post("/tracks", headers=bearer(READER))).json()["id"] for _ in range(2)]
        refused = problem_of(await http.post("/tracks", headers=bearer(READER)), "overloaded", 429)
        assert (refused["limit"], "AEROFIX_MAX_TRACKS_PER_KEY" in refused["detail"]) == (2, True)
        theirs = (await http.post("/tracks", headers=bearer(OTHER))).json()["id"]
        for key, ids in ((READER, mine), (OTHER, [theirs])):
            tracks = (await http.get("/tracks", headers=bearer(key))).json()["tracks"]
            assert [track["id"] for track in tracks] == ids
        problem_of(await http.get(f"/tracks/{theirs}", headers=bearer(READER)), "track-not-found", 404)
        problem_of(await http.delete(f"/tracks/{theirs}", headers=bearer(READER)), "track-not-found", 404)
        form = {"files": {"image": ("p.jpg", photo(1))}, "data": {"timestamp": "0"}}
        answer = await http.post(f"/tracks/{theirs}/localize", headers=bearer(READER), **form)
        problem_of(answer, "track-not-found", 404)
        assert (await http.delete(f"/tracks/{theirs}", headers=bearer(OTHER))).status_code == 204


async def test_tracks_without_keys_are_listed_for_all(http):
    opened = (await http.post("/tracks")).json()
    (listed,) = (await http.get("/tracks")).json()["tracks"]
    assert (listed["id"], listed["uses"]) == (opened["id"], {"fused": 0, "gated": 0, "lost": 0})


async def test_no_track_stays_for_longer_than_the_service_allows(start, problem_of):
    async with start(max_track_expiry_s=100) as http:
        problem = problem_of(await http.post("/tracks", data={"expiry_s": "101"}), "invalid-parameter", 422)
        assert (problem["limit"], "AEROFIX_MAX_TRACK_EXPIRY_S" in problem["detail"]) == (100, True)
        assert (await http.post("/tracks", data={"expiry_s": "100"})).status_code == 201


def dated(data, taken, fraction):
    """A photo that says when it was taken."""
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0x9003: taken, 0x9291: fraction, 0x9011: "+02:00"})
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).save(out, "JPEG", quality=95, exif=exif.tobytes())
    return out.getvalue()


async def test_photos_that_know_their_time_need_no_other(filled, photo, problem_of):
    url = await open_track(filled)

    def ask(data, **form):
        return filled.post(f"{url}/localize", files={"image": ("p.jpg", data)}, data=form)

    first = (await ask(dated(photo(1), "2025:06:14 10:12:00", "5"))).json()
    second = (await ask(dated(photo(2), "2025:06:14 10:12:10", "75"))).json()
    assert second["timestamp_s"] - first["timestamp_s"] == pytest.approx(10.25)
    assert first["timestamp_s"] == datetime(2025, 6, 14, 8, 12, 0, 500_000, UTC).timestamp()
    again = await ask(dated(photo(3), "2025:06:14 10:12:10", "75"))
    assert "later timestamp" in problem_of(again, "invalid-parameter", 422)["detail"]
    stated = (await ask(dated(photo(3), "2025:06:14 10:12:20", "0"), timestamp=first["timestamp_s"] + 20)).json()
    assert stated["timestamp_s"] == first["timestamp_s"] + 20
    problem_of(await ask(photo(4)), "missing-parameter", 422)
    refused = await ask(dated(photo(4), "2025:06:14 10:13:20", "0"), use_exif="false")
    assert "use_exif" in problem_of(refused, "missing-parameter", 422)["detail"]


async def test_the_history_of_a_flight(filled, photo, place, problem_of):
    url = await open_track(filled)
    answers = [(await send(filled, url, photo(column), 10 * column)).json() for column in range(4)]
    history = (await filled.get(f"{url}/history")).json()
    assert (history["track_id"], history["lens"]) == (url.rsplit("/", 1)[1], None)
    for entry, answer in zip(history["entries"], answers, strict=True):
        assert entry["status"] == answer["photo"]["status"]
        same = ("timestamp_s", "use", "confidence", "position", "velocity")
        assert {key: entry[key] for key in same} == {key: answer[key] for key in same}
    told = await filled.get(f"{url}/history", headers={"Accept": "application/geo+json"})
    assert told.headers["content-type"] == "application/geo+json"
    line, *points = told.json()["features"]
    assert line["geometry"]["type"] == "LineString"
    assert [point["geometry"]["coordinates"] for point in points] == line["geometry"]["coordinates"]
    for point, answer in zip(points, answers, strict=True):
        position = answer["position"]
        assert point["geometry"]["coordinates"] == pytest.approx([position["lon"], position["lat"]], abs=1e-9)
        assert point["properties"]["reference"] == position["reference"] == "ground point at image centre, WGS84"
        assert point["properties"]["timestamp_s"] == answer["timestamp_s"]
    problem_of(await filled.get("/tracks/nobody/history"), "track-not-found", 404)
