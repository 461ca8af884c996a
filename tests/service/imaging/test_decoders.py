import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.errors import ImageTooSlow, ImageUndecodable, NotReady, OutOfMemory, Overloaded
from service.imaging import decoders as module
from service.imaging import workers
from service.imaging.decode import decode, open_photo
from service.imaging.decoders import MAX_LARGE, Decoders
from service.telemetry import request_id

LIMIT = 10**8


@pytest.fixture
def decoders():
    made = Decoders()
    yield made
    for pid in made.pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    made.close()


@pytest.fixture
def large(monkeypatch, ground, encode_image):
    """A picture that counts as large here."""
    monkeypatch.setattr(module, "ORDINARY_BYTES", 10**6)
    return open_photo(encode_image(ground(1, 400, 400)), LIMIT)


@pytest.fixture
def small(ground, encode_image):
    return open_photo(encode_image(ground(2, 64, 48), "JPEG"), LIMIT)


def whole(photo):
    return photo


async def hold(decoders, file):
    """Let the process that decodes such a file stand still, as one does that is caught in a hostile file."""
    await decoders.decode(file, whole)
    os.kill(decoders.pids[-1], signal.SIGSTOP)
    return decoders.pids[-1]


def runs(pid):
    """Whether there is such a process, and not only its remains that nobody has asked for."""
    try:
        return "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it may go while its file is being read
        return False


async def ended(pid):
    """Wait until a process has gone."""
    async with asyncio.timeout(60):
        while runs(pid):  # noqa: ASYNC110 - there is nothing to wait for
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("useful", [None, 100])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
async def test_a_process_decodes_as_this_one_does(decoders, ground, encode_image, kind, options, useful):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode_image(ground(1, 500, 300), kind, exif=exif, **options)
    here, there = decode(data, LIMIT, useful), await decoders.decode(open_photo(data, LIMIT), whole, useful)
    np.testing.assert_array_equal(np.asarray(there.image), np.asarray(here.image))
    assert (there.width, there.height, there.pose) == (here.width, here.height, here.pose) == (300, 500, here.pose)


async def test_ordinary_images_pass_a_large_one(decoders, large, small):
    held = await hold(decoders, large)
    waiting = asyncio.create_task(decoders.decode(large, whole))
    photos = await asyncio.gather(*(decoders.decode(small, whole) for _ in range(20)))
    assert {photo.image.size for photo in photos} == {(64, 48)}
    assert not waiting.done()
    os.kill(held, signal.SIGCONT)
    assert (await waiting).image.size == (400, 400)


async def test_large_images_are_decoded_by_one_process_and_ordinary_ones_by_several(decoders, large, small):
    await asyncio.gather(*(decoders.decode(large, whole, in_line=True) for _ in range(4)))
    assert len(decoders.pids) == 1
    await asyncio.gather(*(decoders.decode(small, whole) for _ in range(4)))
    assert len(decoders.pids) >= 3


async def test_many_scans_count_as_large(decoders, small):
    await decoders.decode(small, whole)
    slow = open_photo(b"".join(small.pieces), LIMIT)
    object.__setattr__(slow, "header", slow.header.__class__(**vars(slow.header) | {"scans": 30}))
    await decoders.decode(slow, whole)
    assert len(decoders.pids) == 2


async def test_too_many_large_images_are_refused_but_those_in_line(decoders, large):
    held = await hold(decoders, large)
    inside = [asyncio.create_task(decoders.decode(large, whole)) for _ in range(MAX_LARGE)]
    await asyncio.sleep(0)  # they begin
    with pytest.raises(Overloaded, match="send a smaller one") as caught:
        await decoders.decode(large, whole)
    assert caught.value.numbers == {"limit": MAX_LARGE, "retry_after_s": 1}
    patient = asyncio.create_task(decoders.decode(large, whole, in_line=True))
    os.kill(held, signal.SIGCONT)
    assert [photo.width for photo in await asyncio.gather(*inside, patient)] == [400] * (MAX_LARGE + 1)
    assert (await decoders.decode(large, whole)).width == 400


async def test_whoever_gives_up_ends_the_process_and_the_next_image_gets_another(decoders, large):
    held = await hold(decoders, large)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await decoders.decode(large, whole)
        await ended(held)
        assert (await decoders.decode(large, whole)).width == 400
        assert decoders.pids[-1] != held
        held = await hold(decoders, large)


async def test_whoever_gives_up_before_his_turn_ends_nothing(decoders, large):
    held = await hold(decoders, large)
    first = asyncio.create_task(decoders.decode(large, whole))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await decoders.decode(large, whole)
    os.kill(held, signal.SIGCONT)
    assert (await first).width == 400
    assert decoders.pids == [held]


