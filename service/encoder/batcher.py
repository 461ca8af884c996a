"""Join images of concurrent requests into batches.

While the encoder is idle an image starts at once; while it works, images queue up and the next batch takes all of
them, up to ``max_batch``. So there is no delay to tune: the batch grows with the load by itself.

Images without a deadline wait in a queue of their own, and run when no other waits: a photo waits for one batch of an
import at the most. They do not fill up batches of photos, for on a CPU each image of a batch makes all the others wait.

One thread owns the encoder and takes its next batch itself, so that it never waits for the event loop between two.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.encoder.session import Embeddings, Features, Images, LocalMaps
from service.errors import DeadlineExceeded, EmbeddingError, NotReady, Overloaded
from service.telemetry import record_step

log = logging.getLogger(__name__)

UNIT_TOLERANCE = 1e-2  # reduced precision leaves a unit vector within 1e-3; a failed image gives 0 or NaN

Reason = Literal["idle", "gathered", "full", "alone"]
"""A batch was released because the encoder was idle, because this was all that waited when it was done, because no more
fitted in, or because an image goes alone after its batch had failed."""


@dataclass(frozen=True)
class Encoded:
    """One image's features, and the milliseconds it waited and its batch ran.

    Attributes:
        embedding: float32 ``[D]``; empty when descriptors alone were asked for.
        local: float32 ``[C, h, w]``, None when the model has none.
        turned: those of the image turned counter-clockwise by 90°, 180° and 270°, ``[3, C, h, w]``, if asked for.
    """

    embedding: NDArray[np.float32]
    queue_ms: float
    encode_ms: float
    local: NDArray[np.float32] | None = None
    turned: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Batch:
    """A batch that was encoded, for those who watch: how many images, why it was released and how long it took."""

    size: int
    reason: Reason
    seconds: float


@dataclass(eq=False)
class _Item:
    image: NDArray[np.uint8]
    deadline_at: float  # time.perf_counter(), seconds
    queued_at: float
    answer: "asyncio.Future[Encoded]"
    turned: bool = False
    whole: bool = True
    started_at: float = 0.0
    ended_at: float = 0.0


class Batcher:
    """A bounded queue in front of one encoder thread.

    Args:
        encode: maps uint8 ``[N, S, S, 3]`` to features; called in a thread of its own, one batch at a time.
        max_batch: largest N.
        max_queue: images that may wait, with a deadline and without; one more is refused.
        stuck_after_s: seconds that one batch may take before the encoder counts as stuck.
        on_batch: told of every batch, in the encoder's thread.
        describe_turned: maps images to the descriptors of their turned copies; see ``session.Encoder``.
        describe: maps images to their descriptors alone; without it ``encode`` is asked for those too.
    """

    def __init__(
        self,
        encode: Callable[[Images], Features],
        max_batch: int,
        max_queue: int,
        stuck_after_s: float = 60.0,
        on_batch: Callable[[Batch], None] = lambda batch: None,
        describe_turned: Callable[[Images], LocalMaps] | None = None,
        describe: Callable[[Images], LocalMaps] | None = None,
    ) -> None:
        self._encode = encode
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._stuck_after_s = stuck_after_s
        self._on_batch = on_batch
        self._describe_turned = describe_turned
        self._describe = describe
        self._waiting: deque[_Item] = deque()
        self._background: deque[_Item] = deque()  # no deadline
        self._running: list[_Item] = []
        self._changed = threading.Condition()  # guards what the loop and the thread share
        self._accepting = False
        self._busy_since: float | None = None
        self._died_at: float | None = None
        self.fails_since: float | None = None
        """When (``time.perf_counter``) the first image failed after the last that was embedded; None if none has. An
        image may be to blame: whoever knows that the encoder works resets it."""
        # A daemon: a call that hangs inside a driver must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="encoder", daemon=True)
        self._ended = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def healthy(self) -> bool:
        """Whether images are accepted and the thread that encodes them is alive and not stuck."""
        return self._accepting and self.failing_s == 0

    @property
    def failing_s(self) -> float:
        """Seconds since the encoder's thread has died or got stuck; 0 while it works."""
        now, busy_since = time.perf_counter(), self._busy_since
        if self._died_at is not None:
            return now - self._died_at
        return 0.0 if busy_since is None else max(0.0, now - busy_since - self._stuck_after_s)

    @property
    def queued(self) -> int:
        """Images that wait for a batch now."""
        return len(self._waiting) + len(self._background)

    def start(self) -> None:
        """Start the thread; answers are given in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._accepting = True
        self._thread.start()

    async def close(self, timeout_s: float | None = None) -> None:
        """Refuse new images, finish those that wait, and stop; after ``timeout_s`` give up those that are left."""
        with self._changed:
            self._accepting = False
            self._changed.notify()
        if self._loop is None:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), timeout_s)
        left = (*self._running, *self._waiting, *self._background)
        _refuse(left, "the service stopped before this image's turn; ask again.")

    async def encode(
        self, image: NDArray[np.uint8], deadline_s: float | None, *, turned: bool = False, whole: bool = True
    ) -> Encoded:
        """Embed one image.

        Args:
            image: uint8 ``[S, S, 3]``.
            deadline_s: seconds from now after which the answer is of no use; may have passed already. None for work
                in the background, which waits until no other image does.
            turned: also describe the image turned by 90°, 180° and 270°.
            whole: False for its descriptors alone, for a quarter of the time.

        Raises:
            Overloaded: the queue is full.
            DeadlineExceeded: no answer within ``deadline_s``; an image still waiting is dropped.
            NotReady: the service drains, or its encoder has died or is stuck.
            EmbeddingError: the model gives no finite embedding for this image.
        """
        now, queue = time.perf_counter(), self._background if deadline_s is None else self._waiting
        deadline_at = math.inf if deadline_s is None else now + deadline_s
        item = _Item(image, deadline_at, now, asyncio.get_running_loop().create_future(), turned, whole)
        with self._changed:
            if not self.healthy:
                raise NotReady("the encoder is not running; the service is draining or must be restarted.")
            if len(queue) >= self._max_queue:
                raise Overloaded(
                    f"{self._max_queue} images wait already; ask again in a second.",
                    limit=self._max_queue,
                    retry_after_s=1,
                )
            queue.append(item)
            self._changed.notify()
        try:
            async with asyncio.timeout(deadline_s):
                answer = await (self._unless_stuck(item) if deadline_s is None else item.answer)
        except TimeoutError:
            raise _too_late() from None
        record_step("queue", item.queued_at, item.started_at)
        record_step("encode", item.started_at, item.ended_at)
        return answer

    async def _unless_stuck(self, item: _Item) -> Encoded:
        """An answer that has no deadline, unless the encoder is stuck: nobody else would end that wait."""
        try:
            while not (await asyncio.wait([item.answer], timeout=self._stuck_after_s))[0]:
                if self.failing_s > 0:
                    raise NotReady("the encoder is stuck; the service must be restarted.")
            return item.answer.result()
        finally:
            item.answer.cancel()  # whoever waited may have been cancelled

    # the encoder's thread

    def _work(self) -> None:
        try:
            while (taken := self._next_batch()) is not None:
                self._run(*taken)
        except BaseException as error:  # whatever it is, those who wait must hear of it
            log.critical("the encoder's thread died", exc_info=error)
            with self._changed:
                self._died_at = time.perf_counter()
                left = (*self._running, *self._waiting, *self._background)
                self._waiting.clear()
                self._background.clear()
            self._tell(_refuse, left, "the encoder has died; restart the service.")
        finally:
            self._tell(self._ended.set)

    def _next_batch(self) -> tuple[list[_Item], Reason] | None:
        """Take the oldest images that somebody still waits for, None at the end; cancelled and expired ones go.

        Those in the background come when no others wait.
        """
        with self._changed:
            reason: Reason = "gathered"
            batch: list[_Item] = []
            while not batch:
                while not (self._waiting or self._background):
                    if not self._accepting:
                        return None
                    reason = "idle"
                    self._changed.wait()
                queue = self._waiting or self._background
                while queue and len(batch) < self._max_batch:
                    item = queue.popleft()
                    # an image that is late is dropped here; its caller has a timer of its own
                    if not item.answer.done() and item.deadline_at > time.perf_counter():
                        batch.append(item)
            self._running = batch
        return batch, "full" if len(batch) == self._max_batch > 1 else reason

    def _run(self, batch: list[_Item], reason: Reason) -> None:
        """Encode a batch; when it fails, encode its images one by one so that a bad image fails alone."""
        started = self._busy_since = time.perf_counter()
        try:
            encoded = self._features(batch)
            turned = self._turned(batch)
        except Exception as error:
            if len(batch) == 1:
                self._note([error])
                self._tell(_answer, [(batch[0], error)])
                return
            log.warning("a batch of %d images failed, encoding them one by one", len(batch), exc_info=True)
            for item in batch:
                self._run([item], "alone")
            return
        finally:
            self._busy_since = None
        ended = time.perf_counter()
        for item in batch:
            item.started_at, item.ended_at = started, ended
        answers = [(item, _encoded(item, *encoded[item], turned.get(item))) for item in batch]
        self._note([answer for _, answer in answers])
        self._on_batch(Batch(len(batch), reason, ended - started))  # before anybody can look whether it was told
        self._tell(_answer, answers)

    def _note(self, answers: list[Encoded | Exception]) -> None:
        """Remember since when nothing but errors has come out."""
        if any(isinstance(answer, Encoded) for answer in answers):
            self.fails_since = None
        elif self.fails_since is None:
            self.fails_since = time.perf_counter()

    def _features(self, batch: list[_Item]) -> dict[_Item, tuple[Embeddings | None, LocalMaps | None]]:
        """Embeddings, for those who want one, and descriptors."""
        found: dict[_Item, tuple[Embeddings | None, LocalMaps | None]] = {}
        few = [] if self._describe is None else [item for item in batch if not item.whole]
        if self._describe is not None and few:
            described = self._describe(np.stack([item.image for item in few]))
            found.update((item, (None, local)) for item, local in zip(few, described, strict=True))
        rest = [item for item in batch if item not in found]
        if rest:
            features = self._encode(np.stack([item.image for item in rest]))
            locals_ = [None] * len(rest) if features.local is None else features.local
            found.update(
                (item, (embedding if item.whole else None, local))
                for item, embedding, local in zip(rest, features.embedding, locals_, strict=True)
            )
        return found

    def _turned(self, batch: list[_Item]) -> dict[_Item, LocalMaps]:
        """Descriptors of the turned copies of those images that want them."""
        wanted = [item for item in batch if item.turned]
        if not wanted or self._describe_turned is None:
            return {}
        return dict(zip(wanted, self._describe_turned(np.stack([item.image for item in wanted])), strict=True))

    def _tell(self, function: Callable[..., None], *args: object) -> None:
        """Call a function in the event loop, where the futures live; when it is closed nobody listens any more."""
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function, *args)


def _encoded(
    item: _Item, embedding: Embeddings | None, local: LocalMaps | None, turned: LocalMaps | None
) -> Encoded | Exception:
    is_unit = embedding is None or abs(np.linalg.norm(embedding) - 1) < UNIT_TOLERANCE  # false for NaN
    if is_unit and all(maps is None or np.isfinite(maps).all() for maps in (local, turned)):
        waited, ran = item.started_at - item.queued_at, item.ended_at - item.started_at
        vector = np.empty(0, np.float32) if embedding is None else embedding
        return Encoded(vector, waited * 1e3, ran * 1e3, local, turned)
    return EmbeddingError("the model gives no finite embedding for this image; send another.")


def _answer(answers: Iterable[tuple[_Item, Encoded | Exception]]) -> None:
    for item, answer in answers:
        if item.answer.done():  # its caller has gone or its deadline has passed
            continue
        if isinstance(answer, Exception):
            item.answer.set_exception(answer)
        else:
            item.answer.set_result(answer)


def _refuse(items: Iterable[_Item], reason: str) -> None:
    _answer((item, NotReady(reason)) for item in items)


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "no answer before the deadline; ask again when the service is less busy, or raise AEROFIX_DEADLINE_S."
    )
