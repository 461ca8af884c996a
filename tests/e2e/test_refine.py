"""A service whose model gives local descriptors: 8 × 8 cells of 12 m each, on tiles of 96 m."""

import json

import numpy as np
import pytest
from PIL import Image

from service.geo import haversine_m, offset
from service.ground.gallery import Gallery

COLUMNS = range(6)
# As a fit might give for 64 cells: chance makes fewer than 12 agree, and four times as many are beyond doubt.
SECTION = {"min_inliers": 12, "inlier_weight": 0.8, "sigma_tiles": 0.02}


@pytest.fixture
def with_local(settings, tiny_model, tmp_path, calibration_json):
    """``with_local(section)``: the path of a model with descriptors, and a section ``local`` in its calibration."""

    def make(section=None):
        text = json.dumps(calibration_json | ({} if section is None else {"local": section}))
        return tiny_model(tmp_path / "local.onnx", local=True, metadata={"calibration": text})

    return make


@pytest.fixture
def send(ground, encode_image):
    """``send(http, column, turns)``: localize a photo of that tile, turned counter-clockwise by quarters."""

    async def ask(http, column, turns=0, **form):
        image = ground(column, 64, 64).rotate(90 * turns)
        return (await http.post("/localize", files={"image": ("p.png", encode_image(image))}, data=form)).json()

    return ask


@pytest.mark.parametrize("tried", [1, 4])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_a_turned_photo_is_found_by_its_descriptors(start, with_local, tile_request, send, place, turns, tried):
    """The tiny model's embedding is that of a north-up photo only; what it shows, turned, must find it."""
    async with start(model=with_local(SECTION | {"turns": tried})) as http:
        await http.post("/gallery", **tile_request(*COLUMNS))
        answer = await send(http, 3, turns)
    best, *others = answer["candidates"]
    assert (answer["status"], best["tile_id"]) == ("located", "map/3")
    assert best["inliers"] > 40
    assert all(other["inliers"] < 12 for other in others)
    position = answer["position"]
    assert haversine_m(position["lat"], position["lon"], *place(3)) < 2
    assert (position["heading_deg"] - 90 * turns + 180) % 360 - 180 == pytest.approx(0, abs=2)
    assert 0.5 < position["accuracy_m"] < 5  # that of a position from matches
    assert position["sigma_m"] < position["accuracy_m"]


async def test_the_details_that_were_found_are_told_when_asked_for(start, with_local, tile_request, send, place):
    """Of a photo that shows a whole tile of 96 m, north up, every pixel's place is known."""
    async with start(model=with_local(SECTION)) as http:
        await http.post("/gallery", **tile_request(*COLUMNS))
        assert (await send(http, 3))["matches"] is None
        answer = await send(http, 3, matches="true")
    assert len(answer["matches"]) > 40
    for match in answer["matches"]:
        right_m, up_m = (match["x"] - 32) * 1.5, (32 - match["y"]) * 1.5
        true = offset(*place(3), right_m, up_m)
        assert haversine_m(match["lat"], match["lon"], *map(float, true)) < 12  # a cell


async def test_a_heading_that_is_given_is_checked(start, with_local, tile_request, send):
    """The photo's top faces east, and a view that is turned by another heading says so."""
    async with start(model=with_local(SECTION)) as http:
        await http.post("/gallery", **tile_request(*COLUMNS))
        for hint in (90, 180, 360):
            answer = await send(http, 3, 1, heading_deg=hint)
            right = hint == 90
            assert answer["query"]["used"] == ({"heading_deg": "form"} if right else {})
            assert ("90°" in answer["query"]["disputed"].get("heading_deg", "")) != right
            assert answer["position"]["heading_deg"] == pytest.approx(90, abs=2)


async def test_without_refinement_candidates_are_still_matched(start, with_local, tile_request, send, place):
    async with start(model=with_local(SECTION)) as http:
        await http.post("/gallery", **tile_request(*COLUMNS))
        answer = await send(http, 3, 1, refine="false")
    assert answer["candidates"][0]["tile_id"] == "map/3"
    position = answer["position"]
    assert haversine_m(position["lat"], position["lon"], *place(3)) < 1e-3
    assert position["heading_deg"] is None
    assert position["accuracy_m"] > 20  # a tile's centre is as far off as the model file says of those


async def test_a_model_file_that_says_nothing_of_inliers_is_not_made_surer_by_them(
    start, with_local, tile_request, send
):
    async with start(model=with_local()) as http:
        await http.post("/gallery", **tile_request(*COLUMNS))
        north_up, turned = await send(http, 3), await send(http, 3, 1)
    assert (north_up["status"], north_up["candidates"][0]["tile_id"]) == ("located", "map/3")
    assert north_up["position"]["heading_deg"] == pytest.approx(0, abs=2) or north_up["position"]["heading_deg"] > 358
    assert turned["status"] != "located"


async def test_a_photo_of_another_place_is_laid_nowhere(start, with_local, tile_request, send):
    async with start(model=with_local(SECTION)) as http:
        await http.post("/gallery", **tile_request(*COLUMNS))
        answer = await send(http, 99)
    assert answer["status"] == "not_found"
    assert all(candidate["inliers"] < 12 for candidate in answer["candidates"])


async def test_a_photo_between_two_tiles(start, with_local, ground, encode_image, place):
    """Two tiles that touch, cut out of one ground; the photo shows half of each."""
    wide = ground(3, 128, 64)
    entries, files = [], []
    for i, east_m in enumerate((0.0, 96.0)):
        lat, lon = offset(*place(0), east_m, 0.0)
        entries.append({"id": f"half/{i}", "lat": float(lat), "lon": float(lon), "gsd_m": 1.5})
        files.append(("image", (f"{i}.png", encode_image(wide.crop((64 * i, 0, 64 * i + 64, 64))))))
    photo = encode_image(wide.crop((32, 0, 96, 64)).transpose(Image.Transpose.ROTATE_180))
    async with start(model=with_local(SECTION)) as http:
        await http.post("/gallery", files=files, data={"tiles": json.dumps(entries)})
        answer = (await http.post("/localize", files={"image": ("p.png", photo)})).json()
    lat, lon = offset(*place(0), 48.0, 0.0)
    position = answer["position"]
    assert haversine_m(position["lat"], position["lon"], float(lat), float(lon)) < 4  # a third of a cell
    assert position["heading_deg"] == pytest.approx(180, abs=4)


async def test_descriptors_survive_a_restart_and_models_without_answer_as_before(
    start, settings, with_local, tile_request, send
):
    model = with_local(SECTION)
    async with start(model=model) as http:
        await http.post("/gallery", **tile_request(*COLUMNS))
        before = await send(http, 3, 1)
        identity = http.app.state.encoder.contract.identity
    with Gallery.open(settings().gallery, identity, 32) as gallery:
        hits = gallery.search(np.eye(32, dtype=np.float32)[:1], 100)[0]
        assert [local.shape for local in gallery.local_maps(hits)] == [(3, 8, 8)] * len(COLUMNS)
    async with start(model=model) as http:
        after = await send(http, 3, 1)
    async with start() as http:  # the same weights without descriptors: the gallery fits, and none are asked for
        plain = await send(http, 3)
    assert [after[key] for key in ("position", "candidates")] == [before[key] for key in ("position", "candidates")]
    assert plain["position"]["heading_deg"] is None
    assert [candidate["inliers"] for candidate in plain["candidates"]] == [None] * 5
