"""Join images of concurrent requests into batches.

While the encoder is idle an image starts at once; while it works, images queue up and the next batch takes all of
them, up to ``max_batch``. So there is no delay to tune: the batch grows with the load by itself.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.encoder.session import Embeddings, Images
from service.errors import DeadlineExceeded, EmbeddingError, NotReady, Overloaded

log = logging.getLogger(__name__)

UNIT_TOLERANCE = 1e-2  # reduced precision leaves a unit vector within 1e-3; a failed image gives 0 or NaN


@dataclass(frozen=True)
class Encoded:
    """One image's embedding (float32 ``[D]``) and the milliseconds it waited and its batch ran."""

    embedding: NDArray[np.float32]
    queue_ms: float
    encode_ms: float


@dataclass(eq=False)
class _Item:
    image: NDArray[np.uint8]
    deadline_at: float  # time.monotonic(), seconds
    queued_at: float
    answer: "asyncio.Future[Encoded]"


class Batcher:
    """A bounded queue in front of one encoder thread.

    Args:
        encode: maps uint8 ``[N, S, S, 3]`` to float32 ``[N, D]``; called in a thread of its own, one batch at a time.
        max_batch: largest N.
        max_queue: images that may wait; one more is refused.
    """

    def __init__(self, encode: Callable[[Images], Embeddings], max_batch: int, max_queue: int) -> None:
        self._encode = encode
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._waiting: deque[_Item] = deque()
        self._running: list[_Item] = []
        self._wake = asyncio.Event()
        self._accepting = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._worker: asyncio.Task[None] | None = None

    @property
    def healthy(self) -> bool:
        """Whether images are accepted and the worker that encodes them is alive."""
        return self._accepting and self._worker is not None and not self._worker.done()

    @property
    def queued(self) -> int:
        """Images that wait for a batch now."""
        return len(self._waiting)

    def start(self) -> None:
        """Start the worker in the running event loop."""
        self._accepting = True
        self._worker = asyncio.create_task(self._work(), name="batcher")
        self._worker.add_done_callback(self._on_worker_end)

    async def close(self) -> None:
        """Refuse new images, finish those that wait, and stop."""
        self._accepting = False
        self._wake.set()
        if self._worker is not None:
            await asyncio.wait([self._worker])
        self._thread.shutdown()

    async def encode(self, image: NDArray[np.uint8], deadline_s: float) -> Encoded:
        """Embed one image.

        Args:
            image: uint8 ``[S, S, 3]``.
            deadline_s: seconds from now after which the answer is of no use; may have passed already.

        Raises:
            Overloaded: the queue is full.
            DeadlineExceeded: no answer within ``deadline_s``; an image still waiting is dropped.
            NotReady: the service drains or its worker has died.
            EmbeddingError: the model gives no finite embedding for this image.
        """
        if not self.healthy:
            raise NotReady("the encoder is not running; the service is draining or must be restarted.")
        if len(self._waiting) >= self._max_queue:
            raise Overloaded(
                f"{self._max_queue} images wait already; ask again in a second.",
                limit=self._max_queue,
                retry_after_s=1,
            )
        now = time.monotonic()
        item = _Item(image, now + deadline_s, now, asyncio.get_running_loop().create_future())
        self._waiting.append(item)
        self._wake.set()
        try:
            async with asyncio.timeout(deadline_s):
                return await item.answer
        except TimeoutError:
            raise _too_late() from None

    async def _work(self) -> None:
        while self._accepting or self._waiting:
            self._wake.clear()
            batch = self._next_batch()
            if batch:
                await self._run(batch)
            elif self._accepting:
                await self._wake.wait()

    def _next_batch(self) -> list[_Item]:
        """Take the oldest images that somebody still waits for; cancelled and expired ones are dropped."""
        batch: list[_Item] = []
        while self._waiting and len(batch) < self._max_batch:
            item = self._waiting.popleft()
            if item.answer.done():
                continue
            if item.deadline_at <= time.monotonic():
                item.answer.set_exception(_too_late())
                continue
            batch.append(item)
        return batch

    async def _run(self, batch: list[_Item]) -> None:
        """Encode a batch; when it fails, encode its images one by one so that a bad image fails alone."""
        started = time.monotonic()
        self._running = batch
        try:
            images = np.stack([item.image for item in batch])
            embeddings = await asyncio.get_running_loop().run_in_executor(self._thread, self._encode, images)
        except Exception as error:
            if len(batch) == 1:
                _answer(batch[0], error)
                return
            log.warning("a batch of %d images failed, encoding them one by one", len(batch), exc_info=True)
            for item in batch:
                await self._run([item])
            return
        encode_ms = (time.monotonic() - started) * 1e3
        for item, embedding in zip(batch, embeddings, strict=True):
            if abs(np.linalg.norm(embedding) - 1) < UNIT_TOLERANCE:  # false for NaN
                _answer(item, Encoded(embedding, (started - item.queued_at) * 1e3, encode_ms))
            else:
                _answer(item, EmbeddingError("the model gives no finite embedding for this image; send another."))

    def _on_worker_end(self, worker: "asyncio.Task[None]") -> None:
        """Fail what still waits when the worker ends early: nobody may wait for an answer that cannot come."""
        if not worker.cancelled() and (error := worker.exception()) is not None:
            log.critical("the batcher's worker died", exc_info=error)
        for item in (*self._running, *self._waiting):
            _answer(item, NotReady("the encoder's worker has died; restart the service."))


def _answer(item: _Item, answer: Encoded | Exception) -> None:
    if item.answer.done():  # its caller has gone or its deadline has passed
        return
    if isinstance(answer, Exception):
        item.answer.set_exception(answer)
    else:
        item.answer.set_result(answer)


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "no answer before the deadline; ask again when the service is less busy, or raise AEROFIX_DEADLINE_S."
    )
