import asyncio

from service.routes.uploads import gather_limited


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
