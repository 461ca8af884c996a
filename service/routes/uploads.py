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


async def in_time(work: Awaitable[Result], deadline_s: float, ends_at: float | None = None) -> Result:
    """Await work on one image, whatever it waits for: a thread to decode it, the encoder, the index.

    Args:
        work: what to await.
        deadline_s: seconds that the request has.
        ends_at: when they are over, for one of several images, in seconds of the event loop's clock; None: they begin
            now.

    Raises:
        DeadlineExceeded: the time is over; a process that decodes for it is killed, and what has begun in a thread ends
            there by itself.
    """
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline_s if ends_at is None else ends_at):
            return await work
    except TimeoutError:
        fewer = "" if ends_at is None else "send fewer images at once, "
        raise DeadlineExceeded(
            f"no answer before the deadline; {fewer}ask again when the service is less busy, or raise "
            "AEROFIX_DEADLINE_S.",
            limit=deadline_s,
        ) from None
