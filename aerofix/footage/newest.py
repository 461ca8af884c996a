"""The newest picture of what does not wait: a live stream, a video that is played, a folder that fills."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from aerofix.footage.video import Video
from service.errors import SourceUnreadable

POLL_S = 0.2
"""Folders are looked into this often, in seconds."""


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
    """Give the last of the pictures that come while one is worked on; those before it are left out.

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
    """Give frames of a live stream as they come, or of a video file at the pace at which it was recorded.

    Args:
        video: the stream or the file.
        latency_s: seconds that a frame of a stream takes from the camera to here.

    Raises:
        SourceUnreadable: see ``Video.frames``.
    """
    frames, began_s = video.frames(), time.time()
    try:
        while (frame := await anyio.to_thread.run_sync(next, frames, None)) is not None:
            time_s = began_s + frame.time_s if frame.taken_s is None else frame.taken_s - latency_s
            await asyncio.sleep(max(0.0, time_s - time.time()))
            yield Taken(f"{video.source}#t={frame.time_s:.3f}", frame.jpeg, time_s)
    finally:
        frames.close()


def filling(
    folder: Path, endings: set[str], latency_s: float = 0.0, on_trouble: Callable[[str], object] = lambda text: None
) -> AsyncGenerator[Taken, None]:
    """Give photos that come into a folder from this call on, by the time at which they were written; it never ends.

    A photo counts as written when its size stays the same between two looks. A photo that is removed meanwhile is left
    out, and a folder that cannot be read is looked at again until it can.

    Args:
        folder: where they come.
        endings: of the files that are photos, in small letters.
        latency_s: seconds from taking a photo to writing it.
        on_trouble: told once, in a sentence, when the folder can no longer be read.

    Raises:
        SourceUnreadable: the folder cannot be read now.
    """
    try:
        known = {path for path, _ in _files(folder, endings)}
    except OSError as error:
        raise SourceUnreadable(f"{folder} cannot be read: {error.strerror}.") from error
    return _filling(folder, endings, latency_s, known, on_trouble)


async def _filling(
    folder: Path, endings: set[str], latency_s: float, known: set[Path], on_trouble: Callable[[str], object]
) -> AsyncGenerator[Taken, None]:
    growing: dict[Path, int] = {}
    readable = True
    while True:
        await asyncio.sleep(POLL_S)
        try:
            files = [(path, stat) for path, stat in _files(folder, endings) if path not in known]
        except OSError as error:
            if readable:
                on_trouble(f"{folder} cannot be read ({error.strerror}); it is looked at until it can.")
            readable = False
            continue
        readable = True
        whole = [(stat.st_mtime, path) for path, stat in files if stat.st_size and growing.get(path) == stat.st_size]
        growing = {path: stat.st_size for path, stat in files}
        for written_s, path in sorted(whole):
            known.add(path)
            yield Taken(str(path), path, written_s - latency_s)


def _files(folder: Path, endings: set[str]) -> list[tuple[Path, os.stat_result]]:
    """The photos of a folder; one that is removed while it is looked at is not among them."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if Path(entry.name).suffix.lower() in endings:
                with suppress(FileNotFoundError):
                    if entry.is_file():
                        found.append((Path(entry.path), entry.stat()))
    return found
