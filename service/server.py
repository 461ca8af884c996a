"""The server that lets go gracefully: on SIGTERM the door closes, and who is inside is still answered."""

import time
from types import FrameType

import uvicorn

from service.routes.door import Door

FLUSH_S = 3  # seconds for the last answers to reach slow clients


class DrainingServer(uvicorn.Server):
    """A uvicorn server that, told to stop, goes on refusing politely until every accepted request is answered.

    Plain uvicorn stops listening at once: whoever comes then gets no answer at all, not even that it is shutting down.
    A second signal ends the wait.

    Args:
        door: closed on the first signal.
        drain_s: seconds to wait for the requests that are here.
    """

    def __init__(self, config: uvicorn.Config, door: Door, drain_s: float) -> None:
        super().__init__(config)
        config.timeout_graceful_shutdown = FLUSH_S
        self._door = door
        self._drain_s = drain_s
        self._told: tuple[int, FrameType | None] | None = None
        self._told_at = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Close the door on the first signal, stop on the second."""
        if self._told is not None:
            super().handle_exit(sig, frame)
            return
        self._door.closed = True
        self._told, self._told_at = (sig, frame), time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        """Stop once nobody is inside, or the time is over; uvicorn asks ten times a second."""
        if self._told is not None:
            empty, late = self._door.empty, time.monotonic() - self._told_at > self._drain_s
            if empty or late:
                super().handle_exit(*self._told)
        return await super().on_tick(counter)
