import json
import math

import numpy as np
import pytest
from PIL import Image

from service.geo import haversine_m

COLUMNS = range(8)


@pytest.fixture
async def filled(http, tile_request):
    response = await http.post("/gallery", **tile_request(*COLUMNS))
    assert response.status_code == 200
    return http


def send(http, *photos, headers=None, **form):
    return http.post("/localize", files=[("image", ("p.jpg", photo)) for photo in photos], data=form, headers=headers)


async def test_a_photo_of_a_tile_is_located_there(filled, photo, place):
    response = await send(filled, photo(3), top_k=4)
    assert response.status_code == 200
    answer = response.json()
    assert answer["status"] == "located"
    position, best = answer["position"], answer["candidates"][0]
    assert haversine_m(position["lat"], position["lon"], *place(3)) < 1
    assert position["confidence"] == best["confidence"] > 0.9
    assert 0 < position["accuracy_m"] < 96
    surely = position["sigma_m"] * math.sqrt(-2 * math.log(1 - 0.68 / position["confidence"]))
    assert position["accuracy_m"] == pytest.approx(surely)
    assert position["heading_deg"] is None
    assert position["reference"] == "ground point at image centre, WGS84"
    assert [candidate["rank"] for candidate in answer["candidates"]] == [1, 2, 3, 4]
    assert best["tile_id"] == "map/3"
    assert best["score"] > 0.95
    assert (best["lat"], best["lon"]) == (position["lat"], position["lon"])
    west, south, east, north = best["tile"]["bounds"]
    assert west < best["tile"]["lon"] < east
    assert south < best["tile"]["lat"] < north
    assert best["tile"]["gsd_m"] == pytest.approx(1.5, rel=1e-3)
    unknown = {"ground_width_m": None, "view_side_m": None, "tile_side_m": None}
    none = {"unused": {}, "disputed": {}, "looks": 1}
    assert answer["query"] == {"width": 64, "height": 64, "used": {}, "values": {}, "readings": {}} | none | unknown
    assert answer["searched_tiles"] == len(COLUMNS)
    assert answer["gallery_generation"] == (await filled.get("/gallery")).json()["generation"]
    assert answer["model_id"] == "tiny-0"
    assert answer["request_id"] == response.headers["x-request-id"]
    assert set(answer["timing_ms"]) == {"decode", "queue", "encode", "search", "rerank", "refine", "total"}
    assert answer["timing_ms"]["total"] >= max(answer["timing_ms"][step] for step in ("decode", "encode", "search"))


async def test_the_candidates_are_those_of_brute_force(filled, ground, encode_image):
    encoder = filled.app.state.encoder
    shrink = lambda image: np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC))  # noqa: E731
    tiles = encoder.encode(np.stack([shrink(ground(column, 64, 64)) for column in COLUMNS])).embedding
    query = encoder.encode(shrink(ground(77, 64, 64))[None]).embedding[0]
    expected = tiles @ query
    answer = (await send(filled, encode_image(ground(77, 64, 64)), top_k=8)).json()
    assert [c["tile_id"] for c in answer["candidates"]] == [f"map/{i}" for i in np.argsort(-expected)]
    np.testing.assert_allclose([c["score"] for c in answer["candidates"]], np.sort(expected)[::-1], atol=2e-3)


async def test_another_place_is_not_found_and_its_candidates_are_listed(filled, photo):
    answer = (await send(filled, photo(99))).json()
    assert answer["status"] == "not_found"
    assert answer["position"] is None
    assert len(answer["candidates"]) == 5


async def test_two_places_that_look_alike_are_ambiguous(http, tile_request, photo, place):
    for column, look in ((0, 5), (20, 5)):
        form = tile_request(look)
        lat, lon = place(column)
        form["data"]["tiles"] = json.dumps([{"id": f"twin/{column}", "lat": lat, "lon": lon, "gsd_m": 1.5}])
        await http.post("/gallery", **form)
    answer = (await send(http, photo(5))).json()
    assert answer["status"] == "ambiguous"
    twins = [haversine_m(answer["position"]["lat"], answer["position"]["lon"], *place(column)) for column in (0, 20)]
    assert answer["position"]["accuracy_m"] > max(twins)


async def test_a_prior_limits_the_search(filled, photo, place):
    lat, lon = place(6)
    answer = (await send(filled, photo(3), prior_lat=lat, prior_lon=lon, prior_radius_m=250)).json()
    assert answer["searched_tiles"] == 3
    assert {candidate["tile_id"] for candidate in answer["candidates"]} == {"map/5", "map/6", "map/7"}
    assert answer["query"]["used"] == {"prior": "form"}


