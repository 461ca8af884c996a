"""The service below a path of a proxy."""

import httpx
import pytest

from service.app import create_app
from service.settings import Settings


@pytest.fixture
async def http(tmp_path, tiny_model):
    model = tiny_model(tmp_path / "m.onnx")
    app = create_app(Settings(model=model, gallery=tmp_path / "g", device="cpu", root_path="/fix"))
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        yield client


@pytest.mark.parametrize("prefix", ["", "/fix"])
async def test_a_proxy_may_take_the_prefix_off_or_leave_it(http, prefix):
    for path in ("/livez", "/docs", "/web/main.js", "/maps"):
        assert (await http.get(prefix + path)).status_code == 200, path


async def test_what_only_begins_like_the_prefix_is_another_path(http):
    assert (await http.get("/fixed/livez")).status_code == 404


async def test_addresses_in_answers_have_the_prefix(http):
    opened = await http.post("/tracks")
    assert opened.headers["location"].startswith("/fix/tracks/")
    assert (await http.get(opened.headers["location"])).status_code == 200
    assert (await http.get("/openapi.json")).json()["servers"] == [{"url": "/fix"}]


async def test_redirects_stay_below_the_prefix(http):
    answer = await http.get("/fix/maps/?x=1")
    assert (answer.status_code, answer.headers["location"]) == (307, "/fix/maps?x=1")


async def test_only_paths_are_taken(tmp_path):
    for wrong in ("fix", "/fix/", "https://host/fix", "/a b"):
        with pytest.raises(ValueError, match="root_path"):
            Settings(root_path=wrong)
