"""Imports: whole maps that become part of the ground in the background, and go on after a restart where they were.

The upload lies in a folder beside the gallery, the progress in the gallery itself: it is written in one transaction
with what it counts, so a crash at any moment neither loses anything nor adds it twice.
"""

import asyncio
import logging
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from service.errors import (
    AerofixError,
    ImportNotFound,
    MapExists,
    OutOfMemory,
    SourceUnreadable,
)
from service.ground.gallery import Gallery
from service.ground.maps import check_map_name
from service.ground.store.imports import IMPORT_ID, Ended, Import, ImportStopped, Trouble
from service.importing.builder import PASSES, Builder, Task
from service.importing.options import MapOptions
from service.importing.plan import Plan
from service.importing.troubles import defect, trouble_of
from service.maps.mosaic import Mosaic, open_mosaic
from service.threads import Shared

log = logging.getLogger(__name__)

RETRY_S = 5.0
"""An import that cannot go on is tried again after so many seconds."""

FINISH_S = 5.0
"""The pieces at hand have so many seconds when the service closes; a piece takes one or two, unless the encoder is
stuck."""


@dataclass(frozen=True)
class Progress:
    """An import, the seconds until its end if they can be told, and what it waits for, if it does."""

    job: Import
    eta_s: float | None
    waits_for: Trouble | None


@dataclass(frozen=True)
class _Pace:
    """When a run of an import began, and at how much work of its plan."""

    import_id: str
    since: float
    cost: float
    plan: Plan


