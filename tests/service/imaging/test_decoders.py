import asyncio
import threading

import pytest

from service.errors import Overloaded
from service.imaging.decoders import MAX_LARGE, ORDINARY_BYTES, Decoders
from service.telemetry import request_id

LARGE = ORDINARY_BYTES + 1


@pytest.fixture
def decoders():
    made = Decoders()
    yield made
    made.close()


class Held:
    """Work that tells when it begins, and goes on until it is let go."""

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self):
        self.begun.set()
        assert self.go_on.wait(60)
        return "done"


async def test_ordinary_images_pass_a_large_one(decoders):
    held = Held()
    large = asyncio.create_task(decoders.decode(held, LARGE))
    await asyncio.to_thread(held.begun.wait, 60)
    assert await asyncio.gather(*(decoders.decode(lambda: 1, ORDINARY_BYTES) for _ in range(20))) == [1] * 20
    held.go_on.set()
    assert await large == "done"


async def test_large_images_are_decoded_one_at_a_time_and_ordinary_ones_beside_each_other(decoders):
    first, second = Held(), Held()
    tasks = [asyncio.create_task(decoders.decode(work, LARGE)) for work in (first, second)]
    await asyncio.to_thread(first.begun.wait, 60)
    beside = [Held(), Held()]
    tasks += [asyncio.create_task(decoders.decode(work, 1)) for work in beside]
    for work in beside:
        assert await asyncio.to_thread(work.begun.wait, 60)
    assert not second.begun.is_set()
    for work in (first, second, *beside):
        work.go_on.set()
    assert await asyncio.gather(*tasks) == ["done"] * 4


async def test_too_many_large_images_are_refused_but_those_in_line(decoders):
    held = [Held() for _ in range(MAX_LARGE)]
    inside = [asyncio.create_task(decoders.decode(work, LARGE)) for work in held]
    await asyncio.to_thread(held[0].begun.wait, 60)
    with pytest.raises(Overloaded, match="send a smaller one") as caught:
        await decoders.decode(Held(), LARGE)
    assert caught.value.numbers == {"limit": MAX_LARGE, "retry_after_s": 1}
    patient = asyncio.create_task(decoders.decode(lambda: "last", LARGE, in_line=True))
    for work in held:
        work.go_on.set()
    assert await asyncio.gather(*inside, patient) == ["done"] * MAX_LARGE + ["last"]
    assert await decoders.decode(lambda: "again", LARGE) == "again"


async def test_an_image_that_nobody_waits_for_any_more_is_not_decoded(decoders):
    held, given_up = Held(), Held()
    running = asyncio.create_task(decoders.decode(held, LARGE))
    await asyncio.to_thread(held.begun.wait, 60)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await decoders.decode(given_up, LARGE)
    held.go_on.set()
    await running
    assert await decoders.decode(lambda: "next", LARGE) == "next"
    assert not given_up.begun.is_set()


async def test_errors_come_back_and_the_request_goes_along(decoders):
    request_id.set("mission-7")
    assert await decoders.run(request_id.get) == "mission-7"
    for needs_bytes in (1, LARGE):
        with pytest.raises(ZeroDivisionError):
            await decoders.decode(lambda: 1 / 0, needs_bytes)
