import asyncio
import threading
import time

import pytest

from service.errors import GalleryUnusable
from service.watch.health import Health

LONG = 60.0  # seconds; no test waits that long


class Parts:
    """A batcher, an encoder and a gallery in one, which a test can break."""

    def __init__(self):
        self.healthy, self.failing_s, self.fails_since, self.looks = True, 0.0, None, 0
        self.contract = self
        self.identity, self.index = "one", {"device": "cpu"}
        self.canary, self.lost = lambda: True, False

    def canary_agrees(self):
        self.looks += 1
        return self.canary()

    def info(self):
        return self

    def check(self):
        if self.lost:
            raise GalleryUnusable("removed")


@pytest.fixture
def parts():
    return Parts()


@pytest.fixture
def health(parts):
    return Health(parts, parts, parts)


async def test_all_is_well(health):
    assert await health.checks() == {"batcher": True, "canary": True, "gallery": True}


async def test_where_tiles_are_searched_is_what_the_last_look_saw(health, parts, monkeypatch):
    always_fresh(monkeypatch)
    for device in ("cuda:0", "cpu"):
        parts.index = {"device": device}
        await health.checks()
        assert health.index_device == device


async def test_a_dead_encoder_is_told_without_looking_further(health, parts):
    parts.healthy, parts.failing_s = False, 7.0
    assert await health.checks() == {"batcher": False}
    assert parts.looks == 0
    assert health.beyond_help_s() == 7.0


async def test_a_gallery_file_that_is_gone_is_no_readiness_and_no_reason_to_restart(health, parts):
    parts.lost = True
    assert await health.checks() == {"batcher": True, "canary": True, "gallery": False}
    assert health.beyond_help_s() == 0


def lost():
    raise RuntimeError("device lost")


def always_fresh(monkeypatch):
    monkeypatch.setattr("service.watch.health.FRESH_S", -1.0)


async def until(holds):
    async with asyncio.timeout(LONG):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in a thread
            await asyncio.sleep(0.001)


async def test_a_lost_device_does_not_hold_and_says_why_once(health, parts, monkeypatch, caplog):
    always_fresh(monkeypatch)
    parts.canary = lost
    for _ in range(3):
        assert (await health.checks())["canary"] is False
    assert caplog.text.count("a probe failed") == 1
    assert "RuntimeError: device lost" in caplog.text


async def test_a_device_that_hangs_does_not_hold_and_holds_nobody(health, parts, monkeypatch):
    hangs = threading.Event()
    always_fresh(monkeypatch)
    monkeypatch.setattr("service.watch.health.PROBE_TIMEOUT_S", 0.01)
    parts.canary = lambda: hangs.wait(LONG)
    for _ in range(5):
        assert (await health.checks())["canary"] is False
    assert parts.looks == 1  # no further thread joins the one that hangs
    assert health.beyond_help_s() > 0
    hangs.set()
    await until(lambda: health.beyond_help_s() == 0)  # the answer came late, and counts
    assert (await health.checks())["canary"] is True


@pytest.mark.parametrize("canary", [lost, lambda: False])
async def test_how_long_a_lost_device_has_been_lost(health, parts, monkeypatch, canary):
    always_fresh(monkeypatch)
    await health.checks()
    assert health.beyond_help_s() == 0
    parts.canary, parts.fails_since = canary, time.perf_counter() - 100
    await health.checks()
    assert health.beyond_help_s() >= 100  # since the first image failed, for the same reason
    parts.fails_since = None  # an image came out, but the numbers are still wrong
    await health.checks()
    assert health.beyond_help_s() >= 100
    parts.canary = lambda: True
    await health.checks()
    assert health.beyond_help_s() == 0


async def test_an_image_that_fails_on_a_device_that_works_does_not_count(health, parts):
    parts.fails_since = time.perf_counter() - 100
    await health.checks()
    assert health.beyond_help_s() == 0
    assert parts.fails_since is None


@pytest.mark.parametrize("asked_by", ["an image that failed", "the time that passed"])
async def test_nobody_has_to_ask(health, parts, monkeypatch, asked_by):
    monkeypatch.setattr("service.watch.health.FRESH_S", 0.0)
    if asked_by == "an image that failed":
        parts.fails_since = time.perf_counter()
        await health.checks()
        parts.fails_since = time.perf_counter()
    else:
        monkeypatch.setattr("service.watch.health.WATCH_S", 0.0)
    parts.canary = lost
    watch = asyncio.create_task(health.watch())
    await until(lambda: health.beyond_help_s() > 0)
    watch.cancel()


async def test_a_service_that_works_is_looked_at_now_and_then(health, parts, monkeypatch):
    await health.checks()
    monkeypatch.setattr("service.watch.health.FRESH_S", 0.0)
    watch = asyncio.create_task(health.watch())
    for _ in range(20):
        await asyncio.sleep(0)
    watch.cancel()
    assert parts.looks == 1


async def test_asking_often_looks_once(health, parts, monkeypatch):
    for _ in range(5):
        await health.checks()
    assert parts.looks == 1
    always_fresh(monkeypatch)
    await health.checks()
    assert parts.looks == 2
