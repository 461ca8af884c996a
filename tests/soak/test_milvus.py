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

CLIENTS, PHOTOS = 6, 32
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
        self._env |= {"AEROFIX_DEADLINE_S": "200", "AEROFIX_DRAIN_S": "200"}  # a slow machine is no failure
        self.out, self.inside = False, 0
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
        assert await asyncio.to_thread(self.process.wait, 250) in (0, -signal.SIGTERM)


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


async def answered(http, services, photo):
    """The best candidates of the first service that takes the photos; what one has accepted must be answered."""
    for _ in range(500):
        service = min((each for each in services if not each.out), key=lambda each: each.inside)
        service.inside += 1
        try:
            answer = await http.post(f"{service.url}/localize", files=[("image", ("p.png", photo))] * PHOTOS)
        finally:
            service.inside -= 1
        if answer.status_code in (429, 503):  # refused, and told so
            assert answer.json()["type"] in ("/problems/not-ready", "/problems/overloaded"), answer.text
            await asyncio.sleep(0.05)
            continue
        assert answer.status_code == 200, answer.text
        return service, {result["candidates"][0]["tile_id"] for result in answer.json()["results"]}
    raise AssertionError("no service takes photos")


async def test_a_rolling_restart_loses_no_accepted_request(tmp_path, area):
    """As a balancer does it: no new photos for a service that is to stop; those that it has, it answers."""
    path, model, photo = area
    with genuine(tmp_path / "milvus") as (_, uri):
        done(["gallery", "copy", str(path), uri])
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(timeout=300, limits=limits) as http:
            with two(path, model, uri) as services:
                for each in services:
                    await each.ready(http)
                over, seen, caught = asyncio.Event(), [], 0

                async def photos():
                    while not over.is_set():
                        seen.append(await answered(http, services, photo))

                async with asyncio.TaskGroup() as clients:
                    for _ in range(CLIENTS):
                        clients.create_task(photos())
                    for each in services:
                        await asyncio.sleep(1)  # both have photos
                        each.out = True
                        await asyncio.sleep(0.2)  # what was sent has arrived
                        caught += each.inside
                        await each.stop()
                        async with asyncio.timeout(60):
                            while each.inside:  # noqa: ASYNC110 - its last answers are read
                                await asyncio.sleep(0.05)
                        each.start()
                        await each.ready(http)
                        each.out = False
                    over.set()
    assert caught > 0
    assert {service.url for service, _ in seen} == {each.url for each in services}
    assert len(set.union(*(tiles for _, tiles in seen))) == 1
