"""The service's own work without a service: decode, encode, search and what follows, in loops without HTTP.

``PhotoLocalizer.localize`` itself is awaited. What the service does in other threads and processes happens at once in
the one thread of the event loop, but for decoding where a loop has threads for it; and instead of a queue with a thread
of its own, the model runs on what several photos ask of it at the same time. So a loop does exactly what the service
does for the same photo, whatever the model asks for, and nothing else.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import service  # noqa: F401 - before NumPy: it says how many threads a matrix product may have

# isort: split
import numpy as np
from numpy.typing import NDArray

from service.encoder.batcher import Encoded
from service.encoder.session import Encoder
from service.ground.gallery import Gallery
from service.imaging.decode import Photo, PhotoFile
from service.localization.hints import Hints
from service.localization.pipeline import Answer, PhotoLocalizer
from service.settings import Settings


class _NoThreads:
    """The place of the threads that match: everything happens at once."""

    async def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments)


class _Decoders:
    """The place of the processes that decode: threads of a pool, and without one everything happens at once."""

    def __init__(self) -> None:
        self.pool: ThreadPoolExecutor | None = None
        self.busy = 0  # photos that a thread has or that wait for one

    async def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        if self.pool is None:
            return work(*arguments)
        self.busy += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.pool, work, *arguments)
        finally:
            self.busy -= 1

    async def decode(self, file: PhotoFile, then: Callable[[Photo], Any], useful_px: int, *, in_line: bool) -> Any:
        return await self.run(lambda: then(file.decode(useful_px)))


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a photo asks of the model; see ``Batcher.encode``."""

    image: NDArray[np.uint8]
    turned: bool
    whole: bool
    answer: asyncio.Future[Encoded]


class _Batches:
    """The place of the batcher: the model runs in the loop, when ``size`` images wait or no photo is being decoded."""

    def __init__(self, encoder: Encoder, decoders: _Decoders) -> None:
        self.size = 1
        self._encoder, self._decoders = encoder, decoders
        self._waiting: list[_Asked] = []

    async def encode(
        self, image: NDArray[np.uint8], deadline_s: float, *, turned: bool = False, whole: bool = True
    ) -> Encoded:
        loop = asyncio.get_running_loop()
        asked = _Asked(image, turned, whole, loop.create_future())
        self._waiting.append(asked)
        loop.call_soon(self._run)  # after the other photos that have come as far
        return await asked.answer

    def _run(self) -> None:
        if not self._waiting or (self._decoders.busy and len(self._waiting) < self.size):
            return
        batch, self._waiting = self._waiting, []
        try:
            encoded = self._encoded(batch)
        except Exception as error:  # nobody awaits a callback: whoever waits for the model must hear of it
            for asked in batch:
                asked.answer.set_exception(error)
            return
        for asked in batch:
            asked.answer.set_result(encoded[asked])

    def _encoded(self, batch: list[_Asked]) -> dict[_Asked, Encoded]:
        whole, few = [each for each in batch if each.whole], [each for each in batch if not each.whole]
        wanted = [each for each in batch if each.turned]
        turned = dict(zip(wanted, self._encoder.describe_turned(_images(wanted)), strict=True)) if wanted else {}
        encoded = {}
        if whole:
            features = self._encoder.encode(_images(whole))
            local = [None] * len(whole) if features.local is None else features.local
            for each, embedding, descriptors in zip(whole, features.embedding, local, strict=True):
                encoded[each] = Encoded(embedding, 0.0, 0.0, descriptors, turned.get(each))
        if few:
            for each, descriptors in zip(few, self._encoder.describe(_images(few)), strict=True):
                encoded[each] = Encoded(np.empty(0, np.float32), 0.0, 0.0, descriptors, turned.get(each))
        return encoded


def _images(batch: list[_Asked]) -> NDArray[np.uint8]:
    return np.stack([each.image for each in batch])


class Bare:
    """The parts of a service that localize photos."""

    def __init__(self, gallery: Path, model: Path | None = None, threads: int = 0) -> None:
        settings = Settings(gallery=gallery, device="cpu", threads=threads, **({"model": model} if model else {}))
        encoder = Encoder(settings.model, settings.device, settings.threads)
        contract = encoder.contract
        self._gallery = Gallery.of(settings, contract)
        self._decoders = _Decoders()
        self._batches = _Batches(encoder, self._decoders)
        self._localizer = PhotoLocalizer(contract, self._batches, self._gallery, settings, self._decoders, _NoThreads())
        self._runner = asyncio.Runner()

    def close(self) -> None:
        """End the event loop and close the gallery."""
        self._runner.close()
        self._gallery.close()

    def localize(self, photos: Sequence[bytes], pool: ThreadPoolExecutor | None = None) -> list[Answer]:
        """Answer several photos, whose images share batches; the threads of ``pool`` decode side by side."""
        self._decoders.pool, self._batches.size = pool, len(photos)

        async def all_of_them() -> list[Answer]:
            return await asyncio.gather(*(self._localizer.localize(photo, Hints()) for photo in photos))

        return self._runner.run(all_of_them())

    def keep_on(self, photos: Iterator[bytes], go_on: Callable[[], bool], batch: int, pool: ThreadPoolExecutor) -> int:
        """Have two batches of photos under way while ``go_on``, and end those; how many were answered."""
        self._decoders.pool, self._batches.size = pool, batch

        async def by_turns() -> int:
            done, running = 0, set[asyncio.Task[Answer]]()
            while running or go_on():
                while len(running) < 2 * batch and go_on():
                    running.add(asyncio.create_task(self._localizer.localize(next(photos), Hints())))
                if not running:
                    break
                ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                done += len([task.result() for task in ended])
            return done

        return self._runner.run(by_turns())


@dataclass(frozen=True)
class Loop:
    """How a loop works through photos: ``batch`` at a time, with ``decoders`` threads that decode ahead (0: none)."""

    batch: int
    decoders: int

    def __str__(self) -> str:
        ahead = f"{self.decoders} thread{'s' * (self.decoders > 1)} decode ahead" if self.decoders else "one thread"
        return f"batches of {self.batch}, {ahead}"

    def run(self, bare: Bare, photos: Iterator[bytes], go_on: Callable[[], bool]) -> int:
        """Localize photos while ``go_on``; how many were answered."""
        if self.decoders:
            with ThreadPoolExecutor(self.decoders) as pool:
                return bare.keep_on(photos, go_on, self.batch, pool)
        done = 0
        while go_on():
            done += len(bare.localize([next(photos) for _ in range(self.batch)]))
        return done
