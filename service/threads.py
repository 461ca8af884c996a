"""Threads for one kind of work."""

import asyncio
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Generic, ParamSpec, Protocol, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""This file says what a container may take, as microseconds of CPU in so many of time, or ``max`` (control groups,
version 2)."""


def cores(quota: Path = CPU_QUOTA) -> int:
    """Count the CPUs that this process may use, at least 1: those it is bound to, or fewer in a container."""
    bound_to = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed_us, period_us = quota.read_text().split()
    except (OSError, ValueError):
        return bound_to
    return bound_to if allowed_us == "max" else max(1, min(bound_to, math.ceil(int(allowed_us) / int(period_us))))


WORKERS = max(2, cores())
"""So many threads do work that computes. More of them only take turns: with six on two cores, sixteen clients got a
quarter fewer answers, and waited longer for the last."""


class Threads:
    """Runs work in threads of its own, in the order of its arrival, so that other work never waits for it.

    Args:
        name: of the threads.
        count: how many; by default one for each core, and two at least.
    """

    def __init__(self, name: str, count: int = WORKERS) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Do a piece of work. Whoever gives up waiting leaves the queue; what has begun goes on to its end."""
        context = copy_context()  # the thread works for the same request, as its log lines and steps say
        call = partial(context.run, partial(work, *args, **kwargs))
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def close(self) -> None:
        """Drop what waits; what has begun ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Closable(Protocol):
    """Something that is to be closed, such as an open map."""

    def close(self) -> None:
        """Give back what it holds."""


Thing = TypeVar("Thing", bound=Closable)


class Shared(Generic[Thing]):
    """Something that threads use one at a time, and that is never closed while one of them does.

    GDAL takes the process with it when a file is closed under a thread that reads it. A task that is cancelled, as all
    are by Ctrl-C, gives up waiting for its thread, but the thread goes on.

    Args:
        thing: is closed by :meth:`close`, and used by nobody else.
    """

    def __init__(self, thing: Thing) -> None:
        self.thing = thing
        self._in_use = threading.Lock()
        self._closed = False

    async def use(self, work: Callable[[Thing], Result]) -> Result:
        """Do work in a thread, when no other does.

        Raises:
            ValueError: it was closed before the work's turn.
        """
        return await asyncio.to_thread(self._use, work)

    def close(self) -> None:
        """Close it, once the work that has begun has ended; work that waits for its turn fails."""
        with self._in_use:
            self._closed = True
            self.thing.close()

    def _use(self, work: Callable[[Thing], Result]) -> Result:
        with self._in_use:
            if self._closed:
                raise ValueError("it is closed")
            return work(self.thing)
