"""``/maps``: what map viewers see of the gallery."""

import asyncio
import io

import numpy as np
import pytest
from PIL import Image

from service.ground.windows import rectangle_of


@pytest.fixture
def whole(ground):
    return ground(4, 300, 200)


@pytest.fixture
async def town(http, whole, write_map, tmp_path):
    """The town, imported; its description."""
    data = write_map(tmp_path / "town.tif", whole).read_bytes()
    answer = await http.post("/gallery/imports", files={"file": ("town.tif", data)})
    async with asyncio.timeout(60):
        while (await http.get(answer.headers["location"])).json()["state"] != "done":  # noqa: ASYNC110 - HTTP
            await asyncio.sleep(0.02)
    return (await http.get("/maps/town")).json()


async def test_a_map_is_listed_and_described(http, town):
    assert (await http.get("/maps")).json() == {"maps": [town]}
    assert (town["name"], town["date"]) == ("town", None)
    assert town["windows"] == (await http.get("/gallery")).json()["count"]
    assert town["bytes"] > 0
    assert town["gsd_m"] == pytest.approx(town["levels"][0]["window_m"] / 32, rel=0.01)
    assert (town["maxzoom"], town["minzoom"] < 15) == (16, True)


async def test_its_tiles_together_are_the_map(http, town, whole):
    """Put together as a viewer does, from the addresses that TileJSON names."""
    about = (await http.get("/maps/town/tilejson.json")).json()
    assert (about["tilejson"], about["scheme"], about["bounds"]) == ("3.0.0", "xyz", town["bounds"])
    area = rectangle_of(tuple(about["bounds"]), 16)
    seen = Image.new("RGBA", (area.right - area.left, area.bottom - area.top))
    for y in range(area.top // 256, area.bottom // 256 + 1):
        for x in range(area.left // 256, area.right // 256 + 1):
            answer = await http.get(about["tiles"][0].format(z=16, x=x, y=y))
            assert answer.headers["content-type"] == "image/webp"
            tile = Image.open(io.BytesIO(answer.content)).convert("RGBA")
            assert tile.size == (256, 256)
            seen.paste(tile, (x * 256 - area.left, y * 256 - area.top))
    pixels = np.asarray(seen)
    assert pixels.shape[:2] == (200, 300)
    assert (pixels[..., 3] == 255).all()
    assert np.abs(pixels[..., :3].astype(int) - np.asarray(whole)).mean() < 3


async def test_a_coarse_tile_shows_the_whole_map(http, town, whole):
    zoom = town["minzoom"]
    west, south, east, north = town["bounds"]
    x, y = int((west + 180) / 360 * 2**zoom), rectangle_of((west, south, east, north), zoom).top // 256
    tile = Image.open(io.BytesIO((await http.get(f"/maps/town/{zoom}/{x}/{y}.webp")).content)).convert("RGBA")
    pixels = np.asarray(tile)
    shown = pixels[pixels[..., 3] > 200][:, :3]
    np.testing.assert_allclose(shown.mean(0), np.asarray(whole).mean((0, 1)), atol=12)


async def test_outside_it_is_transparent(http, town):
    for address in ("16/5/5", "3/0/0", "20/5/5"):
        tile = Image.open(io.BytesIO((await http.get(f"/maps/town/{address}.webp")).content))
        assert not np.asarray(tile.convert("RGBA"))[..., 3].any()


async def test_a_tile_that_is_known_is_not_sent_again(http, town):
    first = await http.get("/maps/town/16/5/5.webp")
    again = await http.get("/maps/town/16/5/5.webp", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_what_is_not_there(http, town, problem_of):
    for path in ("/maps/village", "/maps/village/tilejson.json", "/maps/village/1/0/0.webp"):
        problem_of(await http.get(path), "map-not-found", 404)
    problem_of(await http.delete("/maps/village"), "map-not-found", 404)
    for address in ("1/2/0", "31/0/0", "1/-1/0"):
        problem_of(await http.get(f"/maps/town/{address}.webp"), "tile-not-found", 404)


async def test_a_deleted_map_is_gone(http, town):
    answer = (await http.delete("/maps/town")).json()
    assert (answer["map"], answer["deleted"], answer["count"]) == ("town", town["windows"], 0)
    assert (await http.get("/maps")).json() == {"maps": []}
    assert (await http.get("/gallery/tiles")).json()["tiles"] == []
