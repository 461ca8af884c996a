"""A disk that takes its time: what needs it waits, the event loop and everything else go on."""

import asyncio
import re
import threading
from contextlib import asynccontextmanager

import pytest
from sending import finished, send

LONG = 60  # seconds; no test waits that long
WATCHED = ["/livez", "/readyz", "/metrics", "/timings", "/gallery", "/model", "/tracks", "/docs", "/openapi.json"]


@asynccontextmanager
async def held(gallery):
    """Another thread has the gallery's file, as in a write that the disk is slow to take."""
    has_it, let_go = threading.Event(), threading.Event()

    def hold():
        with gallery._inventory.writing, gallery._store.file.lock:  # in the order of writers
            has_it.set()
            let_go.wait(LONG)

    thread = threading.Thread(target=hold)
    thread.start()
    await asyncio.to_thread(has_it.wait)
    try:
        yield
        assert thread.is_alive()  # a loop that had been stopped would have come here late
    finally:
        let_go.set()
        thread.join()


async def turns(count):
    """So many turns of the loop: they do not come while something stops it."""
    for _ in range(count):
        await asyncio.sleep(0)


def addresses(http):
    """Every route with a value for each of its parameters."""
    values = {"tile_id": "map/1", "map": "town", "z": "16", "x": "0", "y": "0", "track_id": "t", "import_id": "0" * 16}
    values["name"] = "x.gallery"
    for route in http.app.routes:
        for method in sorted(getattr(route, "methods", None) or ()):
            path = re.sub(r"{(\w+)(:path)?}", lambda found: values.get(found[1], "x"), route.path)
            yield method, path + ("?bbox=0,0,1,1" if (method, path) == ("DELETE", "/gallery/tiles") else "")


@pytest.fixture
async def filled(http, tile_request, geotiff):
    await http.post("/gallery", **tile_request(0, 1, 2))
    await finished(http, await send(http, geotiff(), "town.tif"))
    return http


async def test_no_address_stops_the_loop(filled, photo, tile_request):
    track = (await filled.post("/tracks")).json()["id"]
    body = {"files": {"image": photo(1)}}
    calls = [(method, path, {}) for method, path in addresses(filled) if method != "HEAD"]
    calls += [("POST", "/localize", body), ("POST", "/gallery", tile_request(1, 3))]
    calls += [("POST", f"/tracks/{track}/localize", body | {"data": {"timestamp": "1"}})]
    calls += [("POST", "/gallery/imports", {"files": {"file": ("a.tif", b"II*\0")}})]
    for method, path, sent in calls:
        async with asyncio.timeout(LONG):
            async with held(filled.app.state.gallery):
                asked = asyncio.create_task(filled.request(method, path, **sent))
                await turns(200)
                await asyncio.sleep(0.05)
                await turns(200)
            answer = await asked
        assert answer.status_code < 500, (method, path, answer.text)


async def test_who_waits_for_the_disk_keeps_nobody_waiting_who_does_not_need_it(filled):
    async with asyncio.timeout(LONG):
        async with held(filled.app.state.gallery):
            waiting = [asyncio.create_task(filled.get("/gallery/tiles")) for _ in range(40)]
            waiting += [asyncio.create_task(filled.get("/gallery/tiles/map/1/image")) for _ in range(10)]
            await turns(1000)
            for path in WATCHED:
                assert (await filled.get(path)).status_code == 200
            assert not any(each.done() for each in waiting)
        assert {each.status_code for each in await asyncio.gather(*waiting)} == {200}