async def test_runaways_keep_no_process_from_others(decoders, small):
    """As many as there are processes stand still, and are given up; good photos come through."""
    count = module.MAX_WORKERS
    await asyncio.gather(*(decoders.decode(small, whole) for _ in range(count)))
    for pid in decoders.pids:
        os.kill(pid, signal.SIGSTOP)
    hostile = [asyncio.create_task(decoders.decode(small, whole)) for _ in decoders.pids]
    good = asyncio.create_task(decoders.decode(small, whole))
    await asyncio.sleep(0)
    for task in hostile:
        task.cancel()
    assert (await good).image.size == (64, 48)
    await asyncio.gather(*hostile, return_exceptions=True)
    assert all(task.cancelled() for task in hostile)


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (signal.SIGSEGV, ImageUndecodable, "decoder of PNG files crashed"),
        (signal.SIGKILL, OutOfMemory, "smaller"),  # as the kernel does where memory is short
        (signal.SIGXCPU, ImageTooSlow, "more than 60 s"),
    ],
)
async def test_a_process_that_dies_costs_its_image_alone(decoders, large, small, number, error, words, monkeypatch):
    held = await hold(decoders, large)
    asked, send = threading.Event(), workers.send

    def tell(*words):
        asked.set()
        send(*words)

    monkeypatch.setattr(workers, "send", tell)
    dying = asyncio.create_task(decoders.decode(large, whole))
    await asyncio.to_thread(asked.wait)  # one that dies before it is asked costs nothing
    beside = asyncio.create_task(decoders.decode(small, whole))
    os.kill(held, number)
    os.kill(held, signal.SIGCONT)
    with pytest.raises(error, match=words):
        await dying
    assert (await beside).width == 64
    assert (await decoders.decode(large, whole)).width == 400


async def test_a_process_that_died_while_idle_costs_nothing(decoders, small):
    await decoders.decode(small, whole)
    (pid,) = decoders.pids
    os.kill(pid, signal.SIGKILL)
    await ended(pid)
    assert (await decoders.decode(small, whole)).width == 64


async def test_the_service_is_told_to_stop_and_not_its_processes(decoders, small):
    await decoders.decode(small, whole)
    before = decoders.pids
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(before[0], number)
    assert (await decoders.decode(small, whole)).width == 64
    assert decoders.pids == before


async def test_closing_ends_what_is_decoded(large):
    decoders = Decoders()
    held = await hold(decoders, large)
    waiting = asyncio.create_task(decoders.decode(large, whole))
    await asyncio.sleep(0)
    await asyncio.to_thread(decoders.close)
    with pytest.raises(NotReady, match="stopping"):
        await waiting
    with pytest.raises(NotReady, match="stopping"):
        await decoders.decode(large, whole)
    assert not runs(held)


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
for what in (resource.RLIMIT_AS, resource.RLIMIT_CPU):
    given = 2**33 if what == resource.RLIMIT_AS else 3600
    resource.setrlimit(what, (given, given))
from service.imaging.decode import open_photo
from service.imaging.decoders import Decoders
decoders = Decoders()
for _ in range(2):
    print(asyncio.run(decoders.decode(open_photo(Path(sys.argv[1]).read_bytes(), 10**8), lambda photo: photo.width)))
decoders.close()
"""


async def test_a_service_that_has_limits_of_its_own_decodes_within_them(tmp_path, ground, encode_image):
    """As ``ulimit -v`` and systemd's ``LimitAS`` set them: no process below may raise them."""
    (tmp_path / "p.png").write_bytes(encode_image(ground(1, 64, 48)))
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "p.png")]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["64", "64"], "")


SERVICE = """
import asyncio, os, sys
from pathlib import Path
from service.imaging.decode import open_photo
from service.imaging.decoders import Decoders
decoders = Decoders()
asyncio.run(decoders.decode(open_photo(Path(sys.argv[1]).read_bytes(), 10**8), lambda photo: photo))
print(decoders.pids[0], flush=True)
os.kill(os.getpid(), 9)
"""


async def test_a_service_that_is_killed_leaves_no_process(tmp_path, ground, encode_image):
    (tmp_path / "p.png").write_bytes(encode_image(ground(1, 64, 64)))
    command = [sys.executable, "-c", SERVICE, str(tmp_path / "p.png")]
    killed = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL
    await ended(int(killed.stdout))


async def test_decoding_takes_no_more_memory_than_it_may(decoders, monkeypatch, encode_image):
    """What a file turns out to need beyond what it announced is refused by the system, and told as that."""
    file = open_photo(encode_image(Image.new("RGB", (8000, 4000))), LIMIT)
    job = file.job()
    monkeypatch.setattr(type(file), "job", lambda self, useful=None: job.__class__(**vars(job) | {"needs_bytes": 1}))
    with pytest.raises(OutOfMemory, match="more than there is"):
        await decoders.decode(file, whole)


async def test_what_is_made_of_a_picture_comes_back_and_the_request_goes_along(decoders, small):
    request_id.set("mission-7")
    assert await decoders.run(request_id.get) == "mission-7"
    assert await decoders.decode(small, lambda photo: (photo.width, request_id.get())) == (64, "mission-7")
    with pytest.raises(ZeroDivisionError):
        await decoders.run(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await decoders.decode(small, lambda photo: 1 / 0)


async def test_there_are_no_more_decoded_pictures_than_processes(decoders, small):
    now, most = set(), 0

    def look(photo):
        nonlocal most
        now.add(id(photo))
        most = max(most, len(now))
        time.sleep(0)  # others get their turn
        now.remove(id(photo))

    await asyncio.gather(*(decoders.decode(small, look) for _ in range(60)))
    assert 1 <= most <= len(decoders.pids)
