"""Whole maps, added in the background over HTTP."""

import asyncio
import errno
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from service.errors import Overloaded
from service.importing import jobs as runner

MAP_PX = 256


@pytest.fixture
def geotiff(tmp_path, ground):
    """256 m of made-up ground; the north-east quarter is empty."""
    bands = np.asarray(ground(4, MAP_PX, MAP_PX)).transpose(2, 0, 1).clip(1).copy()
    bands[:, :128, 128:] = 0
    path = tmp_path / "area.tif"
    profile = {"count": 3, "dtype": "uint8", "crs": "EPSG:32651", "nodata": 0, "width": MAP_PX, "height": MAP_PX}
    with rasterio.open(path, "w", driver="GTiff", transform=Affine(1, 0, 500_000, 0, -1, 2_700_000), **profile) as out:
        out.write(bands)
    return path.read_bytes()


@pytest.fixture
def pyramid(ground, encode_image):
    """``pyramid(count)``: a zip of that many z/x/y tiles."""

    def make(count, **extra):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as file:
            for n in range(count):
                file.writestr(f"17/{109_000 + n % 50}/{56_000 + n // 50}.png", encode_image(ground(n, 32, 32)))
            for name, data in extra.items():
                file.writestr(name, data)
        return out.getvalue()

    return make


async def send(http, data, name="area.tif", **form):
    return await http.post("/gallery/imports", files={"file": (name, data)}, data=form)


async def until(http, location, *states):
    async with asyncio.timeout(60):
        while True:
            state = (await http.get(location)).json()
            if state["state"] in states:
                return state
            await asyncio.sleep(0.02)


async def finished(http, response):
    assert response.status_code == 202, response.text
    return await until(http, response.headers["location"], "done", "failed", "cancelled")


async def test_a_geotiff_in_layers(http, geotiff, tmp_path):
    response = await send(http, geotiff, tile_size_m=["64", "128"], overlap="0", prefix="town")
    assert response.json()["state"] == "queued"
    state = await finished(http, response)
    assert (state["state"], state["total"], state["done"]) == ("done", 16 + 4, 20)
    assert (state["added"], state["skipped"], state["failed"]) == (12 + 3, 4 + 1, 0)
    tiles = (await http.get("/gallery/tiles", params={"limit": 1000})).json()["tiles"]
    assert len(tiles) == 15
    assert tiles[0]["id"] == "town/64m-0/r00c00"
    assert list((tmp_path / "g.gallery-imports").iterdir()) == []
    assert (await http.get("/gallery/imports")).json()["imports"] == [state]


async def test_the_same_file_again_updates(http, geotiff):
    await finished(http, await send(http, geotiff, tile_size_m="64,128"))
    state = await finished(http, await send(http, geotiff, tile_size_m="64,128"))
    assert (state["added"], state["updated"]) == (0, (await http.get("/gallery")).json()["count"])


async def test_a_pyramid(http, pyramid, photo, encode_image, ground):
    state = await finished(http, await send(http, pyramid(40), "osm.zip"))
    assert (state["added"], state["total"]) == (40, 40)
    found = await http.post("/localize", files={"image": ("p", encode_image(ground(7, 32, 32)))})
    assert found.json()["candidates"][0]["tile_id"] == "osm/17/109007/56000"


async def test_a_table_of_corners(http, ground, encode_image, place):
    out, rows = io.BytesIO(), ["Filename, Top_left_lat, Top_left_lon, Bottom_right_lat, Bottom_right_long, Season"]
    with zipfile.ZipFile(out, "w") as file:
        for n in range(3):
            lat, lon = place(n)
            rows.append(f"{n}.png,{lat + 4e-4},{lon - 4e-4},{lat - 4e-4},{lon + 4e-4},autumn")
            file.writestr(f"images/{n}.png", encode_image(ground(n)))
        rows.append("lost.png,1,1,0.999,1.001,winter")
        file.writestr("tiles.csv", "\n".join(rows))
    state = await finished(http, await send(http, out.getvalue(), "set.zip"))
    assert (state["state"], state["added"], state["failed"]) == ("done", 3, 1)
    (trouble,) = state["problems"]
    assert trouble["item"] == "tiles.csv line 5 (lost.png)"
    assert trouble["problem"]["type"] == "/problems/invalid-parameter"
    tile = (await http.get("/gallery/tiles/set/images/1")).json()
    assert (tile["lat"], tile["lon"]) == pytest.approx(place(1), abs=1e-6)
    assert tile["properties"] == {"Season": "autumn"}


