import signal
import time

import pytest
import uvicorn

from service.routes.door import Door, Stage
from service.server import DrainingServer


@pytest.fixture
def door():
    return Door(8, 8, 8, 1000)


@pytest.fixture
def server(door):
    def make(drain_s):
        return DrainingServer(uvicorn.Config(app=None), door, drain_s)

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
        visit.leave(200)
    assert await running.on_tick(2)


async def test_who_takes_too_long_is_not_waited_for(server, door, monkeypatch):
    running = server(25.0)
    door.admit(Stage.INSIDE)
    told_at = time.monotonic()
    monkeypatch.setattr("service.server.time.monotonic", lambda: told_at)
    running.handle_exit(signal.SIGTERM, None)
    assert not await running.on_tick(1)
    monkeypatch.setattr("service.server.time.monotonic", lambda: told_at + 26)
    assert await running.on_tick(2)


async def test_a_second_signal_ends_the_wait(server, door):
    running = server(3600)
    door.admit(Stage.INSIDE)
    running.handle_exit(signal.SIGINT, None)
    running.handle_exit(signal.SIGINT, None)
    assert await running.on_tick(1)
