"""Threads that decode images: their own, so that search and re-ranking never wait for one, and few large at a time."""

import ctypes
import sys
from collections.abc import Callable
from functools import partial

from service.errors import Overloaded
from service.threads import WORKERS, Arguments, Result, Threads

ORDINARY_BYTES = 200_000_000
"""What decoding an ordinary image may take: a WebP of 12 megapixels, a PNG of 25 does. A camera's JPEG, decoded at a
reduced scale, takes far less."""

MAX_THREADS = 8
"""With ``ORDINARY_BYTES`` the bound of their memory: 1.6 GB, on 2 cores 0.4 GB. A core decodes 25 to 60 photos of 12
megapixels a second (``benchmarks/decode.py``)."""

MAX_LARGE = 3
"""Large images that are decoded or wait for it. Of 100 megapixels one takes 1 to 3 s: the last meets the deadline."""

_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None  # glibc has it


class Decoders:
    """Runs what decodes images in threads; those that take much memory one at a time, beside the others."""

    def __init__(self) -> None:
        self._ordinary, self._large = Threads("decode", min(MAX_THREADS, WORKERS)), Threads("decode-large", 1)
        self._large_inside = 0

    async def run(self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Do a piece of work that takes little memory, such as reading a header."""
        return await self._ordinary.run(work, *args, **kwargs)

    async def decode(self, work: Callable[[], Result], needs_bytes: int, *, in_line: bool = False) -> Result:
        """Decode an image.

        Args:
            work: decodes it, and makes of its pixels what is wanted of them.
            needs_bytes: of memory at the most.
            in_line: wait for other large images however many there are.

        Raises:
            Overloaded: ``MAX_LARGE`` large images are here already, and this is one more.
        """
        if needs_bytes <= ORDINARY_BYTES:
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
            return await self._large.run(partial(_give_back_after, work))
        finally:
            self._large_inside -= 1

    def close(self) -> None:
        """Drop what waits; what has begun ends by itself."""
        for threads in (self._ordinary, self._large):
            threads.close()


def _give_back_after(work: Callable[[], Result]) -> Result:
    """Return the memory that a large image took to the system, where the C library can; glibc keeps most of it."""
    try:
        return work()
    finally:
        if _malloc_trim is not None:
            _malloc_trim(0)
