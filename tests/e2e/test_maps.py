"""``/maps``: what map viewers see of the gallery."""

import asyncio
import io

import numpy as np
import pytest
import rasterio
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

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


async def test_a_coarse_tile_shows_all_of_the_map_that_lies_in_it(http, town, whole):
    zoom = town["minzoom"]
    west, south, east, north = town["bounds"]
    x, y = int((west + 180) / 360 * 2**zoom), rectangle_of((west, south, east, north), zoom).top // 256
    tile = Image.open(io.BytesIO((await http.get(f"/maps/town/{zoom}/{x}/{y}.webp")).content)).convert("RGBA")
    pixels = np.asarray(tile)
    shown = pixels[pixels[..., 3] > 200][:, :3]
    inside = (x + 1) * 256 * 2 ** (16 - zoom) - rectangle_of((west, south, east, north), 16).left
    np.testing.assert_allclose(shown.mean(0), np.asarray(whole)[:, :inside].mean((0, 1)), atol=5)
    assert len(shown) == pytest.approx(inside * whole.height / 4 ** (16 - zoom), rel=0.1)


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


@pytest.fixture
def dem(tmp_path):
    """A raster that says 40 m all over Taiwan."""
    path = tmp_path / "dem.tif"
    profile = {"driver": "GTiff", "count": 1, "width": 50, "height": 50, "dtype": "float32", "crs": "EPSG:4326"}
    with rasterio.open(path, "w", **profile, transform=rasterio.Affine(0.1, 0, 119, 0, -0.1, 26)) as out:
        out.write(np.full((1, 50, 50), 40, "float32"))
    return path


async def test_the_elevation_of_a_map(start, whole, write_map, tmp_path, dem):
    """It is told with the map, outlives a restart and a copy, and goes with the map."""
    data = write_map(tmp_path / "town.tif", whole).read_bytes()
    files = {"file": ("dem.tif", dem.read_bytes())}
    async with start() as http:
        answer = await http.post("/gallery/imports", files={"file": ("town.tif", data)})
        async with asyncio.timeout(60):
            while (await http.get(answer.headers["location"])).json()["state"] != "done":  # noqa: ASYNC110 - HTTP
                await asyncio.sleep(0.02)
        assert (await http.get("/maps/town")).json()["elevation"] is None
        before = (await http.get("/gallery")).json()["generation"]
        added = await http.post("/maps/town/elevation", files=files)
        assert added.status_code == 200, added.text
        told = {"origin": "dem.tif", "covers": 1.0, "low_m": 40.0, "high_m": 40.0}
        assert added.json().items() >= (told | {"map": "town", "warnings": [], "generation": before + 1}).items()
        assert (await http.get("/maps")).json()["maps"][0]["elevation"].items() >= told.items()
        assert (await http.post("/gallery/snapshots")).status_code == 201
    async with start() as http:
        assert (await http.get("/maps/town")).json()["elevation"].items() >= told.items()
        assert (await http.delete("/maps/town/elevation")).json()["deleted"]
        assert not (await http.delete("/maps/town/elevation")).json()["deleted"]
        assert (await http.get("/maps/town")).json()["elevation"] is None
        await http.post("/maps/town/elevation", files=files)
        await http.delete("/maps/town")


async def test_what_is_no_elevation_is_refused(http, town, dem, problem_of, geotiff):
    files = {"file": ("dem.tif", dem.read_bytes())}
    problem_of(await http.post("/maps/nowhere/elevation", files=files), "map-not-found", 404)
    problem_of(await http.delete("/maps/nowhere/elevation"), "map-not-found", 404)
    problem_of(
        await http.post("/maps/town/elevation", files={"file": ("a.tif", b"no raster")}), "source-unreadable", 422
    )
    problem_of(await http.post("/maps/town/elevation", data={"name": "x"}), "missing-parameter", 422)


@pytest.mark.parametrize("prior", [True, False])
async def test_a_gps_altitude_counts_from_the_ground_that_is_known(http, town, dem, photo, prior):
    """The ground is level, so that its height is known without a prior, too."""
    exif = Image.Exif()
    exif.get_ifd(0x8825)[6] = IFDRational(136)  # GPSAltitude, metres above the sea
    files = {"image": ("p.jpg", photo(1, exif=exif))}
    west, south, east, north = town["bounds"]
    where = {"prior_lat": (south + north) / 2, "prior_lon": (west + east) / 2, "prior_radius_m": 500} if prior else {}
    where["hfov_deg"] = 70
    async with asyncio.timeout(60):
        before = (await http.post("/localize", files=files, data=where)).json()["query"]
        assert "altitude_m" not in before["values"]
        added = await http.post("/maps/town/elevation", files={"file": ("dem.tif", dem.read_bytes())})
        assert added.status_code == 200, added.text
        after = (await http.post("/localize", files=files, data=where)).json()["query"]
    assert after["values"]["altitude_m"] == pytest.approx(96)
    if prior:
        elsewhere = where | {"prior_lat": where["prior_lat"] + 0.5}
        away = (await http.post("/localize", files=files, data=elsewhere)).json()["query"]
        assert "altitude_m" not in away["values"]
