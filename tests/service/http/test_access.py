import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from service.http.access import Guard, SecurityHeaders
from service.http.problems import add_problem_handlers
from service.http.security import Keys, digests

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
    "path",
    ["/", "/livez", "/readyz", "/docs", "/docs/assets/x.js", "/web/map.js", "/openapi.json", "/problems/forbidden"],
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
    ("allowed", "host", "status"),
    [
        ("*", "any.example:1", 200),
        ("map.local:8000", "map.local:8000", 200),
        ("map.local:8000", "MAP.local:8000", 200),
        ("map.local:8000", "map.local", 403),
        ("map.local:8000", "map.local:9000", 403),
        ("map.local", "map.local:9000", 200),
        ("[::1]:8000", "[::1]:8000", 200),
        ("[::1]:8000", "[::1]:9000", 403),
        ("::1", "[::1]:9000", 200),
        ("[::1]", "[::1]", 200),
    ],
)
async def test_names_with_and_without_a_port(allowed, host, status):
    async with guarded(hosts=(allowed,)) as http:
        assert (await http.get("/gallery", headers={"Host": host})).status_code == status


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
        ({"Origin": "null", "Host": ""}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://[::1"}, 403),
        ({"Origin": b"\xff://127.0.0.1:8000]"}, 403),
        ({"Origin": "http://[::1]:8000", "Host": "[::1]:8000"}, 200),
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
        assert response.headers["cross-origin-resource-policy"] == "same-origin"
