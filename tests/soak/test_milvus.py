"""Two services on one genuine Milvus, restarted one after the other under load: every accepted request is answered."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest
from milvus_servers import genuine

pytestmark = pytest.mark.soak

CLIENTS = 6
AEROFIX = [sys.executable, "-m", "service.cli.main"]


@pytest.fixture
def area(tmp_path, tiny_model, ground, write_map):
    """A gallery file, its model, and a photo of one of its windows."""
    model = tiny_model(tmp_path / "m.onnx", local=True)
    picture = ground(4, 512, 512)
    write_map(tmp_path / "area.tif", picture)
    path = tmp_path / "area.gallery"
    done(["gallery", "add", str(tmp_path / "area.tif"), "--gallery", str(path), "--model", str(model)])
    picture.crop((64, 64, 96, 96)).save(tmp_path / "photo.png")
    return path, model, (tmp_path / "photo.png").read_bytes()


def done(words):
    subprocess.run([*AEROFIX, *words], check=True, stdout=subprocess.DEVNULL)


class Service:
    """A service that can be told to stop and started again at the same address."""

    def __init__(self, path, model, uri):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._words = ["serve", "--port", str(self.port), "--gallery", str(path), "--model", str(model)]
        self._env = {**os.environ, "AEROFIX_MILVUS_URI": uri, "AEROFIX_DEVICE": "cpu", "AEROFIX_THREADS": "1"}
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [*AEROFIX, *self._words], env=self._env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    async def ready(self, http):
        async with asyncio.timeout(300):
            while True:
                assert self.process.poll() is None
                try:
                    if (await http.get(f"{self.url}/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.2)

    async def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(self.process.wait, 120) in (0, -signal.SIGTERM)


@contextmanager
def two(path, model, uri):
    services = [Service(path, model, uri) for _ in range(2)]
    try:
        for each in services:
            each.start()
        yield services
    finally:
        for each in services:
            each.process.kill()
            each.process.wait()


async def answered(http, services, photo, turn):
    """The best candidate of the first service that takes the photo; what one has accepted must be answered."""
    for attempt in range(200):
        url = services[(turn + attempt) % 2].url
        try:
            answer = await http.post(f"{url}/localize", files={"image": ("p.png", photo)})
        except httpx.ConnectError:  # nobody listens: nothing was accepted
            await asyncio.sleep(0.05)
            continue
        if answer.status_code in (429, 503):  # refused, and told so
            assert answer.json()["type"] in ("/problems/not-ready", "/problems/overloaded"), answer.text
            await asyncio.sleep(0.05)
            continue
        assert answer.status_code == 200, answer.text
        return url, answer.json()["candidates"][0]["tile_id"]
    raise AssertionError("no service takes a photo")


async def test_a_rolling_restart_loses_no_accepted_request(tmp_path, area):
    path, model, photo = area
    with genuine(tmp_path / "milvus") as (_, uri):
        done(["gallery", "copy", str(path), uri])
        limits = httpx.Limits(max_keepalive_connections=0)  # a kept connection may end before a request is accepted
        async with httpx.AsyncClient(timeout=60, limits=limits) as http:
            with two(path, model, uri) as services:
                for each in services:
                    await each.ready(http)
                over, seen = asyncio.Event(), []

                async def photos(turn):
                    while not over.is_set():
                        seen.append(await answered(http, services, photo, turn := turn + 1))

                clients = [asyncio.create_task(photos(n)) for n in range(CLIENTS)]
                for each in services:
                    await each.stop()
                    before = len(seen)
                    async with asyncio.timeout(300):
                        while len(seen) < before + 20:  # noqa: ASYNC110 - the other one answers
                            await asyncio.sleep(0.05)
                    each.start()
                    await each.ready(http)
                over.set()
                await asyncio.gather(*clients)
    assert {url for url, _ in seen} == {each.url for each in services}
    assert len({tile for _, tile in seen}) == 1
