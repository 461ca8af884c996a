import threading

import pytest

from service.health import Health


class Parts:
    """A batcher, an encoder and a gallery in one, which a test can break."""

    def __init__(self):
        self.healthy, self.failing_s, self.looks = True, 0.0, 0
        self.contract = self
        self.identity = "one"
        self.canary = lambda: True

    def canary_agrees(self):
        self.looks += 1
        return self.canary()

    def info(self):
        return self


@pytest.fixture
def parts():
    return Parts()


@pytest.fixture
def health(parts):
    return Health(parts, parts, parts)


async def test_all_is_well(health):
    assert await health.checks() == {"batcher": True, "canary": True, "gallery": True}


async def test_a_dead_encoder_is_told_without_looking_further(health, parts):
    parts.healthy, parts.failing_s = False, 7.0
    assert await health.checks() == {"batcher": False}
    assert parts.looks == 0
    assert health.beyond_help_s() == 7.0


async def test_a_lost_device_does_not_hold(health, parts):
    def lost():
        raise RuntimeError("device lost")

    parts.canary = lost
    assert (await health.checks())["canary"] is False


async def test_a_device_that_hangs_does_not_hold_and_holds_nobody(health, parts, monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr("service.health.PROBE_TIMEOUT_S", 0.01)
    parts.canary = hangs.wait
    assert (await health.checks())["canary"] is False
    hangs.set()


async def test_asking_often_looks_once(health, parts, monkeypatch):
    for _ in range(5):
        await health.checks()
    assert parts.looks == 1
    monkeypatch.setattr("service.health.FRESH_S", -1.0)
    await health.checks()
    assert parts.looks == 2