async def test_a_prior_without_tiles_finds_nothing(filled, photo):
    answer = (await send(filled, photo(3), prior_lat=-20, prior_lon=10, prior_radius_m=500)).json()
    assert (answer["status"], answer["position"], answer["candidates"], answer["searched_tiles"]) == (
        "not_found",
        None,
        [],
        0,
    )


async def test_a_heading_turns_the_photo_north_up(filled, ground, encode_image):
    """A photo whose top faces east shows the ground turned by 90° counter-clockwise."""
    turned = encode_image(ground(3, 64, 64).transpose(Image.Transpose.ROTATE_90))
    answer = (await send(filled, turned, heading_deg=90)).json()
    assert (answer["status"], answer["candidates"][0]["tile_id"]) == ("located", "map/3")
    assert answer["query"]["used"] == {"heading_deg": "form"}
    assert (await send(filled, turned)).json()["status"] != "located"


async def test_height_and_field_of_view_give_the_tile_scale(filled, ground, encode_image):
    """A photo of 192 m of ground, of which the middle 96 m are the tile."""
    wide = ground(50, 128, 128)
    wide.paste(ground(3, 64, 64), (32, 32))
    answer = (await send(filled, encode_image(wide), altitude_m=96, hfov_deg=90)).json()
    assert (answer["status"], answer["candidates"][0]["tile_id"]) == ("located", "map/3")
    query = answer["query"]
    assert query["used"] == {"altitude_m": "form", "hfov_deg": "form"}
    assert query["values"] == {"altitude_m": 96, "hfov_deg": 90}
    assert query["ground_width_m"] == pytest.approx(192)
    assert query["view_side_m"] == pytest.approx(query["tile_side_m"], abs=1)
    assert query["tile_side_m"] == pytest.approx(96, abs=0.1)
    assert (await send(filled, encode_image(wide))).json()["status"] != "located"


async def test_of_several_tile_sizes_the_one_of_the_photo_counts(filled, tile_request, ground, encode_image, place):
    """Over the tiles of 96 m lies one of 384 m. A photo of either ground size finds the tile of its size."""
    lat, lon = place(3)
    form = tile_request(50)
    form["data"]["tiles"] = json.dumps([{"id": "large", "lat": lat, "lon": lon, "gsd_m": 6.0}])
    form["files"] = [("image", ("large.png", encode_image(ground(3, 64, 64))))]  # looks like map/3, only larger
    await filled.post("/gallery", **form)
    photo = encode_image(ground(3, 64, 64))
    small = (await send(filled, photo, altitude_m=48, hfov_deg=90)).json()
    assert (small["candidates"][0]["tile_id"], small["query"]["tile_side_m"]) == ("map/3", pytest.approx(96, abs=0.1))
    large = (await send(filled, photo, altitude_m=192, hfov_deg=90)).json()
    assert (large["candidates"][0]["tile_id"], large["query"]["tile_side_m"]) == ("large", pytest.approx(384, abs=0.1))
    assert "large" not in {candidate["tile_id"] for candidate in small["candidates"]}
    assert "map/3" not in {candidate["tile_id"] for candidate in large["candidates"]}


def exif_photo(encode_image, image, place, xmp=b'<d drone-dji:FlightYawDegree="90"/>'):
    exif = Image.Exif()
    lat, lon = place
    exif.get_ifd(0x8825).update({1: "N", 2: (lat, 0.0, 0.0), 3: "E", 4: (lon, 0.0, 0.0)})
    return encode_image(image, "JPEG", quality=90, exif=exif, xmp=xmp)


async def test_exif_fills_what_the_form_leaves_out(filled, ground, encode_image, place):
    data = exif_photo(encode_image, ground(3, 64, 64).transpose(Image.Transpose.ROTATE_90), place(3))
    answer = (await send(filled, data)).json()
    assert (answer["status"], answer["query"]["used"]) == ("located", {"heading_deg": "exif"})
    assert answer["query"]["readings"] == {"heading_deg": "flight yaw"}
    assert (await send(filled, data, use_exif="false")).json()["query"]["used"] == {}
    assert (await send(filled, data, heading_deg=0)).json()["query"]["used"] == {"heading_deg": "form"}


