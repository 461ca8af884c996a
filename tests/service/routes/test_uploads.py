import asyncio

import pytest

from service.errors import DeadlineExceeded
from service.routes.uploads import gather_limited, in_time


async def test_results_keep_their_order_and_errors_their_place():
    async def work(item):
        if item == 2:
            raise ValueError("two")
        await asyncio.sleep(0)
        return item * 10

    first, second, third = await gather_limited([1, 2, 3], work, 2)
    assert (first, third) == (10, 30)
    assert isinstance(second, ValueError)


async def test_no_more_than_the_limit_run_at_once():
    running = peak = 0

    async def work(item):
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        running -= 1

    await gather_limited(range(20), work, 3)
    assert peak == 3


async def test_what_comes_in_time_is_given_on():
    assert await in_time(asyncio.sleep(0, "done"), 60) == "done"


@pytest.mark.parametrize(("ends_in_s", "advice"), [(None, "deadline; ask again"), (-1.0, "send fewer images")])
async def test_when_the_time_is_over_the_work_is_given_up(ends_in_s, advice):
    given_up = []

    async def hangs():
        try:
            await asyncio.Event().wait()
        finally:
            given_up.append(True)

    now = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExceeded, match=advice) as caught:
        await in_time(hangs(), 0.01 if ends_in_s is None else 3600, None if ends_in_s is None else now + ends_in_s)
    assert caught.value.numbers == {"limit": 0.01 if ends_in_s is None else 3600}
    assert given_up
