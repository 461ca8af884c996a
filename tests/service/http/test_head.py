import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import FileResponse, StreamingResponse

from service.http.head import Head


@pytest.fixture
def http(tmp_path):
    app = FastAPI()
    app.produced = []
    (tmp_path / "file").write_bytes(b"-" * 1_000_000)

    def pieces():
        for number in range(1000):
            app.produced.append(number)
            yield b"-"

    app.get("/json")(lambda: {"a": 1})
    app.get("/file")(lambda: FileResponse(tmp_path / "file"))
    app.get("/stream")(lambda: StreamingResponse(pieces()))
    app.post("/post")(lambda: None)
    app.add_middleware(Head)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t")
    client.app = app
    return client


@pytest.mark.parametrize("path", ["/json", "/file", "/none"])
async def test_head_has_the_headers_of_get_and_no_body(http, path):
    got, head = await http.get(path), await http.head(path)
    assert (head.status_code, head.headers, head.content) == (got.status_code, got.headers, b"")


async def test_no_file_is_read_to_the_end_for_it(http):
    assert (await http.head("/stream")).status_code == 200
    assert len(http.app.produced) < 5


async def test_head_is_not_for_what_get_is_not_for(http):
    assert (await http.head("/post")).status_code == 405