async def test_a_bad_tile_stops_no_other(http, pyramid):
    state = await finished(http, await send(http, pyramid(5, **{"17/1/1.png": b"no image"}), "p.zip"))
    assert (state["state"], state["added"], state["failed"], state["done"]) == ("done", 5, 1, 6)
    assert state["problems"][0]["problem"]["type"] == "/problems/unsupported-media-type"


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
        ({"overlap": "1"}, "overlap"),
        ({"tile_size_m": "small"}, "tile_size_m"),
        ({"tile_size_m": "0.1"}, "tile_size_m"),
        ({"tile_size_m": "1,2,3,4,5,6,7,8,9"}, "tile_size_m"),
        ({"tile_size_m": "nan"}, "tile_size_m"),
        ({"tile_size_m": "2"}, "tile_size_m"),  # fewer than 16 pixels
        ({"prefix": "a\nb"}, "id"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_bad_options(http, geotiff, problem_of, form, named):
    assert named in problem_of(await send(http, geotiff, **form), "invalid-parameter", 422)["detail"]


async def test_uploads_have_a_limit_of_their_own(start, geotiff, problem_of, tmp_path):
    async with start(max_body_bytes=2000, max_import_bytes=len(geotiff) + 2000) as http:
        assert (await send(http, geotiff)).status_code == 202
        problem = problem_of(await send(http, geotiff + bytes(5000)), "body-too-large", 413)
        assert "AEROFIX_MAX_IMPORT_BYTES" in problem["detail"]

        async def unannounced():
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="m.tif"\r\n\r\n'
            for _ in range(5):
                yield geotiff[:100_000] + bytes(60_000)

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        problem_of(await http.post("/gallery/imports", content=unannounced(), headers=headers), "body-too-large", 413)
        live = [each["id"] for each in (await http.get("/gallery/imports")).json()["imports"]]
        assert {path.name for path in (tmp_path / "g.gallery-imports").iterdir()} <= set(live)


async def test_an_unknown_import(http, problem_of):
    for method in ("GET", "DELETE"):
        problem_of(await http.request(method, "/gallery/imports/0123456789abcdef"), "import-not-found", 404)


class Brake:
    """Lets the encoder through only while it is released."""

    def __init__(self, http):
        self.released = asyncio.Event()
        self.steps = 0
        gallery = http.app.state.gallery
        maker = http.app.state.tile_maker
        make = type(maker).make

        async def held(self_, data, entry, **options):
            self.steps += 1
            await self.released.wait()
            return await make(self_, data, entry, **options)

        self.patch = (type(maker), "make", held)
        self.gallery = gallery

    async def reached(self, steps):
        async with asyncio.timeout(30):
            while self.steps < steps:  # noqa: ASYNC110 - nothing to wait for
                await asyncio.sleep(0.01)


async def test_a_cancelled_import_adds_nothing_more(http, pyramid, monkeypatch, tmp_path):
    brake = Brake(http)
    monkeypatch.setattr(*brake.patch)
    response = await send(http, pyramid(80), "p.zip")
    await brake.reached(10)
    cancelled = await http.delete(response.headers["location"])
    assert cancelled.json()["state"] == "cancelled"
    brake.released.set()
    await finished(http, await send(http, pyramid(3), "second.zip"))  # the worker goes on with the next one
    assert (await http.get("/gallery")).json()["count"] == 3
    assert (await http.delete(response.headers["location"])).json()["state"] == "cancelled"
    assert list((tmp_path / "g.gallery-imports").iterdir()) == []


async def test_a_restart_goes_on_and_adds_nothing_twice(start, pyramid, monkeypatch):
    async with start() as http:
        step, stepped = runner.Importer._steps, asyncio.Event()

        async def stop_after_one(self, *arguments):
            upsert = self._gallery.upsert

            def once(*given):
                self._closing = True
                stepped.set()
                return upsert(*given)

            monkeypatch.setattr(self._gallery, "upsert", once)
            await step(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(runner.Importer, "_steps", stop_after_one)
            location = (await send(http, pyramid(100), "p.zip")).headers["location"]
            async with asyncio.timeout(30):
                await stepped.wait()
    async with start() as http:
        state = await until(http, location, "done", "failed")
        assert (state["state"], state["added"], state["updated"]) == ("done", 100, 0)
        assert (await http.get("/gallery")).json()["count"] == 100


async def test_an_upload_that_is_gone_fails_its_import(start, pyramid, monkeypatch, tmp_path):
    async with start() as http:
        brake = Brake(http)
        with monkeypatch.context() as patch:
            patch.setattr(*brake.patch)
            location = (await send(http, pyramid(100), "p.zip")).headers["location"]
            await brake.reached(1)
            http.app.state.importer._closing = True
            brake.released.set()
    for upload in (tmp_path / "g.gallery-imports").iterdir():
        upload.unlink()
    async with start() as http:
        state = await until(http, location, "done", "failed")
        assert state["state"] == "failed"
        assert "send it again" in state["problem"]["detail"]


async def test_leftovers_are_removed_at_the_start_and_other_files_are_not(start, tmp_path):
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / "0123456789abcdef").write_bytes(b"half an upload")
    (folder / "notes.txt").write_bytes(b"mine")
    async with start(imports=folder):
        assert [path.name for path in folder.iterdir()] == ["notes.txt"]


async def test_an_upload_that_cannot_be_removed_stops_no_other_import(start, pyramid, monkeypatch, tmp_path):
    unlink = Path.unlink

    def refused(path, **options):
        if path.parent.name == "g.gallery-imports":
            raise PermissionError(errno.EPERM, "not permitted")
        unlink(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        async with start() as http:
            for name in ("first.zip", "second.zip"):
                assert (await finished(http, await send(http, pyramid(3), name)))["state"] == "done"
        assert len(list((tmp_path / "g.gallery-imports").iterdir())) == 2
        async with start() as http:
            assert (await http.get("/gallery")).json()["count"] == 6
    async with start():
        assert list((tmp_path / "g.gallery-imports").iterdir()) == []


async def test_an_import_waits_for_the_disk_and_goes_on(http, pyramid, monkeypatch):
    monkeypatch.setattr(runner, "RETRY_S", 0.02)
    db = http.app.state.gallery._store.file.db
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages + 3}")
    location = (await send(http, pyramid(60), "p.zip")).headers["location"]
    async with asyncio.timeout(30):
        while (state := (await http.get(location)).json())["problem"] is None:  # noqa: ASYNC110 - HTTP has no events
            await asyncio.sleep(0.02)
    assert state["state"] == "running"
    assert state["problem"]["type"] == "/problems/storage-full"
    db.execute("PRAGMA max_page_count = 100000")
    state = await until(http, location, "done", "failed")
    assert (state["state"], state["added"], state["problem"]) == ("done", 60, None)


async def test_an_import_waits_while_the_queue_is_full(http, pyramid, monkeypatch):
    monkeypatch.setattr(runner, "PATIENCE_S", 0.001)
    encode, refused = http.app.state.batcher.encode, 0

    async def busy(*arguments):
        nonlocal refused
        if refused < 50:
            refused += 1
            raise Overloaded("wait")
        return await encode(*arguments)

    monkeypatch.setattr(http.app.state.batcher, "encode", busy)
    state = await finished(http, await send(http, pyramid(20), "p.zip"))
    assert (state["added"], state["failed"], refused) == (20, 0, 50)


async def test_a_defect_fails_the_import_without_its_internals(http, pyramid, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(runner, "_read", broken)
    state = await finished(http, await send(http, pyramid(3), "p.zip"))
    assert state["problem"]["type"] == "/problems/internal-error"
    assert "secret" not in str(state)


async def test_a_map_that_breaks_in_the_middle_fails_by_name(http, geotiff):
    state = await finished(http, await send(http, geotiff[: len(geotiff) // 2], "area.tif", tile_size_m="64"))
    assert state["state"] == "failed"
    assert state["problem"]["type"] == "/problems/source-unreadable"
    assert "area.tif cannot be read" in state["problem"]["detail"]
