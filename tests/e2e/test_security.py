"""Keys, origins and names, asked of the whole service."""

from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from aerofix import AsyncClient, ServiceError
from aerofix.local import in_process
from service.app import create_app
from service.errors import ConfigurationInvalid

READER, WRITER = "reader-0123456789", "writer-0123456789"


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


async def test_readers_localize_and_writers_add(start, tile_request, photo, problem_of):
    async with start(read_keys=(READER,), write_keys=(WRITER,)) as http:
        problem_of(await http.post("/gallery", **tile_request(1)), "unauthorized", 401)
        problem_of(await http.post("/gallery", **tile_request(1), headers=bearer(READER)), "forbidden", 403)
        assert (await http.post("/gallery", **tile_request(1), headers=bearer(WRITER))).json()["added"] == 1
        files = {"image": ("p.jpg", photo(1))}
        problem_of(await http.post("/localize", files=files), "unauthorized", 401)
        assert (await http.post("/localize", files=files, headers=bearer(READER))).json()["status"] == "located"


async def test_a_body_is_not_read_before_its_key(start, problem_of):
    async def body():
        pytest.fail("the body was read")
        yield b""

    async with start(write_keys=(WRITER,)) as http:
        problem_of(await http.post("/gallery", content=body()), "unauthorized", 401)


async def test_the_description_says_where_a_key_is_needed(start):
    async with start(write_keys=(WRITER,)) as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
    assert paths["/localize"]["post"]["security"] == [{"key": []}]
    assert "security" not in paths["/livez"]["get"]


async def test_cors_is_off_unless_an_origin_is_named(start):
    preflight = {"Origin": "https://map.example", "Access-Control-Request-Method": "POST"}
    async with start() as http:
        answer = await http.options("/localize", headers=preflight)
        assert "access-control-allow-origin" not in answer.headers
    async with start(cors_origins=("https://map.example",), write_keys=(WRITER,)) as http:
        answer = await http.options("/localize", headers=preflight)
        assert answer.headers["access-control-allow-origin"] == "https://map.example"
        refused = await http.post("/localize", headers={"Origin": "https://map.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://map.example"
        other = await http.options("/localize", headers=preflight | {"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


async def test_even_a_defect_is_answered_with_the_headers(http, photo, monkeypatch):
    monkeypatch.setattr("service.localization.pipeline.open_photo", lambda *args: 1 / 0)
    answer = await http.post("/localize", files={"image": ("p.jpg", photo(1))})
    assert (answer.status_code, answer.headers["x-content-type-options"]) == (500, "nosniff")


async def test_the_docs_page_loads_only_what_is_here(http):
    page = await http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    links = [part.split('"')[0] for part in page.text.replace('src="', 'href="').split('href="')[1:]]
    assert len(links) == 4
    for link in links:  # relative, for a proxy may show the page below a path of its own
        assert (urlsplit(link).netloc, link[0] == "/") == ("", False)
        assert (await http.get(urljoin("/docs", link))).status_code == 200


def test_a_file_of_keys_that_is_not_there_is_a_start_up_error(settings, tmp_path):
    with pytest.raises(ConfigurationInvalid, match="keys"):
        create_app(settings(keys_file=tmp_path / "keys"))


async def test_the_client_shows_its_key(start, tile_request, monkeypatch):
    real = httpx.AsyncClient
    async with start(read_keys=(READER,)) as http:
        transport = httpx.ASGITransport(http.app)
        monkeypatch.setattr(httpx, "AsyncClient", lambda **options: real(transport=transport, **options))
        monkeypatch.setenv("AEROFIX_KEY", READER)
        async with AsyncClient("http://127.0.0.1") as client:
            assert (await client.gallery()).count == 0
        monkeypatch.delenv("AEROFIX_KEY")
        async with AsyncClient("http://127.0.0.1") as client:
            with pytest.raises(ServiceError, match="AEROFIX_KEY"):
                await client.gallery()


async def test_a_file_that_one_may_open_needs_no_key(settings):
    async with in_process(settings(read_keys=(READER,), allowed_hosts=("map.local",))) as client:
        assert (await client.gallery()).count == 0


async def test_no_answer_names_a_folder_of_the_server(http, tile_request, photo, tmp_path):
    """Also not when the gallery cannot be read any more, whose errors name the file."""
    await http.post("/gallery", **tile_request(1))
    gets = ["/model", "/readyz", "/gallery", "/gallery/tiles", "/gallery/imports", "/gallery/snapshots", "/metrics"]
    answers = [await http.get(path) for path in gets]
    answers.append(await http.post("/gallery/snapshots"))
    http.app.state.gallery.close()
    answers += [await http.get(path) for path in gets]
    answers.append(await http.post("/gallery", **tile_request(2)))
    answers.append(await http.post("/gallery/snapshots"))
    answers.append(await http.post("/localize", files={"image": ("p.jpg", photo(1))}))
    assert 503 in {answer.status_code for answer in answers}
    for answer in answers:
        assert str(tmp_path) not in answer.text, answer.url
        assert "/home/" not in answer.text, answer.url


async def test_every_address_takes_head_and_no_parameter_that_it_does_not_name(http, tile_request, problem_of):
    await http.post("/gallery", **tile_request(1))
    paths = {"tile_id": "map/1", "import_id": "none", "name": "none", "track_id": "none"}
    paths |= {"map": "none", "z": 1, "x": 0, "y": 0}
    described = (await http.get("/openapi.json")).json()["paths"]
    for path, item in described.items():
        for verb in item:
            asked = await http.request(verb, path.format(**paths) + "?heading_deg=118")
            problem = problem_of(asked, "invalid-parameter", 422)
            assert "'heading_deg'" in problem["detail"] or "must be given" in problem["detail"], (verb, path)
        if "get" in item:
            got, head = await http.get(path.format(**paths)), await http.head(path.format(**paths))
            assert (head.status_code, head.content) == (got.status_code, b"")
            assert head.headers["content-type"] == got.headers["content-type"]
    for path in ("/", "/docs", "/openapi.json", "/web/main.js", "/problems/forbidden"):
        assert (await http.head(path)).status_code == 200


async def test_images_are_for_pages_of_this_origin(http, tile_request):
    await http.post("/gallery", **tile_request(1))
    answer = await http.get("/gallery/tiles/map/1/image")
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
