"""Whether an answer can be given, and if not, whether a restart would help."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from service.encoder.batcher import Batcher
from service.encoder.session import Encoder
from service.gallery.gallery import Gallery

PROBE_TIMEOUT_S = 5.0  # an inference beside a full batch on a small CPU takes about one
FRESH_S = 1.0  # a verdict serves all who ask within this time, so that asking often costs nothing


class Health:
    """Looks after the parts that an answer needs; its probes use threads of their own and never wait behind work."""

    def __init__(self, encoder: Encoder, batcher: Batcher, gallery: Gallery) -> None:
        self._encoder = encoder
        self._batcher = batcher
        self._gallery = gallery
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._checks: dict[str, bool] = {}

    async def checks(self) -> dict[str, bool]:
        """What was looked at, and whether it is good: the encoder's thread, its numbers, the gallery's model."""
        if not self._batcher.healthy:  # known at once; a canary would only hang behind a stuck device
            return {"batcher": False}
        async with self._looking:
            if time.monotonic() - self._looked_at > FRESH_S:
                canary, gallery = await asyncio.gather(_holds(self._canary_agrees), _holds(self._gallery_fits))
                self._checks = {"canary": canary, "gallery": gallery}
                self._looked_at = time.monotonic()
        return {"batcher": self._batcher.healthy} | self._checks

    def beyond_help_s(self) -> float:
        """Seconds since the encoder has died or got stuck, which only a new process mends; 0 while it works."""
        return self._batcher.failing_s

    def _canary_agrees(self) -> bool:
        return self._encoder.canary_agrees()

    def _gallery_fits(self) -> bool:
        return self._gallery.info().identity == self._encoder.contract.identity


async def _holds(check: Callable[[], bool]) -> bool:
    """Run a check in a thread of its own; one that fails or hangs does not hold, and keeps nobody from leaving."""
    loop = asyncio.get_running_loop()
    verdict: asyncio.Future[bool] = loop.create_future()

    def tell(good: bool) -> None:
        if not verdict.done():
            verdict.set_result(good)

    def look() -> None:
        good = False
        with suppress(Exception):  # a lost device raises what it likes; the verdict is the same
            good = check()
        with suppress(RuntimeError):  # the loop has closed meanwhile
            loop.call_soon_threadsafe(tell, good)

    threading.Thread(target=look, name="probe", daemon=True).start()
    try:
        return await asyncio.wait_for(verdict, PROBE_TIMEOUT_S)
    except TimeoutError:
        return False
