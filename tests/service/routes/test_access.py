import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from service.routes.access import Admission, Door, Guard, SecurityHeaders
from service.routes.problems import add_problem_handlers
from service.security import Keys, digests

READER, WRITER = "reader-0123456789", "writer-0123456789"
KEYS = Keys(digests([READER]), digests([WRITER]))


def client(*middleware):
    """An app that answers every path and method, behind middleware given as ``(class, options)`` from outside in."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.api_route("/{path:path}", methods=["GET", "POST", "DELETE", "PUT"])
    async def anything(path: str):
        return HTMLResponse("<p>hello") if path == "page" else {"path": path}

    add_problem_handlers(app)
    for kind, options in reversed(middleware):
        app.add_middleware(kind, **options)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000")


def guarded(keys=None, hosts=(), origins=()):
    return client((Guard, {"keys": keys or Keys(), "hosts": hosts, "origins": origins}))


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "path", ["/", "/livez", "/readyz", "/docs", "/docs/assets/x.js", "/web/map.js", "/openapi.json"]
)
async def test_pages_and_probes_need_no_key(path):
    async with guarded(KEYS) as http:
        assert (await http.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "writes"),
    [
        ("GET", "/gallery", False),
        ("GET", "/gallery/tiles/a", False),
        ("GET", "/metrics", False),
        ("GET", "/timings", False),
        ("GET", "/model", False),
        ("POST", "/localize", False),
        ("POST", "/tracks", False),
        ("POST", "/tracks/7/localize", False),
        ("DELETE", "/tracks/7", False),
        ("POST", "/gallery", True),
        ("DELETE", "/gallery/tiles/a", True),
        ("POST", "/gallery/imports", True),
        ("DELETE", "/gallery/imports/1", True),
        ("POST", "/gallery/snapshots", True),
        ("POST", "/whatever/comes", True),
        ("PUT", "/localizer", True),
    ],
)
async def test_everything_else_needs_one(method, path, writes):
    async with guarded(KEYS) as http:
        nobody = await http.request(method, path)
        assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, 'Bearer realm="aerofix"')
        stranger = await http.request(method, path, headers=bearer("stranger-01234567"))
        assert stranger.status_code == 401
        assert stranger.headers["www-authenticate"] == 'Bearer realm="aerofix", error="invalid_token"'
        reader = await http.request(method, path, headers=bearer(READER))
        assert reader.status_code == (403 if writes else 200)
        if writes:
            assert 'error="insufficient_scope"' in reader.headers["www-authenticate"]
            assert reader.json()["type"] == "/problems/forbidden"
        assert (await http.request(method, path, headers=bearer(WRITER))).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("[::1]:8000", 200),
        ("127.0.0.1", 200),
        ("evil.example", 403),
        ("localhost.evil.example:8000", 403),
        ("", 403),
    ],
)
async def test_a_name_that_is_not_ours(host, status):
    async with guarded(hosts=("localhost", "127.0.0.1", "::1")) as http:
        assert (await http.get("/gallery", headers={"Host": host})).status_code == status
        assert (await http.get("/livez", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:8000"}, 200),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "https://map.example"}, 200),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://127.0.0.1:9000"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_a_page_of_another_origin_does_nothing(headers, status):
    async with guarded(origins=("https://map.example",)) as http:
        for path in ("/gallery", "/localize"):
            assert (await http.post(path, headers=headers)).status_code == status
        assert (await http.get("/gallery", headers=headers)).status_code == 200


async def test_pages_may_load_from_here_only_and_data_nothing():
    async with client((SecurityHeaders, {})) as http:
        page, data = await http.get("/page"), await http.get("/gallery")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "script-src" not in page.headers["content-security-policy"]
    assert data.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    for response in (page, data):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"


async def test_a_full_door_and_a_closed_one():
    door = Door(2)
    async with client((Admission, {"door": door})) as http:
        assert (await http.get("/gallery")).status_code == 200
        assert door.inside == 0
        door.inside = 2
        full = await http.get("/gallery")
        assert (full.status_code, full.headers["retry-after"], full.json()["limit"]) == (429, "1", 2)
        door.inside, door.closed = 0, True
        closed = await http.get("/gallery")
        assert (closed.status_code, closed.json()["type"]) == (503, "/problems/not-ready")
        for path in ("/livez", "/readyz", "/metrics", "/timings"):
            assert (await http.get(path)).status_code == 200


def test_the_limit_falls_by_a_factor_once_a_wave_and_rises_by_one_a_round(monkeypatch):
    now = iter([100.0, 200.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    door = Door(100)
    for entered_at in (1.0, 2.0, 99.0):  # one wave: all were inside when the first was late
        door.learn(504, entered_at)
    assert door.limit == pytest.approx(70)
    door.learn(504, 101.0)
    assert door.limit == pytest.approx(49)
    door.inside = 49
    for _ in range(49):
        door.learn(200, 201.0)
    assert door.limit == pytest.approx(50, abs=0.02)
    for status in (422, 429, 503, 0):
        door.learn(status, 300.0)
    assert door.limit == pytest.approx(50, abs=0.02)


def test_the_limit_stays_where_it_is_when_nobody_comes_and_within_its_bounds(monkeypatch):
    ticks = iter(range(1, 1000))
    monkeypatch.setattr("time.monotonic", lambda: next(ticks))
    door = Door(4)
    for wave in range(20):
        door.learn(504, wave + 0.5)
    assert door.limit == 1
    door.learn(200, 0.0)
    assert door.limit == 1
    door.inside = 4
    for _ in range(100):
        door.learn(200, 0.0)
    assert door.limit == 4


async def test_a_late_answer_lowers_the_limit():
    door = Door(10)

    async def late(scope, receive, send):
        await send({"type": "http.response.start", "status": 504, "headers": []})

    async def sent(message):
        pass

    await Admission(late, door)({"type": "http", "path": "/localize"}, None, sent)
    assert (door.inside, door.limit) == (0, pytest.approx(7))


async def test_who_fails_inside_has_left():
    door = Door(1)

    async def broken(scope, receive, send):
        assert door.inside == 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Admission(broken, door)({"type": "http", "path": "/gallery"}, None, None)
    assert door.inside == 0
