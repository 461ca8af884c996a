"""What is going on: the steps of the request that is being served; ``logs.py`` writes it down."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The request that the current task serves has this id; the request middleware sets it."""

access_log = logging.getLogger("service.access")


@dataclass(frozen=True)
class TimedStep:
    """A named part of a request, between two readings of ``time.perf_counter()`` in seconds."""

    name: str
    started: float
    ended: float


@dataclass
class RequestRecord:
    """A request as those who watch see it: what was asked, what came of it, when, and its steps.

    Attributes:
        route: path template such as ``/gallery/tiles/{tile_id}``, or ``(none)``; never the path itself, which has
            no bound on its number of values.
        status: HTTP status, 0 when the client left before the answer began.
        started: ``time.perf_counter()`` in seconds; ``ended`` likewise.
        parent: the caller's ``traceparent`` header, if any.
    """

    id: str
    method: str
    started: float
    parent: str = ""
    route: str = "(none)"
    status: int = 0
    ended: float = 0.0
    steps: list[TimedStep] = field(default_factory=list)
    open: bool = True


current_request: ContextVar[RequestRecord | None] = ContextVar("current_request", default=None)
"""The current task, or a thread started for it, serves this request."""


def record_step(name: str, started: float, ended: float) -> None:
    """Note a step of the current request; outside a request, or after its end, this does nothing."""
    record = current_request.get()
    if record is not None and record.open:  # a job that a request started outlives it
        record.steps.append(TimedStep(name, started, ended))


@contextmanager
def step(name: str) -> Iterator[None]:
    """Note what happens inside as a step of the current request."""
    started = time.perf_counter()
    try:
        yield
    finally:
        record_step(name, started, time.perf_counter())


class Stopwatch:
    """Milliseconds of named steps that follow each other, and their total; each is a step of the request, too."""

    def __init__(self) -> None:
        self._started = self._last = time.perf_counter()
        self.ms: dict[str, float] = {}

    def lap(self, step: str) -> None:
        """End a step: what passed since the last one counts for it, and adds to what it took before."""
        now = time.perf_counter()
        self.ms[step] = self.ms.get(step, 0.0) + (now - self._last) * 1e3
        record_step(step, self._last, now)
        self._last = now

    def skip(self) -> None:
        """Let what passed since the last step count for none here; another part of the service notes it."""
        self._last = time.perf_counter()

    def total_ms(self) -> float:
        """Return milliseconds since the start."""
        return (time.perf_counter() - self._started) * 1e3
