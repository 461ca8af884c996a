"""Whether an answer can be given, and if not, whether a restart would help."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from service.encoder.batcher import Batcher
from service.encoder.session import Encoder
from service.errors import AerofixError
from service.ground.gallery import Gallery

log = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 5.0  # an inference beside a full batch on a small CPU takes about one
FRESH_S = 1.0  # a verdict serves all who ask within this time, so that asking often costs nothing
WATCH_S = 10.0  # between looks that nobody asked for: as often as Docker's and Kubernetes' probes ask by themselves


class Health:
    """Looks after the parts that an answer needs; its probes use threads of their own and never wait behind work."""

    def __init__(self, encoder: Encoder, batcher: Batcher, gallery: Gallery) -> None:
        self._encoder = encoder
        self._batcher = batcher
        self._gallery = gallery
        self.index_device = "unknown"
        """Where tiles were searched at the last look: ``cpu`` or ``cuda:0``, and ``unknown`` before the first."""
        self._canary_probe = _Probe(encoder.canary_agrees)
        self._gallery_probe = _Probe(self._gallery_fits)
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._checks: dict[str, bool] = {}

    async def checks(self) -> dict[str, bool]:
        """Say whether each is good: the encoder's thread, the encoder's numbers, and the gallery's file and model."""
        if not self._batcher.healthy:  # known at once; a canary would only hang behind a stuck device
            return {"batcher": False}
        async with self._looking:
            if time.perf_counter() - self._looked_at > FRESH_S:
                fails_since = self._batcher.fails_since
                canary, gallery = await asyncio.gather(
                    self._canary_probe.holds(fails_since), self._gallery_probe.holds()
                )
                if canary and self._batcher.fails_since == fails_since:
                    self._batcher.fails_since = None  # the encoder works, so it was the images
                self._checks = {"canary": canary, "gallery": gallery}
                self._looked_at = time.perf_counter()
        return {"batcher": self._batcher.healthy} | self._checks

    async def watch(self) -> None:
        """Look until cancelled: often while images fail, now and then else, whether or not anybody asks."""
        while True:
            await asyncio.sleep(FRESH_S)
            if self._batcher.fails_since is not None or time.perf_counter() - self._looked_at > WATCH_S:
                await self.checks()

    def beyond_help_s(self) -> float:
        """Count the seconds for which the encoder has been dead, stuck or wrong, which a restart mends; 0: it works."""
        return max(self._batcher.failing_s, self._canary_probe.failing_s)

    def _gallery_fits(self) -> bool:
        self._gallery.check()
        info = self._gallery.info()
        self.index_device = str(info.index["device"])
        return info.identity == self._encoder.contract.identity


class _Probe:
    """A check in a thread of its own, one at a time; one that fails or hangs does not hold, and keeps nobody waiting.

    Args:
        check: whether all is well; what it raises means no.
    """

    def __init__(self, check: Callable[[], bool]) -> None:
        self._check = check
        self._started_at = 0.0
        self._verdict: asyncio.Future[bool] | None = None
        self._failing_since: float | None = None

    @property
    def failing_s(self) -> float:
        """Seconds since the check began to fail or hang; 0 if it held the last time."""
        return 0.0 if self._failing_since is None else time.perf_counter() - self._failing_since

    async def holds(self, suspect_since: float | None = None) -> bool:
        """Check, unless the check before this one still hangs.

        Args:
            suspect_since: when (``time.perf_counter``) something else began to fail for what may be the same reason.
        """
        if self._verdict is None or self._verdict.done():
            self._started_at = time.perf_counter()
            self._verdict = asyncio.get_running_loop().create_future()
            # a daemon: a call that hangs inside a driver must not keep the process from ending
            threading.Thread(target=self._look, args=(self._verdict,), name="probe", daemon=True).start()
        left_s = self._started_at + PROBE_TIMEOUT_S - time.perf_counter()
        await asyncio.wait([self._verdict], timeout=max(0.0, left_s))
        good = self._verdict.done() and self._verdict.result()
        if not good and self._failing_since is None:
            self._failing_since = min(self._started_at, suspect_since or self._started_at)
        return good

    def _look(self, verdict: "asyncio.Future[bool]") -> None:
        good = False
        try:
            good = self._check()
        except AerofixError as error:
            if self._failing_since is None:
                log.warning("a probe failed: %s", error.detail)
        except Exception:  # a lost device raises what it likes; the verdict is the same
            if self._failing_since is None:  # once, not at every look
                log.warning("a probe failed", exc_info=True)
        with suppress(RuntimeError):  # the loop has closed meanwhile
            verdict.get_loop().call_soon_threadsafe(self._tell, verdict, good)

    def _tell(self, verdict: "asyncio.Future[bool]", good: bool) -> None:
        if good:  # also one that comes late: a slow machine is no lost device
            self._failing_since = None
        verdict.set_result(good)
