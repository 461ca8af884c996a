"""Work on several uploaded images at once, without one of them stopping the others."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def gather_limited(
    items: Sequence[Item], work: Callable[[Item], Awaitable[Result]], limit: int
) -> list[Result | Exception]:
    """Await ``work(item)`` for each item, at most ``limit`` at a time, so that one request cannot fill the queue.

    Returns:
        For each item, in order, its result or the exception that it ended with.
    """
    slots = asyncio.Semaphore(limit)

    async def one(item: Item) -> Result | Exception:
        async with slots:
            try:
                return await work(item)
            except Exception as error:
                return error

    return await asyncio.gather(*map(one, items))
