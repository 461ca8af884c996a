"""Services whose vectors are in a real ``milvus-lite`` server: answers, refusals, and what they say when it is gone."""

import asyncio
from contextlib import closing

import pytest
from milvus_servers import lite
from sending import finished, send

from service.cli.doctor import examine
from service.ground.exchange import chosen, dim_of, push
from service.ground.index.collection import Collection
from service.ground.store.store import Store


@pytest.fixture
def server(tmp_path):
    """``server(port)`` runs a server on what the last one has stored."""
    return lambda port=0: lite(tmp_path / "milvus", port)


def copy(path, uri):
    store = Store(path, read_only=True)
    collection = Collection(uri, "aerofix", store.identity, dim_of(store))
    with closing(store), closing(collection):
        push(store, chosen(store), collection, lambda _: None)


async def located(http, photo):
    return await http.post("/localize", files={"image": ("p.png", photo)})


async def test_answers_are_those_of_the_file_and_changes_are_refused(
    start, tmp_path, geotiff, window, server, problem_of
):
    async with start() as http:
        assert (await finished(http, await send(http, geotiff(), "town.tif")))["state"] == "done"
        alone = (await located(http, window(3, 2))).json()["candidates"]
        count = (await http.get("/gallery")).json()["count"]
    path = tmp_path / "g.gallery"
    with server() as (_, uri):
        await asyncio.to_thread(copy, path, uri)
        async with start(milvus_uri=uri) as http, start(milvus_uri=uri) as another:
            for service in (http, another):
                candidates = (await located(service, window(3, 2))).json()["candidates"]
                assert [each["tile_id"] for each in candidates] == [each["tile_id"] for each in alone]
                assert (await service.get("/readyz")).status_code == 200
            state = (await http.get("/gallery")).json()
            assert (state["count"], state["index"]["device"]) == (count, "milvus")
            for refused in (
                await http.request("DELETE", "/maps/town"),
                await http.request("DELETE", "/gallery/tiles/town/16/448003/875002"),
                await send(http, geotiff(5), "field.tif"),
            ):
                problem_of(refused, "gallery-read-only", 409)
            assert not (tmp_path / "g.gallery-imports").exists() or not any((tmp_path / "g.gallery-imports").iterdir())


async def test_a_service_that_loses_milvus_says_so_and_recovers(
    start, settings, tmp_path, geotiff, window, server, problem_of
):
    async with start() as http:
        assert (await finished(http, await send(http, geotiff(), "town.tif")))["state"] == "done"
    with server() as (process, uri):
        await asyncio.to_thread(copy, tmp_path / "g.gallery", uri)
        async with start(milvus_uri=uri) as http:
            before = (await located(http, window(3, 2))).json()["candidates"]
            (found,) = [each for each in examine(settings(milvus_uri=uri)) if each.subject == "gallery"]
            assert (found.good, "and so does Milvus" in found.text) == (True, True)
            process.kill()
            process.wait()
            problem_of(await located(http, window(3, 2)), "index-unavailable", 503)
            await _until(http, 503)
            assert (await http.get("/livez")).status_code == 200  # a restart would not help
            with server(int(uri.rpartition(":")[2])):
                await _until(http, 200)
                assert (await located(http, window(3, 2))).json()["candidates"] == before


async def _until(http, status):
    async with asyncio.timeout(120):
        while (await http.get("/readyz")).status_code != status:  # noqa: ASYNC110 - HTTP
            await asyncio.sleep(0.1)
