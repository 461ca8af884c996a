"""Tiles one by one and by area: listed, looked at, deleted, over HTTP."""

import io

import pytest
from PIL import Image

from service.imaging.decode import decode


async def listed(http, **params):
    """All ids, page by page."""
    ids, cursor = [], "0"
    while cursor is not None:
        page = (await http.get("/gallery/tiles", params=params | {"cursor": cursor})).json()
        ids += [tile["id"] for tile in page["tiles"]]
        assert len(page["tiles"]) <= params.get("limit", 100)
        cursor = page["cursor"]
    return ids


def box(place, first, last):
    """Bounds that hold the centres of these columns."""
    (south, west), (north, east) = place(first), place(last)
    return f"{west - 1e-4},{south - 1e-4},{east + 1e-4},{north + 1e-4}"


async def test_a_tile_is_described(http, tile_request, place):
    await http.post("/gallery", **tile_request(3, properties={"flight": 7, "note": "灯台"}))
    tile = (await http.get("/gallery/tiles/map/3")).json()
    assert (tile["lat"], tile["lon"]) == pytest.approx(place(3), abs=1e-6)
    assert tile["properties"] == {"flight": 7, "note": "灯台"}
    assert tile["gsd_m"] == pytest.approx(1.5, rel=1e-3)
    assert tile == (await http.get("/gallery/tiles")).json()["tiles"][0]


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 100])
async def test_pages_hold_every_tile_once(http, tile_request, limit):
    await http.post("/gallery", **tile_request(*range(6)))
    assert await listed(http, limit=limit) == [f"map/{n}" for n in range(6)]


async def test_empty_parameters_of_a_page_count_as_left_out(http, tile_request):
    await http.post("/gallery", **tile_request(*range(3)))
    plain = (await http.get("/gallery/tiles")).json()
    assert (await http.get("/gallery/tiles", params={"limit": "", "cursor": ""})).json() == plain


async def test_pages_are_stable_while_tiles_come_and_go(http, tile_request):
    await http.post("/gallery", **tile_request(*range(6)))
    first = (await http.get("/gallery/tiles", params={"limit": 3})).json()
    await http.delete("/gallery/tiles/map/1")  # on the page that was read
    await http.delete("/gallery/tiles/map/4")  # on the next
    await http.post("/gallery", **tile_request(5, 9))  # an update and a new one
    second = (await http.get("/gallery/tiles", params={"limit": 3, "cursor": first["cursor"]})).json()
    assert [tile["id"] for tile in second["tiles"]] == ["map/3", "map/5", "map/9"]
    assert second["cursor"] is None


async def test_an_area_is_listed_and_deleted(http, tile_request, photo, place):
    await http.post("/gallery", **tile_request(*range(8)))
    assert await listed(http, bbox=box(place, 2, 4)) == ["map/2", "map/3", "map/4"]
    answer = (await http.delete("/gallery/tiles", params={"bbox": box(place, 2, 4)})).json()
    assert (answer["deleted"], answer["count"]) == (3, 5)
    assert await listed(http) == ["map/0", "map/1", "map/5", "map/6", "map/7"]
    found = (await http.post("/localize", files={"image": ("p", photo(3))}, data={"top_k": 100})).json()
    assert {candidate["tile_id"] for candidate in found["candidates"]} == {f"map/{n}" for n in (0, 1, 5, 6, 7)}
    nothing = (await http.delete("/gallery/tiles", params={"bbox": box(place, 2, 4)})).json()
    assert (nothing["deleted"], nothing["generation"]) == (0, answer["generation"])


async def test_a_deleted_tile_is_gone_everywhere_and_after_a_restart(start, tile_request, photo, problem_of):
    async with start() as http:
        await http.post("/gallery", **tile_request(1, 2))
        assert (await http.delete("/gallery/tiles/map/2")).json()["deleted"] == 1
        for method, path in (("GET", "map/2"), ("GET", "map/2/image"), ("DELETE", "map/2")):
            problem_of(await http.request(method, f"/gallery/tiles/{path}"), "tile-not-found", 404)
    async with start() as http:
        found = (await http.post("/localize", files={"image": ("p", photo(2))})).json()
        assert [candidate["tile_id"] for candidate in found["candidates"]] == ["map/1"]


async def test_deleting_needs_an_area(http, tile_request, problem_of):
    await http.post("/gallery", **tile_request(1))
    problem_of(await http.delete("/gallery/tiles"), "missing-parameter", 422)
    assert await listed(http) == ["map/1"]