async def test_the_exif_position_counts_only_when_asked_for(filled, ground, encode_image, place):
    data = exif_photo(encode_image, ground(3, 64, 64), place(7), b"")
    assert (await send(filled, data)).json()["searched_tiles"] == len(COLUMNS)
    answer = (await send(filled, data, use_exif_position="true")).json()
    assert answer["searched_tiles"] == 3  # 500 m round column 7 of a row of 200 m steps that ends there
    assert answer["query"]["used"] == {"prior": "exif"}


async def test_without_refinement_the_position_is_a_tile_centre(http, tile_request, photo, place):
    form = tile_request(0, 1)
    lat, lon = place(0)
    entries = [
        {"id": "a", "lat": lat, "lon": lon, "gsd_m": 1.5},
        {"id": "b", "lat": lat, "lon": lon + 5e-4, "gsd_m": 1.5},
    ]
    form["files"][1] = ("image", ("a.jpg", photo(0, optimize=True)))
    form["data"]["tiles"] = json.dumps(entries)
    await http.post("/gallery", **form)
    plain = (await send(http, photo(0), refine="false")).json()["position"]
    refined = (await send(http, photo(0))).json()["position"]
    assert min(abs(plain["lon"] - lon), abs(plain["lon"] - lon - 5e-4)) < 1e-9
    assert lon + 1e-5 < refined["lon"] < lon + 4.9e-4


async def test_geojson(filled, photo, place):
    response = await send(filled, photo(3), headers={"Accept": "application/geo+json"}, top_k=2)
    assert response.headers["content-type"] == "application/geo+json"
    body = response.json()
    point, *tiles = body["features"]
    assert body["type"] == "FeatureCollection"
    assert body["status"] == "located"
    assert point["geometry"]["type"] == "Point"
    assert point["geometry"]["coordinates"] == pytest.approx(place(3)[::-1], abs=1e-5)
    assert point["properties"]["accuracy_m"] > 0
    assert tiles[0]["id"] == "map/3"
    for tile in tiles:
        (ring,) = tile["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert len(ring) == 5
        x, y = np.array(ring).T
        assert np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) > 0  # counter-clockwise


@pytest.mark.parametrize("accept", ["*/*", "image/png", "", "application/json, application/geo+json;q=0.5", ";;,,q=x"])
async def test_everything_else_gets_json(filled, photo, accept):
    response = await send(filled, photo(3), headers={"Accept": accept})
    assert response.headers["content-type"] == "application/json"
    assert response.json()["status"] == "located"


async def test_several_photos_each_have_their_own_answer(filled, photo, problem_of):
    response = await send(filled, photo(1), b"not an image", photo(2)[:700], photo(6))
    assert response.status_code == 200
    first, text, cut, last = response.json()["results"]
    assert first["candidates"][0]["tile_id"] == "map/1"
    assert last["candidates"][0]["tile_id"] == "map/6"
    assert text["problem"]["type"] == "/problems/unsupported-media-type"
    assert cut["problem"]["type"] == "/problems/image-truncated"
    collection = (await send(filled, photo(1), b"no", headers={"Accept": "application/geo+json"})).json()
    assert {feature["properties"]["photo"] for feature in collection["features"]} == {0}
    assert [result.get("status") for result in collection["results"]] == ["located", None]


async def test_an_unexpected_failure_of_one_photo_stays_its_own(filled, photo, monkeypatch):
    localizer = filled.app.state.localizer
    real = type(localizer).localize

    async def flaky(self, data, *args, **kwargs):
        if data == photo(2):
            raise ZeroDivisionError("secret")
        return await real(self, data, *args, **kwargs)

    monkeypatch.setattr(type(localizer), "localize", flaky)
    first, broken = (await send(filled, photo(1), photo(2))).json()["results"]
    assert first["status"] == "located"
    assert broken["problem"]["type"] == "/problems/internal-error"
    assert "secret" not in json.dumps(broken)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/localize", "altitude_m"),
        ("/tracks", "max_speed_m_s"),
        ("/tracks/7/localize", "timestamp"),
        ("/gallery", "tiles"),
    ],
)
async def test_a_mistyped_field_is_not_taken_for_none(filled, photo, problem_of, path, named):
    answer = await filled.post(path, files={"image": ("p.jpg", photo(1))}, data={"altitude": "90"})
    assert named in problem_of(answer, "invalid-parameter", 422)["detail"]


async def test_an_empty_field_names_no_map(start, tile_request, photo):
    async with start() as http:
        await http.post("/gallery", **tile_request(1))
        answer = await http.post("/localize", files={"image": ("p.jpg", photo(1))}, data={"maps": ""})
    assert answer.json()["searched_tiles"] == 1
