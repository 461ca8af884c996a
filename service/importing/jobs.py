"""Imports: whole maps that become tiles in the background, and go on after a restart where they were.

The upload lies in a folder beside the gallery, the progress in the gallery itself: it is written in one transaction
with the tiles that it counts, so a crash at any moment neither loses tiles nor adds one twice.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from service.errors import (
    AerofixError,
    GalleryUnusable,
    ImportNotFound,
    NotReady,
    Overloaded,
    SourceUnreadable,
    StorageFull,
)
from service.ground.gallery import Gallery, NewTile
from service.ground.store.imports import IMPORT_ID, Import, ImportStopped, Step, Trouble
from service.importing.tiles import TileMaker
from service.maps.map_tiles import Cut
from service.maps.sources import open_upload
from service.maps.tile_source import SourceTile, TileSource
from service.threads import Shared

log = logging.getLogger(__name__)

PLACES_PER_STEP = 16
"""One batch of the encoder at its default; what a crash may make the import do again."""

STEPS_AT_ONCE = 3
"""One is read, one embedded, one stored; more would only fill the queue."""

PATIENCE_S = 0.5
"""Before a tile is tried again that found no place in the encoder's queue."""

RETRY_S = 5.0
"""Before an import that cannot go on is tried again."""

_PASSES = (StorageFull, GalleryUnusable, NotReady)
"""What has nothing to do with the source: the import waits until somebody frees space or restarts the encoder."""


@dataclass(frozen=True)
class Progress:
    """An import, the seconds until its end if they can be told, and what it waits for, if it does."""

    job: Import
    eta_s: float | None
    waits_for: Trouble | None


