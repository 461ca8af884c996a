import asyncio
import json

import pytest

from service.ground.gallery import Gallery
from service.ground.tile import MAX_PROPERTIES_BYTES
from service.routes.gallery import MAX_ENTRY_BYTES, _entries


async def test_tiles_are_added_and_updated(http, tile_request):
    response = await http.post("/gallery", **tile_request(1, 2))
    assert response.status_code == 200
    first = response.json()
    assert (first["added"], first["updated"], first["failed"], first["count"]) == (2, 0, 0, 2)
    assert first["tiles"] == [{"id": "map/1", "status": "added"}, {"id": "map/2", "status": "added"}]
    second = (await http.post("/gallery", **tile_request(2, 3))).json()
    assert (second["added"], second["updated"], second["count"]) == (1, 1, 3)
    assert second["generation"] > first["generation"]


async def test_the_gallery_is_described(http, tile_request, place):
    empty = (await http.get("/gallery")).json()
    assert (empty["count"], empty["bounds"], empty["tile_side_m"]) == (0, None, None)
    await http.post("/gallery", **tile_request(0, 4))
    state = (await http.get("/gallery")).json()
    west, south, east, north = state["bounds"]
    assert west < place(0)[1] < place(4)[1] < east
    assert south < place(0)[0] < north
    assert state["count"] == 2
    assert state["tile_side_m"] == pytest.approx(96, rel=1e-3)
    assert state["identity"] == (await http.get("/model")).json()["identity"]
    assert state["index"]


async def test_a_tile_without_an_id_gets_a_stable_one(http, tile_request):
    form = tile_request(1)
    entry = json.loads(form["data"]["tiles"])[0]
    del entry["id"]
    form["data"]["tiles"] = json.dumps([entry])
    once, twice = [(await http.post("/gallery", **form)).json() for _ in range(2)]
    assert once["tiles"][0]["status"] == "added"
    assert twice["tiles"][0] == {"id": once["tiles"][0]["id"], "status": "updated"}


BAD_ENTRIES = {
    "corners counter-clockwise": ({"corners": [[1, 1], [0.999, 1], [0.999, 1.001], [1, 1.001]]}, "invalid-footprint"),
    "corners as lon, lat": (
        {"corners": [[120.7, 24.3], [120.8, 24.3], [120.8, 24.2], [120.7, 24.2]]},
        "invalid-footprint",
    ),
    "south above north": ({"bounds": [1, 2, 1.001, 1.999]}, "invalid-footprint"),
    "no footprint": ({}, "invalid-footprint"),
    "two footprints": ({"bounds": [1, 1, 1.001, 1.001], "z": 1, "x": 0, "y": 0}, "invalid-footprint"),
    "an id that is a number": ({"id": 7, "lat": 1, "lon": 1, "gsd_m": 1}, "invalid-parameter"),
    "an empty id": ({"id": "", "lat": 1, "lon": 1, "gsd_m": 1}, "invalid-parameter"),
    "properties that are a list": ({"lat": 1, "lon": 1, "gsd_m": 1, "properties": []}, "invalid-parameter"),
    "properties with half a character": (
        {"id": "a", "lat": 1, "lon": 1, "gsd_m": 1, "properties": {"a": "\ud800"}},
        "invalid-parameter",
    ),
    "an id with half a character": ({"id": "\ud800", "lat": 1, "lon": 1, "gsd_m": 1}, "invalid-parameter"),
    "a number that no float holds": ({"lat": 10**400, "lon": 1, "gsd_m": 1}, "invalid-footprint"),
    "no object": ("tile", "invalid-parameter"),
}


@pytest.mark.parametrize(("entry", "slug"), BAD_ENTRIES.values(), ids=BAD_ENTRIES)
async def test_a_bad_entry_carries_its_problem_and_stops_nothing(http, tile_request, entry, slug):
    form = tile_request(1, 2, 3)
    entries = json.loads(form["data"]["tiles"])
    entries[1] = entry
    form["data"]["tiles"] = json.dumps(entries)
    response = await http.post("/gallery", **form)
    assert response.status_code == 200
    answer = response.json()
    assert (answer["added"], answer["failed"], answer["count"]) == (2, 1, 2)
    assert [tile["status"] for tile in answer["tiles"]] == ["added", "failed", "added"]
    problem = answer["tiles"][1]["problem"]
    assert problem["type"] == f"/problems/{slug}"
    assert problem["detail"]


async def test_a_bad_image_carries_its_problem_and_stops_nothing(http, tile_request, photo):
    form = tile_request(1, 2, 3)
    form["files"][0] = ("image", ("a.png", b"no image"))
    form["files"][2] = ("image", ("c.jpg", photo(3)[:400]))
    answer = (await http.post("/gallery", **form)).json()
    kinds = [tile.get("problem", {}).get("type") for tile in answer["tiles"]]
    assert kinds == ["/problems/unsupported-media-type", None, "/problems/image-truncated"]
    assert [tile["id"] for tile in answer["tiles"]] == ["map/1", "map/2", "map/3"]


