"""Builds maps: reads, embeds and stores the pieces of a plan, several at a time."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from service.encoder.batcher import Batcher, Encoded
from service.encoder.contract import ModelContract
from service.errors import AerofixError, GalleryUnusable, MapExists, NotReady, Overloaded, StorageFull
from service.geo import union_bounds
from service.ground.blocks import middle
from service.ground.gallery import Gallery
from service.ground.local_maps import to_int8
from service.ground.maps import GroundMap, NewMap
from service.ground.pyramid import Cutter
from service.ground.store.imports import Import, Step
from service.importing.build import Cut, Windows, cut_windows, read_tiles, shrink_tiles
from service.importing.options import MapOptions
from service.importing.plan import Plan, PlanPiece, new_map
from service.importing.troubles import trouble_of
from service.maps.mosaic import Mosaic
from service.threads import Shared

PIECES_AT_ONCE = 6
"""So many pieces are under way, of tiles and of windows: those of one are embedded, and those of the next wait for the
encoder, while others are read and stored."""

PASSES = (StorageFull, GalleryUnusable, NotReady)
"""Errors of these kinds have nothing to do with the source: the import waits until somebody frees space or restarts the
encoder."""

PATIENCE_S = 0.5
"""A window that found no place in the encoder's queue is tried again after so many seconds."""


@dataclass(frozen=True)
class Task:
    """An import that is under way.

    Attributes:
        import_id: of the import.
        number: of the map that it makes.
        plan: what there is to do.
        done: places of the plan that were done before this run.
        overlap: see ``MapOptions``.
        extends: whether the map was there before.
        resumes: whether an earlier run did not come to its end.
    """

    import_id: str
    number: int
    plan: Plan
    done: int
    overlap: bool
    extends: bool
    resumes: bool


@dataclass(frozen=True, eq=False)
class Pixels:
    """The stored pixels of a map: as they were ``before`` the source is read, and as they are ``now``."""

    before: Cutter
    now: Cutter


class _Stored:
    """How many places of a plan are stored, for those who need some of them."""

    def __init__(self, done: int) -> None:
        self._done = done
        self._changed = asyncio.Condition()

    async def reaches(self, places: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._done >= places)

    async def advance(self, places: int) -> None:
        async with self._changed:
            self._done = places
            self._changed.notify_all()


