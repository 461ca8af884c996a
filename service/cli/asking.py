"""Asking about photos: several at a time, alone or as a flight, and what of that fails."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress

from aerofix.async_client import AsyncClient
from aerofix.models import Problem
from aerofix.options import PhotoOptions
from aerofix.transport import FileUnreadable, ServiceError
from service.cli.answers import UNREADABLE, Answered
from service.cli.shots import Shot


async def answers_to(
    client: AsyncClient, shots: AsyncGenerator[Shot, None], options: PhotoOptions, tracked: bool, at_once: int
) -> AsyncGenerator[Answered, None]:
    """Yield the answers to photos in their order, one by one or as a flight.

    Args:
        client: whom to ask.
        shots: the photos.
        options: what is known of them.
        tracked: whether they are those of a flight, which has an own track.
        at_once: how many may be under way; of a flight it is one.

    Raises:
        ServiceError: nothing can be asked, or not like this.
    """
    track = await client.open_track() if tracked else None

    async def ask(shot: Shot) -> Answered:
        try:
            if track is None:
                return Answered(shot.name, await client.localize(shot.photo, **options), shot.time_s)
            step = await client.track_photo(track.id, shot.photo, shot.time_s, **options)
            return Answered(shot.name, step, shot.time_s)
        except FileUnreadable as error:
            problem = Problem(type="about:blank", title=UNREADABLE, status=400, detail=error.detail)
        except ServiceError as error:
            if error.problem is None or not _of_the_photo(error.problem):
                raise
            problem = error.problem
        return Answered(shot.name, problem, shot.time_s)

    try:
        async with aclosing(_asked(shots, ask, at_once if track is None else 1)) as answers:
            async for answered in answers:
                yield answered
    finally:
        if track is not None:
            with suppress(ServiceError):
                await client.delete_track(track.id)


def _of_the_photo(problem: Problem) -> bool:
    """Whether a problem concerns one photo alone, so that the next may be asked about."""
    kind = problem.type.rpartition("/")[2]
    if problem.status in (413, 415, 422):
        return kind != "invalid-parameter"
    return problem.status in (429, 500, 504) or kind == "out-of-memory"


async def _asked(
    shots: AsyncGenerator[Shot, None], ask: Callable[[Shot], Awaitable[Answered]], at_once: int
) -> AsyncGenerator[Answered, None]:
    """Answers in the order of the photos, of which several are under way."""
    under_way: deque[asyncio.Future[Answered]] = deque()
    try:
        async for shot in shots:
            under_way.append(asyncio.ensure_future(ask(shot)))
            if len(under_way) >= at_once:
                yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        for future in under_way:
            future.cancel()
