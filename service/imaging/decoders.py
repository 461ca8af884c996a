"""Who decodes: processes that can be killed, so that search never waits for one, and few large images at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from service.errors import Overloaded
from service.imaging.decode import Photo, PhotoFile
from service.imaging.workers import Worker
from service.threads import WORKERS, Arguments, Result, Threads

ORDINARY_BYTES = 200_000_000
"""Decoding an ordinary image may take this much: a WebP of 12 megapixels, a PNG of 25 does. A camera's JPEG, decoded at
a reduced scale, takes far less."""

MAX_WORKERS = 8
"""There are at most so many workers, which bounds their memory together with ``ORDINARY_BYTES``: 1.6 GB, on 2 cores 0.4
GB. A core decodes 25 to 60 photos of 12 megapixels a second (``benchmarks/decode.py``)."""

MAX_LARGE = 3
"""So many large images may be decoded or wait for it. One of 100 megapixels takes 1 to 3 s, so the last meets the
deadline."""


class Decoders:
    """Has images decoded; those that take much memory or time one at a time, beside the others."""

    def __init__(self) -> None:
        count = min(MAX_WORKERS, WORKERS)
        self._threads = Threads("photo", count)
        self._ordinary, self._large = _Lane("decode", count), _Lane("decode-large", 1)
        self._large_inside = 0

    @property
    def pids(self) -> list[int]:
        """The processes that decode now or have done so, those for large images last."""
        return [pid for lane in (self._ordinary, self._large) for worker in lane.workers if (pid := worker.pid)]

    async def run(self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Do a piece of work in this process that takes little memory, such as reading a header."""
        return await self._threads.run(work, *args, **kwargs)

    async def decode(
        self,
        file: PhotoFile,
        then: Callable[[Photo], Result],
        useful_side_px: int | None = None,
        *,
        in_line: bool = False,
    ) -> Result:
        """Decode an image. Whoever gives up waiting ends the process that is at it.

        Args:
            file: the image.
            then: makes of the photo what is wanted of it, in a thread of this process: so there are never more decoded
                pictures than processes.
            useful_side_px: see ``PhotoFile.decode``.
            in_line: wait for other large images however many there are.

        Raises:
            Overloaded: ``MAX_LARGE`` large images are here already, and this is one more.
            AerofixError: it cannot be decoded, see ``Worker.decode``.
        """
        job = file.job(useful_side_px)

        def work(worker: Worker) -> Result:
            return then(file.photo(worker.decode(job, file.pieces)))

        if job.needs_bytes <= ORDINARY_BYTES and not file.is_slow:
            return await self._ordinary.run(work)
        if self._large_inside >= MAX_LARGE and not in_line:
            raise Overloaded(
                f"{self._large_inside} images as large as this one are being decoded already; ask again in a second, "
                "or send a smaller one or a JPEG.",
                limit=MAX_LARGE,
                retry_after_s=1,
            )
        self._large_inside += 1
        try:
            return await self._large.run(work)
        finally:
            self._large_inside -= 1

    def close(self) -> None:
        """End the processes, whatever they do, and drop what waits."""
        self._threads.close()
        for lane in (self._ordinary, self._large):
            lane.close()


class _Lane:
    """Some workers, and a thread for each that waits for it.

    Args:
        name: of the threads.
        count: of the workers.
    """

    def __init__(self, name: str, count: int) -> None:
        self.workers = [Worker() for _ in range(count)]
        self._waiting = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._idle: asyncio.LifoQueue[Worker] = asyncio.LifoQueue()  # first one that runs already
        for worker in self.workers:
            self._idle.put_nowait(worker)

    async def run(self, work: Callable[[Worker], Result]) -> Result:
        """Wait for a worker, and for what it is given to do."""
        worker = await self._idle.get()
        context = copy_context()  # the thread works for the same request, as its log lines and steps say
        answer = asyncio.get_running_loop().run_in_executor(self._waiting, context.run, work, worker)

        def give_back(done: asyncio.Future[Result]) -> None:
            done.exception()  # seen, should nobody wait for it any more
            self._idle.put_nowait(worker)

        answer.add_done_callback(give_back)
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            if not answer.done():
                worker.kill()
            raise

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.close()
