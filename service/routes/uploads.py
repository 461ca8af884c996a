"""Work on uploaded images: several at once, without one of them stopping the others, and each in time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from service.errors import DeadlineExceeded

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


async def in_time(work: Awaitable[Result], deadline_s: float) -> Result:
    """Await work on one image, whatever it waits for: a thread to decode it, the encoder, the index.

    Raises:
        DeadlineExceeded: it took longer than ``deadline_s``; what has begun in a thread ends there by itself.
    """
    try:
        async with asyncio.timeout(deadline_s):
            return await work
    except TimeoutError:
        raise DeadlineExceeded(
            "no answer before the deadline; ask again when the service is less busy, or raise AEROFIX_DEADLINE_S.",
            limit=deadline_s,
        ) from None
