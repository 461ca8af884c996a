"""Ten thousand damaged images and bodies: no crash, no hang, no leak."""

import asyncio
import gc
import json
import os
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.app import create_app
from service.settings import Settings

COUNT = 10_000
AT_ONCE = 8
# Bytes that the process may grow by after the first tenth. Were the pixels of each image kept, 48 * 40 * 3 bytes, that
# would be 50 MB.
MAX_GROWTH = 32 * 2**20

pytestmark = [
    pytest.mark.soak,
    # Starlette leaves the last part of a body without an end to the garbage collector, which does close it.
    pytest.mark.filterwarnings("ignore:Unclosed file <tempfile.SpooledTemporaryFile:ResourceWarning"),
]


@pytest.fixture
async def http(tmp_path, tiny_model, ground, encode_image):
    """A running service with one tile, of an image that is not damaged."""
    settings = Settings(
        model=tiny_model(tmp_path / "m.onnx"), gallery=tmp_path / "g", device="cpu", threads=1, max_image_pixels=10**6
    )
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        files = {"image": ("t.png", encode_image(ground(1, 64, 64)))}
        tiles = json.dumps([{"id": "sound", "lat": 24.26, "lon": 120.72, "gsd_m": 1.5}])
        assert (await client.post("/gallery", files=files, data={"tiles": tiles})).json()["added"] == 1
        client.door = app.state.door
        yield client


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def attack(http, requests):
    """Send requests, a few at a time; each is answered as its own fault, and memory stays what it was."""
    before = 0
    for round_ in range(COUNT // AT_ONCE):
        async with asyncio.timeout(120):
            answers = await asyncio.gather(*(http.post(path, **next(requests)) for path in ["/localize"] * AT_ONCE))
        assert {answer.status_code for answer in answers} <= {200, 400, 413, 415, 422}
        if round_ == COUNT // AT_ONCE // 10:
            before = resident_bytes()
    gc.collect()
    assert resident_bytes() - before < MAX_GROWTH
    assert http.door.empty
    assert (await http.get("/readyz")).status_code == 200


async def test_damaged_images(http, damage, image_files):
    rng = np.random.default_rng(2)

    def requests():
        while True:
            data = damage(rng, *(image_files[i] for i in rng.integers(len(image_files), size=2)))
            yield {"files": {"image": ("p.jpg", data)}}

    await attack(http, requests())


async def test_damaged_bodies(http, damage, image_files):
    rng = np.random.default_rng(3)
    sound = httpx.Request("POST", "http://t/", files={"image": ("p.jpg", image_files[0])}, data={"top_k": "3"})
    sound.read()
    headers = {"Content-Type": sound.headers["content-type"]}

    def requests():
        while True:
            body = damage(rng, sound.content, image_files[int(rng.integers(len(image_files)))])
            yield {"content": damage(rng, body or b"-", sound.content), "headers": headers}

    await attack(http, requests())
