"""Small pictures in heavy files, and pictures as large as may be: what they stop, and the memory that they take."""

import asyncio
import json
import time
from contextlib import suppress
from pathlib import Path

import hostile
import httpx
import pytest
from PIL import Image

from service.app import create_app
from service.errors import AerofixError
from service.imaging import decoders as module
from service.imaging.decode import open_photo
from service.imaging.decoders import ORDINARY_BYTES, Decoders
from service.imaging.upright import MAX_DECODED_PIXELS
from service.imaging.worker import SPARE_BYTES
from service.localization.hints import Hints
from service.settings import Settings

pytestmark = pytest.mark.soak

MEGABYTES = 60
"""Of a hostile file; a body may have 64."""

MAX_TURN_S = 0.5
"""CPU of the loop's thread, however slow the machine; read on the loop, such a file takes 5 to 9 s."""

# What docs/operating.md says.
OWN_BYTES = (20 + 64) * 10**6
LARGE_BYTES = 1_200_000_000
MAX_PIXELS = Settings().max_image_pixels


def peak_bytes(pid="self"):
    """The most that a process has had in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


def forget_peak():
    """Let the peak of this process begin anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def heaviest():
    yield from hostile.heavy(MEGABYTES).items()
    yield "scans", hostile.many_scans(3000)
    yield "scans-allowed", hostile.many_scans(90, side=3000)
    yield "long", hostile.encoded(Image.new("L", (70_000, 16)), "PNG")


@pytest.fixture
async def service(tmp_path, tiny_model, ground, encode_image):
    app = create_app(Settings(model=tiny_model(tmp_path / "m.onnx"), gallery=tmp_path / "g", device="cpu", threads=1))
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as http:
        tiles = json.dumps([{"id": "sound", "lat": 24.26, "lon": 120.72, "gsd_m": 1.5}])
        files = {"image": ("t.png", encode_image(ground(1, 64, 64)))}
        assert (await http.post("/gallery", files=files, data={"tiles": tiles})).json()["added"] == 1
        yield app


async def busiest_s(stop):
    """The most CPU that the loop's own thread takes between two turns of this task; meanwhile everybody else waits."""
    most, before = 0.0, time.thread_time()
    while not stop.is_set():
        await asyncio.sleep(0)
        now = time.thread_time()
        most, before = max(most, now - before), now
    return most


async def test_heavy_files_stop_nobody_and_take_no_memory(service, ground, encode_image):
    localizer = service.state.localizer
    good = encode_image(ground(1, 64, 64), "JPEG", quality=90)
    await localizer.localize(good, Hints())

    async def ask(data):
        with suppress(AerofixError):
            return await localizer.localize(data, Hints())

    for name, data in heaviest():
        before, stop = forget_peak(), asyncio.Event()
        ticking = asyncio.create_task(busiest_s(stop))
        bad = [asyncio.create_task(ask(data)) for _ in range(6)]
        answers = await asyncio.gather(*(localizer.localize(good, Hints()) for _ in range(6)))
        await asyncio.gather(*bad)
        stop.set()
        assert await ticking < MAX_TURN_S, name
        assert {answer.verdict.status for answer in answers} == {"located"}, name
        assert peak_bytes() - before < 60 * 10**6, name


def largest(pixels, share=1.0):
    """Pictures of so many pixels, by the ways that take the most memory."""
    side = int((pixels * share) ** 0.5)
    for mode, kind, options in [
        ("RGBA", "PNG", {"compress_level": 1}),
        ("I;16", "PNG", {"compress_level": 1}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        ("RGBA", "TIFF", {"compression": "tiff_lzw", "tiffinfo": {278: side}}),  # one strip of everything
        ("CMYK", "JPEG", {"progressive": True}),
        ("RGB", "JPEG", {}),
    ]:
        yield f"{mode} {kind}", hostile.encoded(Image.new(mode, (side, side)), kind, **options)
    side = min(16_000, int((pixels * share / 2) ** 0.5))
    yield "RGBA WEBP", hostile.encoded(Image.new("RGBA", (side, side)), "WEBP", lossless=True, quality=0, method=0)


@pytest.mark.parametrize("is_large", [False, True])
async def test_decoding_takes_no_more_memory_than_documented(is_large):
    for name, data in largest(MAX_PIXELS if is_large else 16_000_000):
        decoders, before = Decoders(), forget_peak()
        file = open_photo(data, MAX_PIXELS)
        needs = file.job(512).needs_bytes
        limit = LARGE_BYTES if needs > ORDINARY_BYTES else ORDINARY_BYTES
        size = await decoders.decode(file, lambda photo: photo.image.size, 512, in_line=True)
        (pid,) = decoders.pids
        took, announced = peak_bytes(pid), OWN_BYTES + limit + 3 * MAX_DECODED_PIXELS + 2 * len(data) + SPARE_BYTES
        decoders.close()
        print(f"{name}: {took / 1e6:.0f} MB of {announced / 1e6:.0f}, here {(peak_bytes() - before) / 1e6:.0f}")
        assert min(size) >= 512, name
        assert needs <= limit, name
        assert took < announced, name
        assert took < OWN_BYTES + needs + 2 * len(data) + SPARE_BYTES, name  # what it announces for this very file
        assert peak_bytes() - before < 7 * MAX_DECODED_PIXELS, name


async def test_the_largest_results_take_what_is_documented_here():
    file = open_photo(hostile.encoded(Image.new("RGB", (9000, 9000)), "JPEG"), MAX_PIXELS)
    decoders, before = Decoders(), forget_peak()
    sizes = await asyncio.gather(*(decoders.decode(file, lambda photo: photo.image.size) for _ in range(8)))
    processes = len(decoders.pids)
    decoders.close()
    assert max(width * height for width, height in sizes) <= MAX_DECODED_PIXELS
    assert processes <= module.MAX_WORKERS + 1
    assert peak_bytes() - before < 7 * MAX_DECODED_PIXELS * processes + 10**7