class Importer:
    """Runs the gallery's imports, one after the other.

    Args:
        gallery: gets the maps.
        builder: makes them.
        folder: where uploads lie until they are imported; made if missing.
    """

    def __init__(self, gallery: Gallery, builder: Builder, folder: Path) -> None:
        self._gallery, self._builder, self._folder = gallery, builder, folder
        self._wake = asyncio.Event()
        self._closing = False
        self._worker: asyncio.Task[None] | None = None
        self._pace: _Pace | None = None
        self._waits_for: dict[str, Trouble] = {}

    async def start(self) -> None:
        """Remove what no import needs any more, and go on with those that were interrupted, if anything may change."""
        if self._gallery.read_only:
            return
        await asyncio.to_thread(self._clear)
        self._worker = asyncio.create_task(self._work(), name="importer")

    def _clear(self) -> None:
        """Remove uploads that were imported or whose import was never begun, and maps that nobody goes on with."""
        live = self._gallery.imports.live()
        if self._folder.is_dir():
            for leftover in self._folder.iterdir():
                if IMPORT_ID.fullmatch(leftover.name) and leftover.name not in {job.id for job in live}:
                    self._remove_upload(leftover.name)
        self._gallery.maps.drop_unfinished({job.map for job in live if job.map is not None})

    async def close(self) -> None:
        """Finish the pieces at hand, unless that takes long, and stop; the next start goes on."""
        self._closing = True
        self._wake.set()
        if self._worker is not None:
            await asyncio.wait([self._worker], timeout=FINISH_S)
            self._worker.cancel()
            await asyncio.wait([self._worker])

    def upload_path(self, import_id: str) -> Path:
        """Tell where to put the upload of a new import.

        Raises:
            GalleryReadOnly: nothing can be imported here.
            OSError: the folder cannot be made.
        """
        self._gallery.check_writable()
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / import_id

    async def submit(self, import_id: str, name: str, options: MapOptions) -> Progress:
        """Queue an upload that lies at its path.

        Args:
            import_id: that the path was asked for with.
            name: of the file, as its sender calls it.
            options: see ``MapOptions``.

        Raises:
            MapExists: the gallery has a map of this name, or an import is about to make one.
            AerofixError: the file is not what can be imported; see ``open_mosaic``.
        """

        def create() -> Import:
            with closing(self._open(import_id, name, options)) as mosaic:
                wanted = {**asdict(options), "map": options.map or plain(mosaic.name)}
                check_map_name(wanted["map"])
                self._check_free(MapOptions(**wanted))
                plan = self._builder.outline(mosaic, MapOptions(**wanted), name)
                job = self._gallery.imports.create(name, wanted, len(plan), import_id)
                self._gallery.imports.warn(import_id, mosaic.notes)
            return job

        await asyncio.to_thread(create)
        self._wake.set()
        return await self.get(import_id)

    async def get(self, import_id: str) -> Progress:
        """Return an import.

        Raises:
            ImportNotFound: there is none with this id.
        """
        job = await asyncio.to_thread(self._gallery.imports.get, import_id)
        if job is None:
            raise ImportNotFound(f"there is no import {import_id!r:.50}; GET /gallery/imports lists them.")
        return self._progress(job)

    async def newest(self, limit: int) -> list[Progress]:
        """List the last imports, newest first."""
        return [self._progress(job) for job in await asyncio.to_thread(self._gallery.imports.newest, limit)]

    async def cancel(self, import_id: str) -> Progress:
        """End an import; nothing is added after this returns, and what was stays, unless it was to replace a map.

        Raises:
            ImportNotFound: there is none with this id.
        """
        await self.get(import_id)
        await asyncio.to_thread(self._end, import_id, "cancelled")
        self._wake.set()
        return await self.get(import_id)

    async def delete_map(self, name: str) -> int:
        """Delete a map, and end the imports that add to it. Returns how many windows it had.

        Raises:
            MapNotFound: there is none of this name.
        """

        def delete() -> int:
            known = self._gallery.maps.get(name)
            windows = self._gallery.maps.windows(known)
            for job in self._gallery.imports.live():
                if job.map == known.number:
                    self._end(job.id, "cancelled")  # which deletes a map without windows
            self._gallery.maps.delete(known.number)
            return windows

        deleted = await asyncio.to_thread(delete)
        self._wake.set()
        return deleted

    def _progress(self, job: Import) -> Progress:
        eta_s, pace = None, self._pace
        if job.state == "running" and pace is not None and pace.import_id == job.id:
            done = pace.plan.cost(job.done) - pace.cost
            left = pace.plan.cost(len(pace.plan)) - pace.plan.cost(job.done)
            eta_s = (time.monotonic() - pace.since) / done * left if done > 0 else None
        return Progress(job, eta_s, self._waits_for.get(job.id) if job.is_live else None)

    async def _work(self) -> None:
        while not self._closing:
            self._wake.clear()
            live: list[Import] = []
            try:
                live = await asyncio.to_thread(self._gallery.imports.live)
                if live:
                    why = await self._run(live[0])
                    if not (self._closing and why is None and await self._is_unfinished(live[0])):
                        await asyncio.to_thread(self._end, live[0].id, "failed" if why else "done", why)
                else:
                    await self._wake.wait()
            except ImportStopped:
                continue
            except PASSES as error:
                log.warning("imports wait: %s", error.detail)
                self._waits_for = {job.id: trouble_of(error) for job in live}
                await self._pause(RETRY_S)

    async def _run(self, job: Import) -> Trouble | None:
        """Import what is left of a source. Returns why it ended early, None at its end or when the service stops."""
        imports, options = self._gallery.imports, MapOptions(**job.options)
        try:
            await asyncio.to_thread(imports.start, job.id)
            with closing(Shared(await asyncio.to_thread(self._open, job.id, job.name, options))) as source:
                task = await source.use(partial(self._builder.begin, job, options))
                self._pace = _Pace(job.id, time.monotonic(), task.plan.cost(task.done), task.plan)
                await self._builder.build(
                    task, source, lambda: self._closing, partial(self._waits_for.pop, job.id, None)
                )
                await asyncio.to_thread(imports.warn, job.id, source.thing.notes)
            if not self._closing or not await self._is_unfinished(job):
                await asyncio.to_thread(self._finish, task)
        except (ImportStopped, *PASSES):
            raise
        except AerofixError as error:
            return trouble_of(error)
        except MemoryError:
            log.exception("import %s failed", job.id)
            return trouble_of(OutOfMemory("there is not enough memory for this map; give the service more."))
        except Exception:
            log.exception("import %s failed", job.id)
            return defect()
        finally:
            await asyncio.to_thread(imports.outlived, job.id)
        return None

    async def _is_unfinished(self, job: Import) -> bool:
        current = await asyncio.to_thread(self._gallery.imports.get, job.id)
        return current is not None and current.done < current.total

    def _finish(self, task: Task) -> None:
        """Say what was left out, and let the map be searched.

        Raises:
            SourceUnreadable: there is nothing in it to be found.
        """
        job = self._gallery.imports.get(task.import_id)
        if job is None:
            return
        left_out = f"{job.skipped} of {task.plan.windows} windows were left out"
        why = f"{job.skipped - job.flat} are mostly empty and {job.flat} of a single colour"
        if job.added + job.updated == 0 and not job.failed and not job.flat:
            raise SourceUnreadable(
                f"{job.name} shows too little ground in one piece: {left_out}, because each is mostly empty. The "
                f"smallest are {self._builder.smallest_m(task):.0f} m wide; use a map that shows as much."
            )
        if job.added + job.updated == 0 and not job.failed:
            raise SourceUnreadable(
                f"{job.name} shows nothing that a photo could be told by: {left_out} ({why}). Check that it is the "
                "right file, and that its values are stretched to what can be seen."
            )
        if job.flat:
            self._gallery.imports.warn(job.id, [f"{left_out} ({why}); no photo is found there."])
        self._gallery.maps.finish(task.number)

    def _end(self, import_id: str, state: Ended, why: Trouble | None = None) -> None:
        """Note the end of an import, and remove what it leaves that is of no use."""
        job = self._gallery.imports.get(import_id)
        if job is None or not self._gallery.imports.finish(import_id, state, why):
            return
        known = None if job.map is None else self._gallery.maps.by_number(job.map)
        if known is not None and (not known.live or self._gallery.maps.windows(known) == 0):
            self._gallery.maps.delete(known.number)
        self._remove_upload(import_id)

    def _check_free(self, options: MapOptions) -> None:
        """Refuse a name that is taken.

        Raises:
            MapExists: as said.
        """
        if options.replace or options.extend:
            return
        how = "Give another name with --map (form field: map), or --replace or --extend it (replace, extend)."
        for job in self._gallery.imports.live():
            if job.options["map"] == options.map:
                raise MapExists(
                    f"an import that makes the map {options.map!r} is under way: {job.id}. {how}", import_id=job.id
                )
        if self._gallery.maps.find(options.map or "") is not None:
            raise MapExists(f"the gallery has a map {options.map!r} already. {how}")

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

    def _open(self, import_id: str, name: str, options: MapOptions) -> Mosaic:
        path = self._folder / import_id
        if not path.exists():
            raise SourceUnreadable(f"the upload of {name} is gone from the imports folder; send it again.")
        return open_mosaic(path, name=name, scheme=options.scheme)


def plain(name: str) -> str:
    """Return a suggested name, as one that a map may have."""
    return name.replace("/", "_").replace("\\", "_").strip()[:100].strip()
