import asyncio
import signal
import threading
import time
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from service.errors import ContractBroken
from service.http.door import Door, Stage
from service.http.server import DrainingServer, Front


class Answer(FastAPI):
    """A service that has loaded: it answers its name, and says whether it lives."""

    def __init__(self, door):
        @asynccontextmanager
        async def lifespan(_):
            self.lives = True
            yield
            self.lives = False

        super().__init__(lifespan=lifespan)
        self.state.door = door
        self.get("/")(lambda: "loaded")


@asynccontextmanager
async def running(front):
    """The front as a server runs it: a client of it, from the start of its life to the end."""
    told, started = asyncio.Queue(), asyncio.Event()

    async def send(message):
        assert message["type"] in ("lifespan.startup.complete", "lifespan.shutdown.complete")
        started.set()

    life = asyncio.create_task(front({"type": "lifespan", "state": {}}, told.get, send))
    await told.put({"type": "lifespan.startup"})
    await started.wait()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url="http://t") as http:
        yield http
    await told.put({"type": "lifespan.shutdown"})
    await life


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what a thread does has no event here
            await asyncio.sleep(0.001)


async def test_while_it_loads_the_service_is_alive_and_not_ready(door):
    loaded, ready, service = threading.Event(), [], Answer(door)
    front = Front(lambda: loaded.wait(60) and service, lambda: ready.append(True))
    async with running(front) as http:
        assert (await http.get("/livez")).json() == {"status": "alive"}
        for method, path in (("GET", "/readyz"), ("GET", "/"), ("POST", "/localize"), ("GET", "/metrics")):
            answer = await http.request(method, path, headers={"X-Request-ID": "mission-7"})
            problem = answer.json()
            assert (answer.status_code, problem["type"], problem["instance"]) == (
                503,
                "/problems/not-ready",
                "mission-7",
            )
            assert "starting" in problem["detail"]
            assert int(answer.headers["retry-after"]) > 0
        assert not ready
        loaded.set()
        await until(lambda: ready)
        assert (await http.get("/")).json() == "loaded"
        assert service.lives
    assert not service.lives


async def test_a_service_that_cannot_be_loaded_ends_the_server():
    def load():
        raise ContractBroken("there is no model file")

    front = Front(load, lambda: None)
    server = DrainingServer(uvicorn.Config(app=None), front, 3600)
    assert not await server.on_tick(1)
    async with running(front):
        await until(lambda: front.failure)
        assert await server.on_tick(2)
    assert front.failure.detail == "there is no model file"


async def test_a_signal_ends_what_is_still_loading():
    stop = threading.Event()
    front = Front(lambda: stop.wait(60) and None, lambda: None)
    server = DrainingServer(uvicorn.Config(app=None), front, 3600)
    async with running(front):
        server.handle_exit(signal.SIGTERM, None)
        assert await server.on_tick(1)
    stop.set()


@pytest.fixture
def door():
    return Door(8, 8, 8, 1000)


@pytest.fixture
def server(door):
    def make(drain_s):
        front = Front(lambda: None, lambda: None)
        front.door = door
        return DrainingServer(uvicorn.Config(app=None), front, drain_s)

    return make


async def test_nobody_told_it_to_stop(server, door):
    assert not await server(0.0).on_tick(1)
    assert not door.closed


async def test_the_first_signal_closes_the_door_and_the_last_to_leave_ends_it(server, door):
    running = server(3600)
    visits = [door.admit(Stage.INSIDE), door.admit(Stage.ARRIVING)]
    running.handle_exit(signal.SIGTERM, None)
    assert door.closed
    assert not await running.on_tick(1)
    for visit in visits:
        visit.leave()
    assert await running.on_tick(2)


async def test_who_takes_too_long_is_not_waited_for(server, door, monkeypatch):
    running = server(25.0)
    door.admit(Stage.INSIDE)
    told_at = time.monotonic()
    monkeypatch.setattr("service.http.server.time.monotonic", lambda: told_at)
    running.handle_exit(signal.SIGTERM, None)
    assert not await running.on_tick(1)
    monkeypatch.setattr("service.http.server.time.monotonic", lambda: told_at + 26)
    assert await running.on_tick(2)


async def test_a_second_signal_ends_the_wait(server, door):
    running = server(3600)
    door.admit(Stage.INSIDE)
    running.handle_exit(signal.SIGINT, None)
    running.handle_exit(signal.SIGINT, None)
    assert await running.on_tick(1)
