"""The service's own work without a service: decode, encode, search and what follows, in loops without HTTP or asyncio.

``PhotoLocalizer.localize`` itself is driven by hand. It is a coroutine that gives its image to a batcher and waits for
the features; here it waits for whoever drives it, and what it would do in other threads happens at once. So a loop does
exactly what the service does for the same photo, whatever the model asks for, and nothing else.
"""

import sys
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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

Asked = tuple[NDArray[np.uint8], bool]
"""The model's input, and whether its turned copies are to be described, too."""

Job = Coroutine[Asked, Encoded, Answer]
"""A photo on its way: sending None gives what is asked of the model, sending the features gives the answer."""


class _Waiting:
    """The place of the batcher: hands out what is asked and waits."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked

    def __await__(self) -> Generator[Asked, Encoded, Encoded]:
        return (yield self.asked)


class _NoBatcher:
    async def encode(self, image: NDArray[np.uint8], deadline_s: float, turned: bool = False) -> Encoded:
        return await _Waiting((image, turned))


class _NoThreads:
    """The place of the threads that decode and match: everything happens at once."""

    async def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments)

    async def decode(self, file: PhotoFile, then: Callable[[Photo], Any], useful_px: int, in_line: bool) -> Any:
        return then(file.decode(useful_px))


class Bare:
    """The parts of a service that localize photos."""

    def __init__(self, gallery: Path, model: Path | None = None, threads: int = 0) -> None:
        settings = Settings(gallery=gallery, device="cpu", threads=threads, **({"model": model} if model else {}))
        self.encoder = Encoder(settings.model, settings.device, settings.threads)
        contract = self.encoder.contract
        self.gallery = Gallery.open(settings.gallery, contract.identity, contract.embedding_dim)
        self._localizer = PhotoLocalizer(contract, _NoBatcher(), self.gallery, settings, _NoThreads(), _NoThreads())

    def prepare(self, data: bytes) -> tuple[Job, Asked]:
        """Decode a photo: what is left to do for it, and what is asked of the model."""
        job: Job = self._localizer.localize(data, Hints())
        return job, job.send(None)

    def encode(self, asked: Sequence[Asked]) -> list[Encoded]:
        """Run the model on a batch."""
        images = np.stack([image for image, _ in asked])
        features = self.encoder.encode(images)
        local = [None] * len(asked) if features.local is None else features.local
        wanted = [i for i, (_, turned) in enumerate(asked) if turned]
        turned = dict(zip(wanted, self.encoder.describe_turned(images[wanted]), strict=True)) if wanted else {}
        return [
            Encoded(embedding, 0.0, 0.0, descriptors, turned.get(i))
            for i, (embedding, descriptors) in enumerate(zip(features.embedding, local, strict=True))
        ]

    def finish(self, job: Job, encoded: Encoded) -> Answer:
        """Search, and whatever else it takes to the answer."""
        try:
            job.send(encoded)
        except StopIteration as end:
            return end.value
        raise RuntimeError("the pipeline waits for something that this loop does not know")

    def localize(self, photos: Sequence[bytes], spread: Callable[..., Iterator[Any]] = map) -> list[Answer]:
        """Answer several photos with one batch; ``spread`` is the ``map`` of a pool that decodes side by side."""
        prepared = list(spread(self.prepare, photos))
        encoded = self.encode([asked for _, asked in prepared])
        return [self.finish(job, features) for (job, _), features in zip(prepared, encoded, strict=True)]


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
        done = 0
        if not self.decoders:
            while go_on():
                done += len(bare.localize([next(photos) for _ in range(self.batch)]))
            return done
        with ThreadPoolExecutor(self.decoders) as pool:
            ahead: deque[Future[tuple[Job, Asked]]] = deque()
            while go_on():
                while len(ahead) < 2 * self.batch:
                    ahead.append(pool.submit(bare.prepare, next(photos)))
                prepared = [ahead.popleft().result() for _ in range(self.batch)]
                encoded = bare.encode([asked for _, asked in prepared])
                for (job, _), features in zip(prepared, encoded, strict=True):
                    bare.finish(job, features)
                done += self.batch
            for left in ahead:
                left.result()[0].close()
        return done
