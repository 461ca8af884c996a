"""Imports under way: cancelled, resumed after a restart, waiting, and ended by what goes wrong."""

import asyncio
import errno
from pathlib import Path

from sending import Held, finished, send, until

from service.errors import Overloaded
from service.importing import jobs as runner


async def test_a_cancelled_import_adds_nothing_more(http, geotiff, monkeypatch, tmp_path):
    held = Held(http, monkeypatch)
    response = await send(http, geotiff(), "p.tif")
    await held.reached()
    cancelled = await http.delete(response.headers["location"])
    assert cancelled.json()["state"] == "cancelled"
    held.released.set()
    state = await finished(http, await send(http, geotiff(5), "second.tif"))  # the worker goes on with the next one
    assert (await http.get("/gallery")).json()["count"] == state["added"]
    assert [each["name"] for each in (await http.get("/maps")).json()["maps"]] == ["second"]
    assert (await http.delete(response.headers["location"])).json()["state"] == "cancelled"
    assert list((tmp_path / "g.gallery-imports").iterdir()) == []


async def test_deleting_a_map_ends_its_import(http, geotiff, monkeypatch, problem_of):
    held = Held(http, monkeypatch)
    response = await send(http, geotiff(), "p.tif")
    await held.reached()
    assert (await http.delete("/maps/p")).json()["count"] == 0
    held.released.set()
    assert (await finished(http, response))["state"] == "cancelled"
    assert (await http.get("/gallery")).json()["count"] == 0
    problem_of(await http.get("/maps/p"), "map-not-found", 404)


async def test_a_name_of_an_import_under_way_is_taken_too(http, geotiff, monkeypatch, problem_of):
    held = Held(http, monkeypatch)
    response = await send(http, geotiff(), "p.tif")
    await held.reached()
    problem = problem_of(await send(http, geotiff(), "p.tif"), "map-exists", 409)
    assert problem["import_id"] == response.json()["id"]
    held.released.set()
    await finished(http, response)


async def test_a_restart_goes_on_and_adds_nothing_twice(start, geotiff, monkeypatch):
    data = geotiff(width=512, height=512)
    async with start() as http:
        put, stopped = http.app.state.gallery.maps.put_windows, asyncio.Event()
        loop = asyncio.get_running_loop()

        def once(*given):
            http.app.state.importer._closing = True
            loop.call_soon_threadsafe(stopped.set)
            return put(*given)

        monkeypatch.setattr(http.app.state.gallery.maps, "put_windows", once)
        location = (await send(http, data, "p.tif")).headers["location"]
        async with asyncio.timeout(30):
            await stopped.wait()
    async with start() as http:
        state = await until(http, location, "done", "failed")
        assert (state["state"], state["updated"], state["done"]) == ("done", 0, state["total"])
        assert state["added"] == (await http.get("/gallery")).json()["count"]
        whole = await finished(http, await send(http, data, "whole.tif"))
        assert (whole["added"], whole["skipped"]) == (state["added"], state["skipped"])


async def test_an_upload_that_is_gone_fails_its_import(start, geotiff, monkeypatch, tmp_path):
    async with start() as http:
        with monkeypatch.context() as patch:
            held = Held(http, patch)
            location = (await send(http, geotiff(), "p.tif")).headers["location"]
            await held.reached()
            http.app.state.importer._closing = True
            held.released.set()
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


async def test_an_upload_that_cannot_be_removed_stops_no_other_import(start, geotiff, monkeypatch, tmp_path):
    unlink = Path.unlink

    def refused(path, **options):
        if path.parent.name == "g.gallery-imports":
            raise PermissionError(errno.EPERM, "not permitted")
        unlink(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        async with start() as http:
            for name in ("first.tif", "second.tif"):
                assert (await finished(http, await send(http, geotiff(), name)))["state"] == "done"
        assert len(list((tmp_path / "g.gallery-imports").iterdir())) == 2
        async with start() as http:
            assert len((await http.get("/maps")).json()["maps"]) == 2
    async with start():
        assert list((tmp_path / "g.gallery-imports").iterdir()) == []


async def test_an_import_waits_for_the_disk_and_goes_on(http, geotiff, monkeypatch):
    monkeypatch.setattr(runner, "RETRY_S", 0.02)
    db = http.app.state.gallery._store.file.db
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages + 3}")
    location = (await send(http, geotiff(width=512, height=512), "p.tif")).headers["location"]
    async with asyncio.timeout(30):
        while (state := (await http.get(location)).json())["problem"] is None:  # noqa: ASYNC110 - HTTP has no events
            await asyncio.sleep(0.02)
    assert state["state"] in ("queued", "running")
    assert state["problem"]["type"] == "/problems/storage-full"
    db.execute("PRAGMA max_page_count = 100000")
    state = await until(http, location, "done", "failed")
    assert (state["state"], state["updated"], state["problem"]) == ("done", 0, None)
    assert state["added"] == (await http.get("/gallery")).json()["count"]


async def test_an_import_waits_while_the_queue_is_full(http, geotiff, monkeypatch):
    monkeypatch.setattr("service.importing.builder.PATIENCE_S", 0.001)
    encode, refused = http.app.state.batcher.encode, 0

    async def busy(*arguments):
        nonlocal refused
        if refused < 50:
            refused += 1
            raise Overloaded("wait")
        return await encode(*arguments)

    monkeypatch.setattr(http.app.state.batcher, "encode", busy)
    state = await finished(http, await send(http, geotiff(), "p.tif"))
    assert (state["state"], state["failed"], refused) == ("done", 0, 50)


async def test_a_defect_fails_the_import_without_its_internals(http, geotiff, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("service.importing.builder.shrink_tiles", broken)
    state = await finished(http, await send(http, geotiff(width=512), "p.tif"))
    assert state["problem"]["type"] == "/problems/internal-error"
    assert "secret" not in str(state)


async def test_a_map_that_breaks_in_the_middle_fails_by_name(http, geotiff):
    data = geotiff(width=2048, height=2048)
    response = await send(http, data[: len(data) // 2], "area.tif")
    if response.status_code == 202:
        state = await finished(http, response)
        assert state["state"] == "failed"
        problem = state["problem"]
    else:
        problem = response.json()
    assert problem["type"] == "/problems/source-unreadable"
    assert "area.tif" in problem["detail"]
