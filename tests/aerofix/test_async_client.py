"""Calls of a service: names of all kinds, services that are busy, downloads that fail."""

import asyncio

import httpx
import pytest

from aerofix import AsyncClient, ServiceError
from aerofix.local import in_process
from service.errors import AerofixError, InvalidParameter
from service.settings import Settings

NO_TILES = {"tiles": [], "cursor": None}


def problem(status, detail, headers=None, slug="any", **extra):
    """A problem document as the service answers it."""
    body = {"type": f"/problems/{slug}", "title": "Any", "status": status, "detail": detail} | extra
    return httpx.Response(status, json=body, headers=headers)


@pytest.fixture
def settings(tmp_path, tiny_model):
    model = tiny_model(tmp_path / "m.onnx")
    return Settings(model=model, gallery=tmp_path / "g.gallery", device="cpu", threads=1)


def client_of(answer):
    """A client of a service that ``answer`` plays, from request to response."""
    return AsyncClient(http=httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://t"))


ODD = [
    "a/b",
    "a b",
    "100%",
    "a%2Fb",
    "%2e%2e",
    "who?",
    "#1",
    "a;b=c",
    "灯台",
    "a\\b",
    "[/red]",
    "x/image",
    "a..b",
    "+",
    '"',
]


async def test_ids_of_all_kinds_are_deleted_and_nothing_else_is(settings, ground, encode_image):
    async with in_process(settings) as client:
        image = encode_image(ground(1, 32, 32))
        entries = [{"id": one, "lat": 1.0, "lon": 2.0 + n / 100, "gsd_m": 1.0} for n, one in enumerate(ODD)]
        assert (await client.add_tiles([image] * len(ODD), entries)).added == len(ODD)
        for left, one in enumerate(reversed(ODD)):
            assert (await client.delete_tile(one)).deleted == 1
            kept = [tile.id for tile in (await client.tiles(100)).tiles]
            assert kept == ODD[: len(ODD) - left - 1]


@pytest.mark.parametrize("tile_id", ["a/../b", "x/../../snapshots/copy.gallery", "..", ".", "b/.", "/b", ""])
async def test_an_id_that_would_lead_elsewhere_is_not_sent(tile_id):
    asked = []

    def answer(request):
        asked.append(request.url)
        return httpx.Response(200, json={"deleted": 1})

    with pytest.raises(InvalidParameter, match="A tile id must"):
        await client_of(answer).delete_tile(tile_id)
    assert asked == []


@pytest.fixture
def naps(monkeypatch):
    """The seconds that were waited for, which take none."""
    seconds, sleep = [], asyncio.sleep

    async def nap(delay):
        seconds.append(delay)
        await sleep(0)

    monkeypatch.setattr("aerofix.transport.anyio.sleep", nap)
    return seconds


@pytest.mark.parametrize(
    ("status", "headers", "waits"),
    [(429, {"Retry-After": "7"}, [7, 7]), (429, {}, [1, 1]), (503, {"Retry-After": "5"}, [5, 5])],
)
async def test_a_busy_service_is_asked_again_when_it_says(naps, status, headers, waits):
    answers = iter([*(problem(status, "later", headers) for _ in waits), httpx.Response(200, json=NO_TILES)])
    assert (await client_of(lambda request: next(answers)).tiles()).model_dump() == NO_TILES
    assert naps == waits


async def test_a_map_is_sent_whole_however_often(naps, tmp_path):
    (tmp_path / "map.tif").write_bytes(b"II*" + bytes(range(256)) * 1000)
    bodies = []

    def answer(request):
        bodies.append(request.read())
        return problem(429, "later") if len(bodies) < 3 else problem(409, "there is a map of this name.")

    with pytest.raises(ServiceError, match="there is a map"):
        await client_of(answer).send_map(tmp_path / "map.tif", replace=True)
    assert len(bodies) == 3
    assert all((tmp_path / "map.tif").read_bytes() in body for body in bodies)


@pytest.mark.parametrize("retry_after", ["50", "100000", "Wed, 21 Oct 2026 07:28:00 GMT"])
async def test_patience_ends(naps, retry_after):
    def answer(request):
        return problem(429, "16 wait already.", {"Retry-After": retry_after})

    with pytest.raises(ServiceError, match="16 wait already"):
        await client_of(answer).gallery()
    assert sum(naps) <= 120


async def test_a_problem_that_waiting_does_not_mend_is_told_at_once(naps):
    answer = problem(503, "the gallery is gone.", slug="gallery-unusable")
    with pytest.raises(ServiceError, match="the gallery is gone") as caught:
        await client_of(lambda request: answer).gallery()
    assert (caught.value.kind, caught.value.problem.status) == ("gallery-unusable", 503)
    assert naps == []


def snapshots(download):
    """A service whose only snapshot of 4 bytes is handed out as ``download`` has it; and what was deleted."""
    deleted = []

    def answer(request):
        if request.method == "POST":
            return httpx.Response(201, json={"name": "one.gallery", "bytes": 4, "created_at": "2026-04-18T09:30:00Z"})
        if request.method == "DELETE":
            deleted.append(request.url.path)
            return httpx.Response(204)
        return download()

    return client_of(answer), deleted


def cut_off():
    async def parts():
        yield b"ab"
        raise httpx.ReadError("connection lost")

    return httpx.Response(200, content=parts())


FAILURES = {
    "a problem": (
        lambda: problem(404, "there is no snapshot."),
        "no snapshot",
    ),
    "a page": (lambda: httpx.Response(502, text="<html>"), "not an aerofix service"),
    "cut off": (cut_off, "incomplete .connection lost"),
    "too short": (lambda: httpx.Response(200, content=b"abc"), "incomplete"),
}


@pytest.mark.parametrize(("download", "says"), FAILURES.values(), ids=FAILURES)
async def test_a_download_that_fails_leaves_no_file(tmp_path, download, says):
    client, deleted = snapshots(download)
    with pytest.raises(ServiceError, match=says):
        await client.snapshot(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert deleted == ["/gallery/snapshots/one.gallery"]


async def test_a_download_that_arrives_is_kept(tmp_path):
    client, deleted = snapshots(lambda: httpx.Response(200, content=b"abcd"))
    await client.snapshot(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"abcd"
    assert deleted == ["/gallery/snapshots/one.gallery"]


async def test_a_download_over_a_file_leaves_that_alone(tmp_path):
    client, deleted = snapshots(lambda: httpx.Response(200, content=b"abcd"))
    (tmp_path / "copy").write_bytes(b"mine")
    with pytest.raises(ServiceError, match="copy cannot be written"):
        await client.snapshot(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"mine"
    assert deleted


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:99999", "http://127.0.0.1:-1", "http://a:b", "http://[::1", "http://\0", "nowhere", "http://"],
)
async def test_what_is_no_url_is_refused_before_it_is_asked(url):
    with pytest.raises(ServiceError, match=r"is not (the|a) URL"):
        AsyncClient(url)


async def test_a_proxy_that_is_no_url_is_named(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "somewhere:else:entirely")
    with pytest.raises(ServiceError, match="HTTP_PROXY"):
        AsyncClient("http://127.0.0.1:8000")


@pytest.mark.parametrize("key", ["ключ", "a\nb"])
async def test_a_key_that_cannot_be_one_is_refused_and_not_shown(monkeypatch, key):
    monkeypatch.setenv("AEROFIX_KEY", key)
    with pytest.raises(AerofixError, match="AEROFIX_KEY") as caught:
        AsyncClient("http://127.0.0.1:8000")
    assert key not in str(caught.value)
