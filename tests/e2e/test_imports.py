"""Whole maps, added in the background over HTTP."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image
from sending import Held, finished, send


@pytest.fixture
def pyramid(ground, encode_image):
    """``pyramid(count)``: a zip of that many z/x/y tiles in a row."""

    def make(count, **extra):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as file:
            for n in range(count):
                file.writestr(f"17/{109_000 + n}/56000.png", encode_image(ground(n, 256, 256)))
            for name, data in extra.items():
                file.writestr(name, data)
        return out.getvalue()

    return make


async def best_of(http, photo, **form):
    answer = (await http.post("/localize", files={"image": ("p.png", photo)}, data=form)).json()
    return answer["candidates"][0]


async def test_a_geotiff_becomes_a_map_that_is_searched_at_every_scale(http, geotiff, window, tmp_path):
    response = await send(http, geotiff(), "town.tif")
    assert response.json()["state"] == "queued"
    state = await finished(http, response)
    assert (state["state"], state["map"], state["done"]) == ("done", "town", state["total"])
    assert state["added"] == (await http.get("/gallery")).json()["count"]
    (town,) = (await http.get("/maps")).json()["maps"]
    assert (town["name"], town["windows"], town["origin"]) == ("town", state["added"], "town.tif")
    assert [level["zoom"] for level in town["levels"]][:2] == [16, 15]
    found = await best_of(http, window(3, 2))
    assert (found["map"], found["tile_id"]) == ("town", "town/16/448003/875002")
    assert found["score"] > 0.99  # but for the compression of the stored pixels
    image = await http.get("/gallery/tiles/town/16/448003/875002/image")
    shown = np.asarray(Image.open(io.BytesIO(image.content)).convert("RGB")).astype(int)
    assert np.abs(shown - np.asarray(Image.open(io.BytesIO(window(3, 2))).convert("RGB"))).mean() < 4
    assert list((tmp_path / "g.gallery-imports").iterdir()) == []
    assert (await http.get("/gallery/imports")).json()["imports"] == [state]


async def test_a_coarser_photo_is_found_on_a_coarser_level(http, geotiff, ground, encode_image):
    await finished(http, await send(http, geotiff(width=256, height=256), "town.tif"))
    photo = encode_image(ground(4, 256, 256).crop((64, 96, 128, 160)).resize((32, 32)))
    found = await best_of(http, photo)
    assert found["tile_id"] == "town/15/224003/437502"


async def test_a_name_that_is_taken_is_refused_with_the_ways_out(http, geotiff, window, problem_of):
    await finished(http, await send(http, geotiff(), "town.tif"))
    before = (await http.get("/gallery")).json()
    problem = problem_of(await send(http, geotiff(7), "town.tif"), "map-exists", 409)
    assert "or --replace or --extend it" in problem["detail"]
    problem_of(await send(http, geotiff(7), "other.tif", map="town"), "map-exists", 409)
    problem_of(await send(http, geotiff(7), "town.tif", replace="true", extend="true"), "invalid-parameter", 422)
    assert (await http.get("/gallery")).json() == before
    second = await finished(http, await send(http, geotiff(7), "town.tif", map="second"))
    assert second["map"] == "second"
    assert (await best_of(http, window(3, 2, seed=7)))["map"] == "second"
    assert (await best_of(http, window(3, 2, seed=7), maps="town"))["map"] == "town"
    problem_of(await http.post("/localize", files={"image": window(1, 1)}, data={"maps": "x"}), "map-not-found", 404)


async def test_a_map_takes_the_place_of_another_when_it_is_whole(http, geotiff, window, monkeypatch):
    await finished(http, await send(http, geotiff(), "town.tif"))
    held = Held(http, monkeypatch)
    response = await send(http, geotiff(7), "newer.tif", map="town", replace="true")
    await held.reached()
    assert (await best_of(http, window(3, 2)))["score"] > 0.99
    assert (await best_of(http, window(3, 2, seed=7)))["score"] < 0.9
    held.released.set()
    state = await finished(http, response)
    assert state["state"] == "done"
    assert (await best_of(http, window(3, 2, seed=7)))["score"] > 0.99
    assert (await best_of(http, window(3, 2)))["score"] < 0.9
    assert [each["name"] for each in (await http.get("/maps")).json()["maps"]] == ["town"]


async def test_a_cancelled_replacement_leaves_the_old_map(http, geotiff, window, monkeypatch):
    await finished(http, await send(http, geotiff(), "town.tif"))
    before = (await http.get("/gallery")).json()["count"]
    held = Held(http, monkeypatch)
    response = await send(http, geotiff(7), "town.tif", replace="true")
    await held.reached()
    await http.delete(response.headers["location"])
    held.released.set()
    await finished(http, await send(http, geotiff(9), "other.tif"))
    await http.delete("/maps/other")
    assert (await http.get("/gallery")).json()["count"] == before
    assert (await best_of(http, window(3, 2)))["score"] > 0.99


async def test_a_map_is_extended(http, geotiff, ground, encode_image, write_map, tmp_path):
    """The west half and then the east half give nearly what the whole gives: also windows across the seam."""
    whole = ground(4, 256, 128)
    for name, box in (("west", (0, 0, 128, 128)), ("east", (128, 0, 256, 128))):
        data = write_map(tmp_path / "half.tif", whole.crop(box), left=16 * 875_000 + box[0]).read_bytes()
        state = await finished(http, await send(http, data, f"{name}.tif", map="town", extend="true"))
        assert state["state"] == "done", state
    (town,) = (await http.get("/maps")).json()["maps"]
    found = await best_of(http, encode_image(whole.crop((112, 48, 144, 80))))
    assert (found["tile_id"], found["score"] > 0.98) == ("town/16/448003/875007", True)
    await finished(http, await send(http, write_map(tmp_path / "w.tif", whole).read_bytes(), "whole.tif"))
    (_, other) = (await http.get("/maps")).json()["maps"]
    assert town["bounds"] == pytest.approx(other["bounds"], abs=1e-6)
    assert town["windows"] == other["windows"]


async def test_experts_choose_sizes_and_overlap(http, geotiff, problem_of):
    state = await finished(http, await send(http, geotiff(), tile_size_m=["70", "140"], overlap="0", map="few"))
    (few,) = (await http.get("/maps")).json()["maps"]
    assert [level["zoom"] for level in few["levels"]] == [16, 15]
    assert state["added"] < 4 * 4 + 5 * 5
    problem = problem_of(await send(http, geotiff(), overlap="0.3", map="x"), "invalid-parameter", 422)
    assert "by half" in problem["detail"]
    problem = problem_of(await send(http, geotiff(), tile_size_m="1", map="x"), "invalid-parameter", 422)
    assert "windows here are" in problem["detail"]


async def test_a_map_of_one_colour_is_refused_and_leaves_nothing(http, write_map, tmp_path):
    image = Image.new("RGB", (128, 128), (90, 120, 60))
    response = await send(http, write_map(tmp_path / "flat.tif", image).read_bytes(), "flat.tif")
    if response.status_code == 202:
        state = await finished(http, response)
        assert state["state"] == "failed"
        response = (await http.get("/maps")).json()
        assert response == {"maps": []}
    else:
        assert response.status_code == 422
    assert (await http.get("/gallery")).json()["count"] == 0


async def test_a_pyramid(http, pyramid, encode_image, ground):
    state = await finished(http, await send(http, pyramid(4), "osm.zip"))
    assert (state["state"], state["map"], state["failed"]) == ("done", "osm", 0)
    assert (await best_of(http, encode_image(ground(2, 256, 256).crop((64, 96, 96, 128)))))["map"] == "osm"


def zip_of(name, data=b"x"):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "slug", "status"),
    [
        (b"text", "unsupported-media-type", 415),
        (b"", "unsupported-media-type", 415),
        (b"II*\0broken", "source-unreadable", 422),
        (b"PK\x03\x04broken", "archive-refused", 422),
        (zip_of("../17/1/1.png"), "archive-refused", 422),
        (zip_of("17/1/1.png", bytes(5 * 2**20)), "archive-refused", 422),
        (zip_of("readme.txt"), "source-unreadable", 422),
    ],
)
async def test_what_cannot_be_imported_is_refused_at_once(http, problem_of, tmp_path, data, slug, status):
    problem = problem_of(await send(http, data, "my map.tif"), slug, status)
    assert str(tmp_path) not in problem["detail"]
    assert (await http.get("/gallery/imports")).json() == {"imports": []}
    assert list((tmp_path / "g.gallery-imports").iterdir()) == []


async def test_an_unreadable_map_is_called_what_its_sender_calls_it(http, problem_of):
    assert (
        "my map.tif cannot be read"
        in problem_of(await send(http, b"II*\0", "my map.tif"), "source-unreadable", 422)["detail"]
    )


@pytest.mark.parametrize(
    ("form", "named"),
    [
        ({"overlap": "0.7"}, "overlap"),
        ({"tile_size_m": "small"}, "tile_size_m"),
        ({"tile_size_m": "0.1"}, "tile_size_m"),
        ({"tile_size_m": "1,2,3,4,5,6,7,8,9"}, "tile_size_m"),
        ({"tile_size_m": "nan"}, "tile_size_m"),
        ({"tile_size_m": "2"}, "tile_size_m"),
        ({"map": "a/b"}, "map"),
        ({"scheme": "wms"}, "scheme"),
        ({"date": "17.05.2024"}, "2024-05-17"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_bad_options(http, geotiff, problem_of, form, named):
    assert named in problem_of(await send(http, geotiff(), **form), "invalid-parameter", 422)["detail"]


async def test_uploads_have_a_limit_of_their_own(start, geotiff, problem_of, tmp_path):
    data = geotiff()
    async with start(max_body_bytes=2000, max_import_bytes=len(data) + 2000) as http:
        assert (await send(http, data)).status_code == 202
        problem = problem_of(await send(http, data + bytes(5000)), "body-too-large", 413)
        assert "AEROFIX_MAX_IMPORT_BYTES" in problem["detail"]

        async def unannounced():
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="m.tif"\r\n\r\n'
            for _ in range(5):
                yield data + bytes(60_000)

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        problem_of(await http.post("/gallery/imports", content=unannounced(), headers=headers), "body-too-large", 413)
        live = [each["id"] for each in (await http.get("/gallery/imports")).json()["imports"]]
        assert {path.name for path in (tmp_path / "g.gallery-imports").iterdir()} <= set(live)


async def test_an_unknown_import(http, problem_of):
    for method in ("GET", "DELETE"):
        problem_of(await http.request(method, "/gallery/imports/0123456789abcdef"), "import-not-found", 404)
