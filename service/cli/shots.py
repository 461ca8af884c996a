"""What ``aerofix localize`` is asked about: photos, folders of them, and videos."""

from collections.abc import AsyncGenerator, Sequence, Set
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from aerofix.footage.srt import read_srt
from aerofix.footage.video import ENDINGS, Video, beside
from service.errors import SourceUnreadable
from service.text import visible

PHOTO_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}
"""Files in a folder that end like this are taken for photos; files that are named one by one are sent whatever they end
in."""


@dataclass(frozen=True)
class Shot:
    """A photo to ask about.

    Attributes:
        name: of the file, and of the frame; see ``service.cli.answers.Answered``.
        photo: the file, or the bytes of one.
        time_s: of a frame, seconds from the start of its video.
    """

    name: str
    photo: Path | bytes
    time_s: float | None = None


def photos_in(source: Path) -> list[Shot]:
    """Return the photo, or all photos of a folder and those inside it, by name.

    Raises:
        SourceUnreadable: the folder has none.
    """
    if not source.is_dir():
        return [Shot(visible(str(source)), source)]
    found = sorted(each for each in source.rglob("*") if each.suffix.lower() in PHOTO_ENDINGS and each.is_file())
    if not found:
        raise SourceUnreadable(f"{source} has no photos: JPEG, PNG, WebP or TIFF.")
    return [Shot(visible(str(each)), each) for each in found]


def is_video(source: Path) -> bool:
    """Say whether a source is a video by its name."""
    return source.suffix.lower() in ENDINGS


def open_video(source: Path, every_s: float, srt: Path | None = None) -> Video:
    """Return a video with what the drone wrote beside it, if it did.

    Raises:
        SourceUnreadable: ``srt`` has no telemetry.
    """
    srt = srt or beside(source)
    return Video(source, every_s, () if srt is None else read_srt(srt))


async def frames_of(video: Video) -> AsyncGenerator[Shot, None]:
    """Yield the frames of a video, which are decoded in a thread.

    Raises:
        SourceUnreadable: see ``Video.frames``.
    """
    frames = video.frames()
    try:
        while (frame := await anyio.to_thread.run_sync(next, frames, None)) is not None:
            yield Shot(f"{visible(str(video.source))}#t={frame.time_s:.3f}", frame.jpeg, frame.time_s)
    finally:
        frames.close()


async def each_of(shots: Sequence[Shot]) -> AsyncGenerator[Shot, None]:
    """Yield photos that are here."""
    for shot in shots:
        yield shot


async def new_frames_of(video: Video, done: Set[str]) -> AsyncGenerator[Shot, None]:
    """Yield the frames of a video that there is no answer for yet; see ``frames_of``."""
    async with aclosing(frames_of(video)) as frames:
        async for shot in frames:
            if shot.name not in done:
                yield shot
