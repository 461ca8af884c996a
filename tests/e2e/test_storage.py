"""Disks that are full or read-only, met over HTTP: a problem that says so, and everything acknowledged is kept."""

import asyncio
import errno
import sqlite3
import tempfile

import pytest

from service.app import create_app
from service.errors import GalleryUnusable


def limit_pages(http, spare):
    db = http.app.state.gallery._store.file.db
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages + spare if spare is not None else 10**6}")


async def test_a_full_disk_keeps_nothing_of_a_request_and_all_of_those_before(start, tile_request, photo, problem_of):
    async with start() as http:
        await http.post("/gallery", **tile_request(1, 2))
        limit_pages(http, 1)
        problem = problem_of(await http.post("/gallery", **tile_request(*range(3, 40))), "storage-full", 507)
        assert "Free space" in problem["detail"]
        assert (await http.get("/gallery")).json()["count"] == 2
        found = (await http.post("/localize", files={"image": ("p", photo(5))})).json()
        assert {candidate["tile_id"] for candidate in found["candidates"]} == {"map/1", "map/2"}
        limit_pages(http, None)
        assert (await http.post("/gallery", **tile_request(3))).json()["added"] == 1
    async with start() as http:
        assert (await http.get("/gallery")).json()["count"] == 3


async def test_a_full_disk_refuses_snapshots_and_uploads(http, tile_request, problem_of, monkeypatch, tmp_path):
    await http.post("/gallery", **tile_request(1))
    real = sqlite3.connect

    def small(database, **options):
        db = real(database, **options)
        db.execute("PRAGMA max_page_count = 2")
        return db

    with monkeypatch.context() as patch:
        patch.setattr("service.ground.store.copies.sqlite3.connect", small)
        problem_of(await http.post("/gallery/snapshots"), "storage-full", 507)

    class Nothing:
        free = 10

    monkeypatch.setattr("service.routes.imports.shutil.disk_usage", lambda path: Nothing)
    problem_of(await http.post("/gallery/imports", files={"file": ("m.tif", bytes(1000))}), "storage-full", 507)
    assert list((tmp_path / "g.gallery-imports").iterdir()) == []


async def test_no_room_for_large_uploads_while_they_are_read(http, problem_of, monkeypatch):
    def full(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", full)
    large = {"image": ("p.jpg", bytes(2 * 2**20))}
    problem_of(await http.post("/localize", files=large), "storage-full", 507)
    problem_of(await http.post("/gallery", files=large, data={"tiles": "[{}]"}), "storage-full", 507)


async def test_a_disk_that_becomes_read_only(http, tile_request, photo, problem_of):
    await http.post("/gallery", **tile_request(1))
    http.app.state.gallery._store.file.db.execute("PRAGMA query_only = ON")
    for attempt in (
        http.post("/gallery", **tile_request(2)),
        http.delete("/gallery/tiles/map/1"),
        http.delete("/gallery/tiles?bbox=-180,-90,180,90"),
    ):
        assert "read-only" in problem_of(await attempt, "gallery-unusable", 503)["detail"]
    found = (await http.post("/localize", files={"image": ("p", photo(1))})).json()
    assert [candidate["tile_id"] for candidate in found["candidates"]] == ["map/1"]


async def test_a_read_only_file_is_refused_at_the_start(start, settings, tile_request, monkeypatch):
    async with start() as http:
        await http.post("/gallery", **tile_request(1))
    with monkeypatch.context() as patch:
        patch.setattr("service.ground.store.file.os.access", lambda path, mode: False)  # what root never meets
        with pytest.raises(GalleryUnusable, match=r"g\.gallery is read-only; give this user the right to write it"):
            create_app(settings())
    real = sqlite3.connect
    monkeypatch.setattr(
        "service.ground.store.file.sqlite3.connect",
        lambda path, **options: real(f"file:{path}?mode=ro", **options | {"uri": True}),
    )
    with pytest.raises(GalleryUnusable, match=r"g\.gallery is read-only"):
        create_app(settings())


async def test_searches_never_find_what_was_deleted_while_others_write(http, tile_request, photo):
    """After a deletion is answered, no search that begins later returns the tile."""
    await http.post("/gallery", **tile_request(*range(12)))
    deleted, wrong = set(), []

    async def search():
        while len(deleted) < 10:
            gone = set(deleted)
            answer = await http.post("/localize", files={"image": ("p", photo(3))}, data={"top_k": 100})
            found = {candidate["tile_id"] for candidate in answer.json()["candidates"]}
            wrong.extend(found & gone)

    async def delete():
        for column in range(10):
            await http.delete(f"/gallery/tiles/map/{column}")
            deleted.add(f"map/{column}")
            await http.post("/gallery", **tile_request(20 + column))

    await asyncio.gather(search(), search(), delete())
    assert wrong == []


async def test_a_gallery_file_that_is_gone_or_another_is_told_and_nothing_is_acknowledged(
    http, tile_request, problem_of, photo, tmp_path, monkeypatch
):
    monkeypatch.setattr("service.watch.health.FRESH_S", -1.0)
    path, elsewhere = tmp_path / "g.gallery", tmp_path / "elsewhere"
    await http.post("/gallery", **tile_request(1, 2))
    assert (await http.get("/readyz")).status_code == 200
    path.rename(elsewhere)
    for there in (False, True):
        if there:
            path.write_bytes(elsewhere.read_bytes())
        assert "gallery" in problem_of(await http.get("/readyz"), "not-ready", 503)["detail"]
        for method, where, form in (("POST", "/gallery", tile_request(3)), ("DELETE", "/gallery/tiles/map/1", {})):
            problem = problem_of(await http.request(method, where, **form), "gallery-unusable", 503)
            assert "removed, replaced or written to by another program" in problem["detail"]
    answer = (await http.post("/localize", files={"image": ("p", photo(2))})).json()
    assert answer["candidates"][0]["tile_id"] == "map/2"  # what is in memory is still right
    elsewhere.replace(path)
    assert (await http.get("/readyz")).status_code == 200
    assert (await http.post("/gallery", **tile_request(3))).json()["added"] == 1