@dataclass(frozen=True)
class Builder:
    """Builds maps; holds what all imports share."""

    contract: ModelContract
    batcher: Batcher
    gallery: Gallery

    def outline(self, mosaic: Mosaic, options: MapOptions, origin: str) -> Plan:
        """Return the plan of a new import from a file of the name ``origin``.

        Raises:
            InvalidParameter: windows of the wanted sizes cannot be made.
        """
        return self._plan(mosaic, self._known(options) or new_map(self.gallery.lattice, mosaic, options, origin))

    def begin(self, job: Import, options: MapOptions, mosaic: Mosaic) -> Task:
        """Make the map of an import or, after a restart, go on with it.

        Raises:
            ImportStopped: it was cancelled.
            MapExists: meanwhile another has taken its name.
        """
        maps = self.gallery.maps
        known = None if job.map is None else maps.by_number(job.map)
        if known is None:
            there = maps.find(str(options.map))
            if there is not None and options.extend:
                bounds = union_bounds(np.array([there.bounds, mosaic.bounds]))
                known = maps.grow(there, bounds, job.id)
            elif there is not None and not options.replace:
                raise MapExists(f"the gallery has a map {options.map!r} already; give another name with --map.")
            else:
                known = maps.create(new_map(self.gallery.lattice, mosaic, options, job.name), there is None, job.id)
        plan = self._plan(mosaic, known)
        self.gallery.imports.begin(job.id, len(plan))
        done = job.done if len(plan) == job.total else 0
        return Task(job.id, known.number, plan, done, known.overlap, options.extend, job.state == "running")

    def smallest_m(self, task: Task) -> float:
        """Return the side of the smallest windows of a task's map, metres."""
        known = self.gallery.maps.by_number(task.number)
        return 0.0 if known is None else self.gallery.lattice.side_m(max(known.levels), known.lat)

    async def build(
        self, task: Task, source: Shared[Mosaic], is_closing: Callable[[], bool], on_step: Callable[[], object]
    ) -> None:
        """Do what is left of a task: pieces are made while others are embedded. Ends early when the service closes.

        After an interruption the pieces that were under way go one by one: should one of them have ended the process,
        all before it are stored this time, and it is known.
        """
        reading = asyncio.Lock()  # one at a time, in order
        stored = _Stored(task.done)
        pixels = Pixels(*(self.gallery.maps.cutter(task.number) for _ in range(2)))

        async def prepare(piece: PlanPiece) -> Callable[[], None] | None:
            async with reading:
                await stored.reaches(piece.needs)
                if is_closing():
                    return None
                made = await source.use(partial(self._make, task, piece, pixels))
            if not isinstance(made, Windows):
                return partial(self.gallery.maps.put_tiles, made, Step(task.import_id, piece.end))
            encoded = await asyncio.gather(*map(self._encode, made.cuts))
            return partial(self._put_windows, task, piece, made, encoded)

        waiting = iter(task.plan.after(task.done))
        ahead: deque[tuple[PlanPiece, asyncio.Task[Callable[[], None] | None]]] = deque()

        def go_on(count: int) -> None:
            ahead.extend((piece, asyncio.create_task(prepare(piece))) for piece in islice(waiting, count))

        careful = PIECES_AT_ONCE if task.resumes else 0
        go_on(1 if careful else PIECES_AT_ONCE)
        try:
            while ahead:
                piece, prepared = ahead.popleft()
                store = await prepared
                if store is None:
                    return
                careful = max(0, careful - 1)
                if not careful:
                    go_on(PIECES_AT_ONCE - len(ahead))
                await asyncio.to_thread(store)
                await stored.advance(piece.end)
                on_step()
                if careful:
                    go_on(1)
        finally:
            for _, unfinished in ahead:
                unfinished.cancel()
            await asyncio.gather(*(unfinished for _, unfinished in ahead), return_exceptions=True)

    def _make(self, task: Task, piece: PlanPiece, pixels: Pixels, mosaic: Mosaic) -> dict[int, bytes] | Windows:
        """What a thread can do for a piece: tiles as they are stored, or windows to be embedded."""
        if piece.kind == "read":
            return read_tiles(mosaic, piece, task.number, pixels.before if task.extends else None)
        if piece.kind == "shrink":
            return shrink_tiles(piece, task.number, pixels.now)
        has_local = self.contract.local_shape is not None
        return cut_windows(piece, task.number, pixels.now, self.gallery.lattice, task.overlap, has_local)

    def _put_windows(
        self, task: Task, piece: PlanPiece, windows: Windows, encoded: Sequence[Encoded | AerofixError]
    ) -> None:
        """Store the windows of a piece."""
        ids: list[int] = []
        embeddings, blocks, troubles = [], {}, []
        for cut, each in zip(windows.cuts, encoded, strict=True):
            if isinstance(each, AerofixError):
                troubles.append(trouble_of(each, f"window {cut.key}"))
                continue
            if cut.searched:
                ids.append(cut.key)
                embeddings.append(each.embedding)
            if cut.described and each.local is not None:
                blocks[cut.key] = middle(to_int8(each.local))
        step = Step(task.import_id, piece.end, windows.empty + windows.flat, windows.flat, troubles)
        self.gallery.maps.put_windows(task.number, np.array(ids, np.int64), embeddings, blocks, step)

    async def _encode(self, cut: Cut) -> Encoded | AerofixError:
        """Features of a window, or what is wrong with it; waits while photos need the encoder: they go first."""
        while True:
            try:
                return await self.batcher.encode(cut.pixels, None)
            except Overloaded:
                await asyncio.sleep(PATIENCE_S)
            except PASSES:
                raise
            except AerofixError as error:
                return error

    def _known(self, options: MapOptions) -> GroundMap | None:
        """The map that an import extends, if it is there."""
        return self.gallery.maps.find(str(options.map)) if options.extend else None

    def _plan(self, mosaic: Mosaic, known: NewMap) -> Plan:
        return Plan(self.gallery.lattice, mosaic.bounds, known.levels, known.min_zoom, known.max_zoom)
