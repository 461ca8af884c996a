import asyncio

import httpx
import pytest
from fastapi import FastAPI, Request

from service.http.admission import Admission, BodyLimits
from service.http.door import Door, Stage
from service.http.problems import add_problem_handlers

USUAL = BodyLimits(100, "AEROFIX_MAX_BODY_BYTES", 600.0, 1e6)
UPLOAD = BodyLimits(200, "AEROFIX_MAX_IMPORT_BYTES", None, 1e6)


@pytest.fixture
def door():
    return Door(2, 3, 1, 150)


@pytest.fixture
def client(door):
    """``client(usual)``: an app that reads bodies and says what the door counts meanwhile."""

    def make(usual=USUAL, upload=UPLOAD):
        app = FastAPI()

        @app.api_route("/{path:path}", methods=["GET", "POST"])
        async def read(request: Request, path: str):
            return {"size": len(await request.body()), "here": door.here, "bytes": door.body_bytes}

        add_problem_handlers(app)
        app.add_middleware(Admission, door=door, usual=usual, uploads={"/upload": upload})
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t")

    return make


async def pieces(*sizes):
    for size in sizes:
        yield b"-" * size


async def silent():
    yield b"-----"
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("method", "path", "sizes", "stage", "counted"),
    [
        ("GET", "/", (), "inside", 0),
        ("POST", "/", (), "inside", 0),
        ("POST", "/", (40, 40), "inside", 80),
        ("POST", "/upload", (90, 90), "uploading", 0),
    ],
)
async def test_where_a_request_is_when_its_body_is_here(client, door, method, path, sizes, stage, counted):
    async with client() as http:
        seen = (await http.request(method, path, content=pieces(*sizes))).json()
    assert seen == {"size": sum(sizes), "here": dict.fromkeys(Stage, 0) | {stage: 1}, "bytes": counted}
    assert door.empty
    assert door.body_bytes == 0


async def test_a_full_door_and_a_closed_one(client, door):
    async with client() as http:
        visits = [door.admit(Stage.INSIDE) for _ in range(2)]
        full = await http.get("/gallery")
        assert (full.status_code, full.headers["retry-after"], full.json()["limit"]) == (429, "1", 2)
        for visit in visits:
            visit.leave()
        door.closed = True
        closed = await http.get("/gallery")
        assert (closed.status_code, closed.json()["type"]) == (503, "/problems/not-ready")
        for path in ("/livez", "/readyz", "/metrics", "/timings"):
            assert (await http.get(path)).status_code == 200


async def test_bodies_that_do_not_come_keep_nobody_out(client, door):
    async with client() as http:
        slow = [asyncio.create_task(http.post("/", content=silent())) for _ in range(2)]
        slow.append(asyncio.create_task(http.post("/upload", content=silent())))
        while door.here[Stage.ARRIVING] + door.here[Stage.UPLOADING] < 3:  # noqa: ASYNC110 - the door has no event to wait for
            await asyncio.sleep(0)
        assert (await http.post("/", content=pieces(10))).status_code == 200
        assert (await http.get("/")).status_code == 200
        second = await http.post("/upload", content=pieces(10))
        assert (second.status_code, second.json()["limit"]) == (429, 1)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
    assert door.empty


async def test_a_house_that_fills_while_a_body_comes(client, door):
    visits = []

    async def body():
        yield b"-"
        visits.extend(door.admit(Stage.INSIDE) for _ in range(2))
        yield b"-"

    async with client() as http:
        refused = await http.post("/", content=body())
    assert (refused.status_code, refused.json()["limit"], refused.headers["retry-after"]) == (429, 2, "1")
    assert door.here == dict.fromkeys(Stage, 0) | {Stage.INSIDE: 2}