@pytest.mark.parametrize("tiles", ["", "{", "{}", "[]", "[{}, {}]", "[" * 100_000])
async def test_tiles_must_be_an_array_as_long_as_the_images(http, tile_request, problem_of, tiles):
    form = tile_request(1)
    form["data"]["tiles"] = tiles
    slug = "missing-parameter" if tiles == "" else "invalid-parameter"
    problem_of(await http.post("/gallery", **form), slug, 422)


async def test_too_many_tiles(start, tile_request, problem_of):
    async with start(max_images=2) as http:
        assert problem_of(await http.post("/gallery", **tile_request(1, 2, 3)), "invalid-parameter", 422)["limit"] == 2


async def test_thumbnails_and_properties_are_kept(start, tile_request, settings):
    async with start() as http:
        await http.post("/gallery", **tile_request(1, properties={"flight": 7}))
        identity = http.app.state.encoder.contract.identity
    with Gallery.open(settings().gallery, identity, 32) as gallery:
        assert gallery.tile("map/1").properties == {"flight": 7}
        assert gallery.image("map/1").startswith(b"\xff\xd8\xff")


async def test_tiles_survive_a_restart(start, tile_request, photo):
    async with start() as http:
        await http.post("/gallery", **tile_request(1, 2))
    async with start() as http:
        answer = (await http.post("/localize", files={"image": ("p", photo(2))})).json()
        assert answer["candidates"][0]["tile_id"] == "map/2"


async def test_tiles_that_are_allowed_one_by_one_are_allowed_together(http, ground, encode_image, place, problem_of):
    """With properties as large as they may be, written as wastefully as JSON may, and as many tiles as may be."""
    count, image = http.app.state.settings.max_images, encode_image(ground(1, 16, 16))
    entries = []
    for column in range(count):
        lat, lon = place(column)
        properties = {"note": "ü" * ((MAX_PROPERTIES_BYTES - len('{"note": ""}')) // 2)}  # 6 bytes each in plain ASCII
        entries.append(
            {"id": f"t/{column}" + "x" * 190, "lat": lat, "lon": lon, "gsd_m": 3.0, "properties": properties}
        )
    files = [("image", ("t.png", image))] * count
    answer = (await http.post("/gallery", files=files, data={"tiles": json.dumps(entries)})).json()
    assert (answer.get("added"), answer.get("failed")) == (count, 0), answer
    page = (await http.get(f"/gallery/tiles?limit={count}")).json()
    assert page["tiles"][0]["properties"] == entries[0]["properties"]


async def test_a_text_field_beyond_its_limit_is_told_with_the_limit(http, problem_of):
    limit = http.app.state.settings.max_images * MAX_ENTRY_BYTES
    answer = await http.post("/gallery", files={"image": b"-"}, data={"tiles": "x" * (limit + 1)})
    problem = problem_of(answer, "body-too-large", 413)
    assert (problem["limit"], str(limit) in problem["detail"]) == (limit, True)


async def test_too_many_parts_are_told_with_their_number(http, problem_of):
    files = [("image", ("t.png", b"-"))] * 1001
    assert "1000" in problem_of(await http.post("/gallery", files=files), "invalid-parameter", 422)["detail"]


ENTRIES = {
    "nothing": (" ", "entry 0"),
    "no array": ('{"a": 1}', "one object for each of the 2 images"),
    "no end": ("[{}, {}", "entry 2"),
    "no entry": ("[{}, ]", "entry 1"),
    "no comma": ("[{} {}]", "entry 1"),
    "something behind": ("[{}, {}] x", "entry 2"),
    "one": ("[{}]", "one object for each of the 2 images."),
    "none": (" [ ] ", "one object for each of the 2 images."),
    "three": ("[{}, {}, {}]", "one object for each of the 2 images."),
    "a large one": ('[{}, "' + "x" * MAX_ENTRY_BYTES + '"]', f"more than {MAX_ENTRY_BYTES} characters"),
    "deep": ("[" * 100_000, "entry 0"),
}


@pytest.mark.parametrize(("tiles", "says"), ENTRIES.values(), ids=ENTRIES)
async def test_tiles_that_are_no_array_of_as_many_entries(http, problem_of, tiles, says):
    files = [("image", ("t.png", b"-"))] * 2
    problem = problem_of(await http.post("/gallery", files=files, data={"tiles": tiles}), "invalid-parameter", 422)
    assert says in problem["detail"]


async def test_space_in_the_array_means_nothing(http, tile_request):
    form = tile_request(1, 2)
    entries = json.loads(form["data"]["tiles"])
    form["data"]["tiles"] = "\n [\t" + " ,\r\n".join(json.dumps(each, indent=2) for each in entries) + " ] \n"
    assert (await http.post("/gallery", **form)).json()["added"] == 2


async def test_a_large_array_does_not_stop_the_loop():
    """Whoever else is in the loop has a turn between its entries."""
    turns = 0

    async def tick():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    ticking = asyncio.create_task(tick())
    assert len(await _entries("[" + ",".join(["[" + "[]," * 10_000 + "[]]"] * 64) + "]", 64, 64)) == 64
    ticking.cancel()
    assert turns >= 63
