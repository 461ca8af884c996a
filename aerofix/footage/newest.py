"""The newest picture of what does not wait: a live stream, a video that is played, a folder that fills."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from aerofix.footage.video import Video

POLL_S = 0.2
"""Seconds between two looks into a folder."""


@dataclass(frozen=True)
class Taken:
    """A picture and its time.

    Attributes:
        name: what it is called.
        photo: its file, or the bytes of one.
        time_s: when it was taken, seconds since 1970 (UTC), by the clock of this machine.
    """

    name: str
    photo: Path | bytes
    time_s: float


async def newest(pictures: AsyncGenerator[Taken, None]) -> AsyncGenerator[Taken, None]:
    """Of pictures that come while one is worked on, the last; those before it are left out.

    Args:
        pictures: all of them, as they come.
    """
    waiting: list[Taken] = []
    news = asyncio.Event()

    async def collect() -> None:
        try:
            async with aclosing(pictures):
                async for picture in pictures:
                    waiting[:] = [picture]
                    news.set()
        finally:
            news.set()

    collector = asyncio.create_task(collect())
    try:
        while True:
            await news.wait()
            news.clear()
            if waiting:
                yield waiting.pop()
            elif collector.done():
                collector.result()  # raises what stopped it
                return
            if collector.done():
                news.set()
    finally:
        collector.cancel()


async def played(video: Video, latency_s: float = 0.0) -> AsyncGenerator[Taken, None]:
    """Frames of a live stream as they come, or of a video file at the pace at which it was recorded.

    Args:
        video: the stream or the file.
        latency_s: seconds that a frame of a stream takes from the camera to here.

    Raises:
        SourceUnreadable: see ``Video.frames``.
    """
    frames, began_s = video.frames(), time.time()
    try:
        while (frame := await anyio.to_thread.run_sync(next, frames, None)) is not None:
            time_s = time.time() - latency_s if video.live else began_s + frame.time_s
            await asyncio.sleep(0.0 if video.live else max(0.0, time_s - time.time()))
            yield Taken(f"{video.source}#t={frame.time_s:.3f}", frame.jpeg, time_s)
    finally:
        frames.close()


def filling(folder: Path, endings: set[str], latency_s: float = 0.0) -> AsyncGenerator[Taken, None]:
    """Photos that come into a folder from this call on, by the time at which they were written; it never ends.

    A photo counts as written when its size stays the same between two looks.

    Args:
        folder: where they come.
        endings: of the files that are photos, in small letters.
        latency_s: seconds from taking a photo to writing it.
    """
    return _filling(folder, endings, latency_s, set(_files(folder, endings)))


async def _filling(folder: Path, endings: set[str], latency_s: float, known: set[Path]) -> AsyncGenerator[Taken, None]:
    growing: dict[Path, int] = {}
    while True:
        await asyncio.sleep(POLL_S)
        sizes = {path: size for path, size in _files(folder, endings).items() if path not in known}
        whole = [path for path, size in sizes.items() if size and growing.get(path) == size]
        growing = sizes
        for path in sorted(whole, key=os.path.getmtime):
            known.add(path)
            yield Taken(str(path), path, path.stat().st_mtime - latency_s)


def _files(folder: Path, endings: set[str]) -> dict[Path, int]:
    with os.scandir(folder) as entries:
        return {
            Path(entry.path): entry.stat().st_size
            for entry in entries
            if Path(entry.name).suffix.lower() in endings and entry.is_file()
        }