async def test_bodies_that_are_too_large_together(client, door):
    held = door.admit(Stage.INSIDE)
    held.bring(100)
    async with client() as http:
        assert (await http.post("/", content=pieces(50))).status_code == 200
        refused = await http.post("/", content=pieces(51))
        assert (refused.status_code, refused.json()["limit"]) == (429, 150)
        assert (await http.post("/upload", content=pieces(200))).status_code == 200
    assert door.body_bytes == 100


@pytest.mark.parametrize(("path", "limit", "setting"), [("/", 100, "MAX_BODY_BYTES"), ("/upload", 200, "MAX_IMPORT")])
async def test_a_body_that_is_too_large(client, door, path, limit, setting):
    async with client() as http:
        for content in (b"-" * (limit + 1), pieces(limit, 1)):  # announced, and not
            refused = await http.post(path, content=content)
            assert (refused.status_code, refused.json()["limit"]) == (413, limit)
            assert f"AEROFIX_{setting}" in refused.json()["detail"]
    assert door.empty


@pytest.mark.parametrize("path", ["/", "/upload"])
async def test_a_body_below_the_pace(client, door, path):
    limits = BodyLimits(100, "X", None if path == "/upload" else 600.0, bytes_s=1e6, grace_s=0.01)
    async with client(limits, limits) as http:
        slow = await http.post(path, content=silent())
    assert (slow.status_code, slow.json()["actual"], slow.json()["limit"]) == (408, 5, 1e6)
    assert "AEROFIX_MIN_BODY_BYTES_S" in slow.json()["detail"]
    assert door.empty


async def test_a_body_that_keeps_the_pace_but_not_the_time(client, door):
    limits = BodyLimits(100, "X", timeout_s=0.01, bytes_s=1e-6, grace_s=600.0)
    async with client(limits) as http:
        slow = await http.post("/", content=silent())
    assert (slow.status_code, slow.json()["limit"]) == (408, 0.01)
    assert "AEROFIX_BODY_TIMEOUT_S" in slow.json()["detail"]


async def test_a_large_file_may_take_its_time_if_it_keeps_the_pace(client):
    async def body():
        yield b"-" * 60  # good for a minute
        await asyncio.sleep(0.01)
        yield b"-"

    async with client(upload=BodyLimits(100, "X", None, bytes_s=1.0, grace_s=0.0)) as http:
        assert (await http.post("/upload", content=body())).json()["size"] == 61


async def test_a_byte_now_and_then_buys_no_time(client):
    async def body():
        while True:
            yield b"-"
            await asyncio.sleep(0.001)

    async with client(upload=BodyLimits(10**9, "X", None, bytes_s=1e6, grace_s=0.05)) as http:
        assert (await http.post("/upload", content=body())).status_code == 408


async def run(app, door, method="GET"):
    async def sent(message):
        pass

    scope = {"type": "http", "path": "/localize", "method": method, "headers": []}
    await Admission(app, door, USUAL)(scope, None, sent)


async def test_a_late_answer_lowers_the_limit(door):
    async def late(scope, receive, send):
        await send({"type": "http.response.start", "status": 504, "headers": []})

    await run(late, door)
    assert door.empty
    assert door.limit == pytest.approx(1.4)


async def test_an_answer_that_is_not_taken_keeps_nobody_out(door):
    taken = asyncio.Event()

    async def answers(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        await taken.wait()

    scope = {"type": "http", "path": "/gallery", "method": "GET", "headers": []}
    unread = []
    for number in range(1, 6):
        unread.append(asyncio.create_task(Admission(answers, door, USUAL)(dict(scope), None, send)))
        while door.here[Stage.ANSWERING] < number:  # noqa: ASYNC110 - the door has no event to wait for
            await asyncio.sleep(0)
    assert door.here[Stage.INSIDE] == 0
    taken.set()
    await asyncio.gather(*unread)
    assert door.empty


async def test_who_fails_inside_has_left(door):
    async def broken(scope, receive, send):
        assert door.here[Stage.INSIDE] == 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run(broken, door)
    assert door.empty