@pytest.mark.parametrize(
    "params",
    [
        {"bbox": "1,2,3"},
        {"bbox": "1,2,3,north"},
        {"bbox": "0,5,1,4"},
        {"bbox": "-181,0,1,1"},
        {"bbox": "nan,0,1,1"},
        {"bbox": "0,0,1,inf"},
        {"limit": 0},
        {"limit": 1001},
        {"cursor": "-1"},
        {"cursor": "x"},
        {"cursor": "9" * 30},
    ],
)
async def test_bad_parameters(http, problem_of, params):
    problem_of(await http.get("/gallery/tiles", params=params), "invalid-parameter", 422)


async def test_a_box_over_the_antimeridian(http, tile_request, encode_image, ground):
    for name, lon in (("west", 179.999), ("east", -179.999), ("far", 0.0)):
        form = {"tiles": f'[{{"id": "{name}", "lat": 0, "lon": {lon}, "gsd_m": 1}}]'}
        await http.post("/gallery", files={"image": ("t.png", encode_image(ground(1)))}, data=form)
    assert await listed(http, bbox="179.9,-1,-179.9,1") == ["west", "east"]
    assert await listed(http, bbox="-180,-90,180,90") == ["west", "east", "far"]


async def test_images_have_a_type_and_an_etag(http, tile_request, encode_image, ground, place):
    await http.post("/gallery", **tile_request(1))
    first = await http.get("/gallery/tiles/map/1/image")
    assert first.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(first.content)).size == (64, 64)
    tag = first.headers["etag"]
    for asked in (tag, f'"other", W/{tag}', "*"):
        unchanged = await http.get("/gallery/tiles/map/1/image", headers={"If-None-Match": asked})
        assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", tag)
    await http.post(
        "/gallery", **{"files": {"image": ("n.png", encode_image(ground(9)))}} | {"data": tile_request(1)["data"]}
    )
    changed = await http.get("/gallery/tiles/map/1/image", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


@pytest.mark.parametrize(("kind", "media_type"), [("JPEG", "image/jpeg"), ("WEBP", "image/webp")])
async def test_compact_images_are_kept_as_they_are(http, encode_image, ground, kind, media_type):
    data = encode_image(ground(1, 100, 80), kind)
    form = {"tiles": '[{"id": "t", "lat": 0, "lon": 0, "gsd_m": 1}]'}
    await http.post("/gallery", files={"image": ("t", data)}, data=form)
    image = await http.get("/gallery/tiles/t/image")
    assert (image.content, image.headers["content-type"]) == (data, media_type)


async def test_large_images_are_shrunk_to_a_size_that_can_be_embedded_again(http, encode_image, ground):
    form = {"tiles": '[{"id": "t", "lat": 0, "lon": 0, "gsd_m": 0.1}]'}
    await http.post("/gallery", files={"image": ("t", encode_image(ground(1, 1500, 1000), "JPEG"))}, data=form)
    kept = (await http.get("/gallery/tiles/t/image")).content
    assert decode(kept, 10**7).image.size == (768, 512)
    assert (await http.get("/gallery/tiles/t")).json()["gsd_m"] == pytest.approx(0.1, rel=1e-3)  # of what was sent


async def test_ids_with_slashes_dots_and_blanks(http, encode_image, ground):
    for name in ("a/b c/ü", "x/image", "..", "100%"):
        form = {"tiles": f'[{{"id": "{name}", "lat": 0, "lon": 0, "gsd_m": 1}}]'}
        await http.post("/gallery", files={"image": ("t", encode_image(ground(1)))}, data=form)
    assert (await http.get("/gallery/tiles/a/b%20c/%C3%BC")).json()["id"] == "a/b c/ü"
    assert (await http.get("/gallery/tiles/x/image")).json()["id"] == "x/image"
    assert (await http.get("/gallery/tiles/x/image/image")).headers["content-type"] == "image/jpeg"
    assert (await http.get("/gallery/tiles/100%25")).json()["id"] == "100%"
    assert (await http.delete("/gallery/tiles/x/image")).json()["deleted"] == 1


async def test_a_page_has_fewer_tiles_where_they_have_much_to_say(http, tile_request, monkeypatch):
    columns = range(20)
    for column in columns:
        await http.post("/gallery", **tile_request(column, properties={"note": "x" * 16_000}))
    assert len((await http.get("/gallery/tiles?limit=20")).json()["tiles"]) == 20
    monkeypatch.setattr("service.ground.gallery.PAGE_BYTES", 50_000)
    pages, cursor = [], ""
    while cursor is not None:
        page = (await http.get(f"/gallery/tiles?limit=20&cursor={cursor}")).json()
        pages.append([tile["id"] for tile in page["tiles"]])
        cursor = page["cursor"]
    assert [len(page) for page in pages] == [4, 4, 4, 4, 4]
    assert [tile for page in pages for tile in page] == [f"map/{column}" for column in columns]