class Importer:
    """Runs the gallery's imports, one after the other.

    Args:
        gallery: gets the tiles.
        maker: makes them.
        folder: where uploads lie until they are imported; made if missing.
    """

    def __init__(self, gallery: Gallery, maker: TileMaker, folder: Path) -> None:
        self._gallery, self._maker, self._folder = gallery, maker, folder
        self._wake = asyncio.Event()
        self._closing = False
        self._worker: asyncio.Task[None] | None = None
        self._pace: tuple[str, float, int] = ("", 0.0, 0)  # import, time and place at which this run of it began
        self._waits_for: dict[str, Trouble] = {}

    def start(self) -> None:
        """Remove what no import needs any more, and go on with those that were interrupted."""
        live = {job.id for job in self._gallery.imports.live()}
        if self._folder.is_dir():
            for leftover in self._folder.iterdir():
                if IMPORT_ID.fullmatch(leftover.name) and leftover.name not in live:
                    self._remove_upload(leftover.name)
        self._worker = asyncio.create_task(self._work(), name="importer")

    async def close(self) -> None:
        """Finish the tiles at hand and stop; the next start goes on."""
        self._closing = True
        self._wake.set()
        if self._worker is not None:
            await asyncio.wait([self._worker])

    def upload_path(self, import_id: str) -> Path:
        """Where to put the upload of a new import.

        Raises:
            OSError: the folder cannot be made.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / import_id

    async def submit(self, import_id: str, name: str, cut: Cut) -> Progress:
        """Queue an upload that lies at its path.

        Args:
            import_id: that the path was asked for with.
            name: of the file, as its sender calls it.
            cut: see ``Cut``.

        Raises:
            AerofixError: the file is not what can be imported; see ``open_upload``.
        """

        def create() -> Import:
            with closing(self._open(import_id, name, cut)) as source:
                return self._gallery.imports.create(name, asdict(cut), len(source), import_id)

        job = await asyncio.to_thread(create)
        self._wake.set()
        return self._progress(job)

    async def get(self, import_id: str) -> Progress:
        """An import.

        Raises:
            ImportNotFound: there is none with this id.
        """
        job = await asyncio.to_thread(self._gallery.imports.get, import_id)
        if job is None:
            raise ImportNotFound(f"there is no import {import_id!r:.50}; GET /gallery/imports lists them.")
        return self._progress(job)

    async def newest(self, limit: int) -> list[Progress]:
        """The last imports, newest first."""
        return [self._progress(job) for job in await asyncio.to_thread(self._gallery.imports.newest, limit)]

    async def cancel(self, import_id: str) -> Progress:
        """End an import; no tile is added after this returns, and those that were stay.

        Raises:
            ImportNotFound: there is none with this id.
        """
        await self.get(import_id)
        if await asyncio.to_thread(self._gallery.imports.finish, import_id, "cancelled"):
            self._remove_upload(import_id)
            self._wake.set()
        return await self.get(import_id)

    def _progress(self, job: Import) -> Progress:
        eta_s = None
        import_id, started, first = self._pace
        if job.state == "running" and import_id == job.id and job.done > first:
            eta_s = (time.monotonic() - started) / (job.done - first) * (job.total - job.done)
        return Progress(job, eta_s, self._waits_for.get(job.id) if job.is_live else None)

    async def _work(self) -> None:
        while not self._closing:
            self._wake.clear()
            live: list[Import] = []
            try:
                live = await asyncio.to_thread(self._gallery.imports.live)
                if live:
                    await self._finish(live[0], await self._run(live[0]))
                else:
                    await self._wake.wait()
            except ImportStopped:
                continue
            except _PASSES as error:
                log.warning("imports wait: %s", error.detail)
                self._waits_for = {job.id: Trouble.of(error) for job in live}
                await self._pause(RETRY_S)

    async def _run(self, job: Import) -> Trouble | None:
        """Import what is left of a source. Returns why it ended early, None at its end or when the service stops."""
        try:
            await asyncio.to_thread(self._gallery.imports.start, job.id)
            opened = await asyncio.to_thread(self._open, job.id, job.name, Cut(**job.options))
            with closing(Shared(opened)) as source:
                await asyncio.to_thread(self._gallery.imports.begin, job.id, len(opened))
                first = job.done if len(opened) == job.total else 0
                self._pace = (job.id, time.monotonic(), first)
                await self._steps(job.id, source, first)
        except (ImportStopped, *_PASSES):
            raise
        except AerofixError as error:
            return Trouble.of(error)
        except Exception:
            log.exception("import %s failed", job.id)
            return Trouble(None, "", "this is a defect of the service; report it with what its log says.")
        finally:
            await asyncio.to_thread(self._gallery.imports.outlived, job.id)
        return None

    async def _steps(self, import_id: str, source: Shared[TileSource], first: int) -> None:
        """Read, embed and store the places from ``first`` on: a step is read while others are embedded and stored."""
        reading = asyncio.Lock()  # in order

        async def prepare(start: int) -> list[NewTile | AerofixError | None]:
            async with reading:
                read = await source.use(partial(_read, start=start, is_closing=lambda: self._closing))
            return await asyncio.gather(*map(self._make, read))

        starts = iter(range(first, len(source.thing), PLACES_PER_STEP))
        ahead = deque(asyncio.create_task(prepare(start)) for start in islice(starts, STEPS_AT_ONCE))
        done = first
        try:
            while ahead and not self._closing:
                made = await ahead.popleft()
                if (start := next(starts, None)) is not None:
                    ahead.append(asyncio.create_task(prepare(start)))
                labels = (source.thing.label(done + i) for i in range(len(made)))
                troubles = [
                    Trouble.of(each, label)
                    for each, label in zip(made, labels, strict=True)
                    if isinstance(each, AerofixError)
                ]
                tiles = [each for each in made if isinstance(each, NewTile)]
                done += len(made)
                await asyncio.to_thread(self._gallery.upsert, tiles, Step(import_id, done, made.count(None), troubles))
                self._waits_for.pop(import_id, None)
        finally:
            await asyncio.gather(*ahead, return_exceptions=True)

    async def _make(self, read: SourceTile | AerofixError | None) -> NewTile | AerofixError | None:
        """A tile, or what is wrong with it; waits for as long as photos need the encoder: they go first."""
        while isinstance(read, SourceTile):
            try:
                return await self._maker.make(read.image, read.entry, in_background=True)
            except Overloaded:
                await asyncio.sleep(PATIENCE_S)
            except _PASSES:
                raise
            except AerofixError as error:
                return error
        return read

    async def _finish(self, job: Import, why: Trouble | None) -> None:
        """Note the end of an import, unless the service stops before it."""
        if self._closing and why is None:
            current = await asyncio.to_thread(self._gallery.imports.get, job.id)
            if current is None or current.done < current.total:
                return
        await asyncio.to_thread(self._gallery.imports.finish, job.id, "failed" if why else "done", why)
        self._remove_upload(job.id)

    def _remove_upload(self, import_id: str) -> None:
        """Remove what an import no longer needs; if that fails, the next start tries again."""
        try:
            (self._folder / import_id).unlink(missing_ok=True)
        except OSError as error:
            log.warning("the upload of import %s stays in the imports folder: %s", import_id, error.strerror)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _open(self, import_id: str, name: str, cut: Cut) -> TileSource:
        path = self._folder / import_id
        try:
            return open_upload(path, cut, name)
        except FileNotFoundError as error:
            raise SourceUnreadable(f"the upload of {name} is gone from the imports folder; send it again.") from error


def _read(source: TileSource, start: int, is_closing: Callable[[], bool]) -> Sequence[SourceTile | AerofixError | None]:
    """Places of one step, fewer when the service stops meanwhile; what is wrong with one of them takes its place.

    Raises:
        SourceUnreadable: the source as a whole cannot be read on.
    """
    read: list[SourceTile | AerofixError | None] = []
    for i in range(start, min(start + PLACES_PER_STEP, len(source))):
        if is_closing():  # a large tile of a map without overviews takes many seconds
            break
        try:
            read.append(source.read(i))
        except SourceUnreadable:
            raise
        except AerofixError as error:
            read.append(error)
    return read
