"""The main job: a photo in, a position out."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.camera.look import Look
from service.camera.pinhole import apply, corners
from service.encoder.batcher import Batcher, Encoded
from service.encoder.contract import ModelContract
from service.encoder.preprocess import preprocess
from service.geo import Circle
from service.ground.gallery import Gallery
from service.ground.records import Hit
from service.ground.search import Found
from service.imaging.decode import Photo, PhotoFile, open_photo
from service.imaging.decoders import Decoders
from service.imaging.view import make_view, shrunk
from service.localization.answer import Answer, Position, View, Whereabouts
from service.localization.confidence import Verdict, accuracy_m, radius_m
from service.localization.disputes import disputes
from service.localization.glance import GLANCED
from service.localization.hints import Hints, Known, SentLens, resolve
from service.localization.looks import Effort, PlannedLook, plan_looks
from service.localization.overlay import MOST_WINDOWS, lay_over, plan_overlays
from service.localization.places import matched_error
from service.localization.placing import Over
from service.localization.refine import Fix, footprint_of, matched_position, weighted_position
from service.localization.rematch import Again, match_again, worth_a_second
from service.localization.rerank import (
    FEW,
    LATER,
    MANY,
    Amount,
    Ranking,
    Seen,
    joined,
    rerank,
    unmatched,
    verdict_of,
    with_others,
)
from service.localization.scale import TileSizes, first_of_levels, fitting_side_m, levels, prefer_size
from service.localization.terrain import Terrain, elevation_at, ground_m
from service.localization.whereabouts import NO_MATCH, find_camera
from service.settings import Settings
from service.telemetry import Stopwatch
from service.threads import Threads

# Candidates fetched from the index, however few are asked for: as many as are looked at. Tiles overlap, so the best
# dozen may all be of one place, and the confidence needs the best rival of another.
MIN_CANDIDATES = GLANCED
# Photos are decoded to at least this many pixels for each pixel of the model's input, along a side: half of them would
# do if shrinking were perfect.
DECODE_SCALE = 2
# Shorter side of the copy of a photo that waits for further looks: 3 MB at the most for photos of 16:9.
KEPT_PX = 720
SHORT = 3  # so many looks, the second and third in one batch, before all that are left share another
TIME_SHARE = 0.7  # of the deadline, after which nothing further is tried


@dataclass(frozen=True, eq=False)
class _Job:
    """A photo whose header is read, and the looks that it will be given."""

    file: PhotoFile
    known: Known
    generation: int
    plans: list[PlannedLook]
    first: Look
    view: View

    @property
    def aspect(self) -> float:
        return self.file.height / self.file.width


@dataclass(frozen=True)
class PhotoLocalizer:
    """Answers where a photo was taken; holds what all requests share."""

    contract: ModelContract
    batcher: Batcher
    gallery: Gallery
    settings: Settings
    decoders: Decoders
    matchers: Threads

    @cached_property
    def sizes(self) -> TileSizes:
        """The tile sizes of the gallery."""
        return TileSizes(self.gallery)

    async def localize(
        self,
        data: bytes,
        hints: Hints,
        top_k: int = 5,
        refine: bool = True,
        near: Circle | None = None,
        in_line: bool = False,
        maps: Sequence[str] = (),
        effort: Effort = "normal",
        lens: SentLens | None = None,
    ) -> Answer:
        """Localize one photo.

        Args:
            data: the image file.
            hints: see ``Hints``.
            top_k: candidates to return; at least ``MIN_CANDIDATES`` are looked at.
            refine: lay the photo on the ground, or weigh neighbouring tiles; else the best tile's centre.
            near: put the best tiles in this circle into the pool too; they have no part in the answer itself.
            in_line: see ``Decoders.decode``.
            maps: names of the maps to search; none given: all of the gallery.
            effort: how many looks it may take while the answer is unsure.
            lens: what earlier photos of the flight tell of the lens.

        Raises:
            AerofixError: the image, the hints or the gallery do not allow an answer; see ``service.errors``.
        """
        watch = Stopwatch()
        job = await self.decoders.run(self._open, data, hints, effort, maps, lens)
        image, pixels = await self._decode(job, in_line)
        watch.lap("decode")

        search, calibration = _Search(top_k, job.known.prior, maps), self.contract.calibration
        encoded = (await self._encode([pixels], [job.plans[0]], watch))[0]
        searched, hits, others = await self._find(search, job.plans[0], job.first, encoded.embedding, watch, near)
        first, looks = encoded.local, 1
        seen = _seen(job.plans[0], job.first, encoded, 0, calibration.local.turns)
        ranking, verdict = await self._match(hits, seen, FEW, watch), None
        if ranking.is_proven(calibration) or not ranking.was_matched:
            ranking, verdict = await self._confirm(ranking, image, watch)
        if verdict is None or (ranking.was_matched and not ranking.is_sure(calibration)):
            more = await self._match(hits, seen, MANY, watch, done=ranking)
            ranking, verdict = await self._confirm(joined(ranking, more, calibration), image, watch)
        if verdict.status != "located" and ranking.was_matched and len(job.plans) > 1 and self._has_time(watch):
            laid = await self._lay_over(search, job, encoded.embedding, image, watch)
            if laid is not None:
                ranking = joined(ranking, laid, calibration)
                verdict = verdict_of(ranking, calibration)
        while verdict.status != "located" and looks < len(job.plans) and first is not None and ranking.hits:
            if not self._has_time(watch):
                break
            for more in await self._further(search, job, looks, image, watch):
                ranking, looks = joined(ranking, more, calibration), looks + 1
            ranking, verdict = await self._confirm(ranking, image, watch)

        best, fix = await self.matchers.run(self._position, ranking, verdict, refine)
        position = None if verdict.status == "not_found" else best
        fix = None if position is None else fix
        disputed, whereabouts = await self.matchers.run(self._whereabouts, job, fix, verdict)
        watch.lap("refine")

        right_m, up_m = (0j, 0j) if fix is None else fix.steps_m(job.first)
        return Answer(
            verdict=verdict,
            position=position,
            place=None if best is None else (best.lat, best.lon),
            whereabouts=whereabouts,
            hits=ranking.hits[:top_k],
            pool=with_others(ranking, others),
            width=job.file.width,
            height=job.file.height,
            known=job.known,
            disputed=disputed,
            looks=looks,
            view=job.view,
            fix=fix,
            local=first,
            step_right_m=right_m,
            step_up_m=up_m,
            searched_tiles=searched,
            generation=job.generation,
            timing_ms=watch.ms | {"total": watch.total_ms()},
        )

    # the photo

    def _open(self, data: bytes, hints: Hints, effort: Effort, maps: Sequence[str], lens: SentLens | None) -> _Job:
        """Read a photo's header, and decide what is looked at."""
        file = open_photo(data, self.settings.max_image_pixels)
        above_sea_m = file.pose.gps_altitude_m
        if hints.ground_elevation_m is None and above_sea_m is not None:
            hints = replace(hints, ground_elevation_m=ground_m(self.gallery, maps, hints.prior, above_sea_m))
        known = resolve(hints, file.pose, self.settings.exif_position_radius_m)
        known = known if lens is None else known.with_lens(lens)
        generation, aspect = self.gallery.generation, file.height / file.width
        plans = plan_looks(known.camera, effort)
        largest_m = self._largest_m(plans[0], aspect, generation)
        look = plans[0].look(aspect, largest_m)
        return _Job(file, known, generation, plans, look, View.of(plans[0], look, aspect, largest_m))

    def _largest_m(self, plan: PlannedLook, aspect: float, generation: int) -> float | None:
        """Side of the windows that are nearest to what a look shows; None when its size is not known."""
        side_m = plan.side_m(plan.look(aspect))
        return None if side_m is None else fitting_side_m(self.sizes.sides_m(generation), side_m)

    async def _decode(self, job: _Job, in_line: bool) -> tuple[Image.Image, NDArray[np.uint8]]:
        """A copy of the photo for further looks, and the model's input for the first."""
        across = apply(job.first.to_photo, np.array([-0.05 + 0j, 0.05 + 0j]))
        share = float(abs(across[1] - across[0])) / 0.1 / min(1.0, job.aspect)
        useful_px = math.ceil(DECODE_SCALE * self.contract.image_size / min(1.0, max(1e-3, share)))

        def look(photo: Photo) -> tuple[Image.Image, NDArray[np.uint8]]:
            square = preprocess(make_view(photo.image, job.first), self.contract)
            return shrunk(photo.image, KEPT_PX), square

        return await self.decoders.decode(job.file, look, useful_px, in_line=in_line)

    async def _draw(self, image: Image.Image, looks: list[Look]) -> list[NDArray[np.uint8]]:
        """The model's input for each look."""

        def draw(look: Look) -> NDArray[np.uint8]:
            return preprocess(make_view(image, look), self.contract)

        return await asyncio.gather(*(self.matchers.run(draw, look) for look in looks))

    async def _encode(
        self, squares: list[NDArray[np.uint8]], plans: list[PlannedLook], watch: Stopwatch
    ) -> list[Encoded]:
        """Encode squares in one batch; in quarter turns where the heading is not known."""
        left_s = self.settings.deadline_s - watch.total_ms() / 1e3
        turns = self.contract.calibration.local.turns > 1
        watch.skip()  # the batcher notes queue and encode
        encoded = await asyncio.gather(
            *(
                self.batcher.encode(square, left_s, turned=turns and not plan.heading_known)
                for square, plan in zip(squares, plans, strict=True)
            )
        )
        for name in ("queue", "encode"):
            watch.ms[name] = watch.ms.get(name, 0.0) + max(getattr(each, f"{name}_ms") for each in encoded)
        watch.skip()
        return encoded

    # the places

    async def _further(
        self, search: "_Search", job: _Job, looks: int, image: Image.Image, watch: Stopwatch
    ) -> list[Ranking]:
        """What the next looks find, after so many; they share a batch."""
        plans = job.plans[looks:SHORT] or job.plans[looks:]
        flat = [plan.look(job.aspect, self._largest_m(plan, job.aspect, job.generation)) for plan in plans]
        encoded = await self._encode(await self._draw(image, flat), plans, watch)

        async def find(number: int, plan: PlannedLook, look: Look, each: Encoded) -> Ranking:
            _, hits, _ = await self._find(search, plan, look, each.embedding, watch)
            seen = _seen(plan, look, each, number, self.contract.calibration.local.turns)
            return await self._match(hits, seen, LATER, watch)

        return await asyncio.gather(*map(find, range(looks, len(job.plans)), plans, flat, encoded))

    async def _find(
        self,
        search: "_Search",
        plan: PlannedLook,
        look: Look,
        embedding: NDArray[np.float32],
        watch: Stopwatch,
        near: Circle | None = None,
    ) -> tuple[int, list[Hit], list[Hit]]:
        """Search under one look: how many tiles were searched, candidates, and others ``near`` a place."""
        found = await self.matchers.run(self._search, embedding, search, plan.side_m(look), near)
        watch.lap("search")
        return found

    async def _match(
        self, hits: list[Hit], seen: Seen | None, amount: Amount, watch: Stopwatch, done: Ranking | None = None
    ) -> Ranking:
        """The candidates in their order under one look; as the search has ordered them where none can be matched."""
        calibration = self.contract.calibration
        if seen is None or not hits:
            return unmatched(hits, calibration)
        maps = self.gallery.local_maps
        ranking = await self.matchers.run(rerank, hits, seen, maps, calibration, self.contract.resize, amount, done)
        watch.lap("rerank")
        return ranking

    def _search(
        self, embedding: NDArray[np.float32], search: "_Search", side_m: float | None, near: Circle | None
    ) -> tuple[int, list[Hit], list[Hit]]:
        """The number of tiles that were looked at, the best of them, and the others of the best ``near`` a place.

        No hits when the prior holds no tile.
        """
        count = max(search.top_k, MIN_CANDIDATES) * levels(self.sizes.sides_m(self.gallery.generation))

        def best(area: Circle | None) -> list[Hit]:
            found = self.gallery.find(embedding, count, area, search.maps)
            found = found if side_m is None else self._of_size(found, side_m)
            sides_m = self.gallery.geometry(found)[1]
            return self.gallery.hits(found.take(first_of_levels(sides_m, MIN_CANDIDATES, search.top_k)))

        hits, others = best(search.prior), list[Hit]()
        if near is not None and search.prior is None:  # what the caller knows comes before what the track guesses
            known_ids = {hit.tile.id for hit in hits}
            others = [hit for hit in best(near) if hit.tile.id not in known_ids]
        return self.gallery.count(search.prior, search.maps), hits, others

    def _of_size(self, found: Found, side_m: float) -> Found:
        """What shows the ground about as large as the photo does."""
        nearest_m = self.gallery.nearest_sides_m(found, side_m)
        return found.take(prefer_size(*self.gallery.geometry(found), nearest_m, side_m))

    async def _lay_over(
        self, search: "_Search", job: _Job, embedding: NDArray[np.float32], image: Image.Image, watch: Stopwatch
    ) -> Ranking | None:
        """Where a photo lies as a whole; None where its heading or its size is not known."""
        plan, calibration = job.plans[0], self.contract.calibration

        def plan_it() -> list[Over]:
            found = self.gallery.find(embedding, MOST_WINDOWS, search.prior, search.maps)
            return plan_overlays(plan, job.aspect, self.gallery, found)

        overs = await self.matchers.run(plan_it)
        if not overs:
            return None
        local = await self._describe(image, [over.look for over in overs], watch)
        return await self.matchers.run(lay_over, overs, local, self.gallery, calibration, search.prior)

    def _has_time(self, watch: Stopwatch) -> bool:
        return watch.total_ms() / 1e3 <= TIME_SHARE * self.settings.deadline_s

    async def _describe(self, image: Image.Image, looks: list[Look], watch: Stopwatch) -> list[NDArray[np.float32]]:
        """The descriptors of a photo under some looks."""
        squares, left_s = await self._draw(image, looks), self.settings.deadline_s - watch.total_ms() / 1e3
        encoded = await asyncio.gather(*(self.batcher.encode(square, left_s, whole=False) for square in squares))
        return [each.local for each in encoded if each.local is not None]

    async def _confirm(self, ranking: Ranking, image: Image.Image, watch: Stopwatch) -> tuple[Ranking, Verdict]:
        """Match the best places again, and judge."""
        calibration = self.contract.calibration
        again: list[Again] = worth_a_second(ranking, calibration)
        if again:
            local = await self._describe(image, [each.look for each in again], watch)
            ranking = await self.matchers.run(
                match_again, ranking, again, local, self.gallery, calibration, self.contract.resize
            )
        verdict = verdict_of(ranking, calibration)
        watch.lap("rerank")
        return ranking, verdict

    # the answer

    def _position(self, ranking: Ranking, verdict: Verdict, refine: bool) -> tuple[Position | None, Fix | None]:
        """The best candidate's place. Only one that is laid on the ground has the accuracy fitted for those."""
        if not ranking.hits:
            return None, None
        best, calibration = ranking.hits[0], self.contract.calibration
        fix = matched_position(ranking, calibration.local.min_inliers) if refine else None
        if fix is not None:
            side_m = best.tile.footprint.side_m
            sigma_m = matched_error(fix, side_m, calibration.local).sigma_m
            by_matches = replace(ranking.calibration, sigma_tiles=sigma_m / side_m)
            radius = accuracy_m(verdict, (fix.lat, fix.lon), best, by_matches)
            return Position(fix.lat, fix.lon, radius, verdict.confidence, sigma_m, fix.heading_deg), fix
        temperature = calibration.refine_temperature
        place = weighted_position(ranking.hits, temperature) if refine else best.tile.footprint.centre
        sigma_m = calibration.sigma_tiles * best.tile.footprint.side_m
        return Position(*place, accuracy_m(verdict, place, best, calibration), verdict.confidence, sigma_m), None

    def _whereabouts(self, job: _Job, fix: Fix | None, verdict: Verdict) -> tuple[dict[str, str], Whereabouts]:
        """Which hints are disputed, and where the camera was. Only a place that is sure contradicts anybody."""
        if fix is None:
            return {}, Whereabouts(missing=NO_MATCH)
        plan, said = job.plans[fix.seen.plan], job.known.camera
        disputed = disputes(fix, said, plan.pitch_deg, job.aspect) if verdict.status == "located" else {}
        believed = said.without(*("height_m" if name == "altitude_m" else name for name in disputed))
        terrain = Terrain.around(fix, elevation_at(self.gallery, fix.lat, fix.lon))
        camera, missing = find_camera(fix, believed, plan.pitch_deg, job.aspect, terrain)
        shape = footprint_of(fix, corners(job.aspect))
        if terrain and camera and camera.hfov_deg and camera.height_m:
            shape = terrain.footprint(camera, camera.height_m, camera.hfov_deg, job.aspect)
        accuracy = None if camera is None else radius_m(camera.sigma_m, verdict.confidence)
        return disputed, Whereabouts(camera, accuracy, missing, shape)


@dataclass(frozen=True)
class _Search:
    """What is searched: at least ``top_k``, in a circle and in some maps."""

    top_k: int
    prior: Circle | None
    maps: Sequence[str]


def _seen(plan: PlannedLook, look: Look, encoded: Encoded, number: int, turns: int) -> Seen | None:
    """The photo under one look; None when the model gives no descriptors."""
    if encoded.local is None:
        return None
    local = encoded.local[None] if encoded.turned is None else np.vstack([encoded.local[None], encoded.turned])
    return Seen(look, local, number, plan.within_deg(turns), plan.sides_m(look))
