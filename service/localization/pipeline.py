"""The main job: a photo in, a position out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from service.encoder.batcher import Batcher
from service.encoder.contract import ModelContract
from service.encoder.preprocess import preprocess
from service.geo import Circle
from service.ground.gallery import Gallery, Hit
from service.imaging.decode import Photo, PhotoFile, open_photo
from service.imaging.decoders import Decoders
from service.imaging.view import ground_width_m, kept_share, make_view
from service.localization.confidence import Verdict, accuracy_m, judge
from service.localization.glance import GLANCED
from service.localization.hints import Hints, Known, resolve
from service.localization.places import matched_error
from service.localization.refine import Fix, matched_position, weighted_position
from service.localization.rerank import Ranking, rerank, unmatched, with_others
from service.localization.scale import TileSizes, closest_side_m, levels, prefer_size
from service.settings import Settings
from service.telemetry import Stopwatch
from service.threads import Threads

# Candidates fetched from the index, however few are asked for: as many as are looked at. Tiles overlap, so the best
# dozen may all be of one place, and the confidence needs the best rival of another.
MIN_CANDIDATES = GLANCED
# Photos are decoded to at least this many pixels for each pixel of the model's input, along a side: half of them would
# do if shrinking were perfect.
DECODE_SCALE = 2


@dataclass(frozen=True)
class Position:
    """A place on the ground in degrees (WGS84), right within ``accuracy_m`` metres with 68 % probability.

    Attributes:
        heading_deg: compass direction of the photo's top edge; None when the photo was not laid on the ground.
    """

    lat: float
    lon: float
    accuracy_m: float
    confidence: float
    heading_deg: float | None = None


@dataclass(frozen=True)
class View:
    """What of the photo was compared, and with which tiles; metres, None where the photo's ground size is unknown.

    Attributes:
        photo_width_m: ground that the photo's width covers.
        side_m: side of the square of ground that was compared.
        tile_side_m: size of the tiles that were preferred.
        tile_sizes: levels among which they were chosen; 1 where there is no choice.
    """

    photo_width_m: float | None = None
    side_m: float | None = None
    tile_side_m: float | None = None
    tile_sizes: int = 1


@dataclass(frozen=True)
class Answer:
    """What one photo leads to.

    Attributes:
        verdict: status and confidences.
        position: None when the status is ``not_found``.
        hits: the candidates to show, best first; ``verdict.candidate_confidences`` starts with theirs.
        pool: all candidates that were looked at, best first, those ``near`` the asked-for circle at the end.
        known: which hints counted, and where each comes from.
        fix: how the photo lies on the ground, None when that is not known.
        local: local descriptors ``[C, h, w]`` of the compared square, None when the model has none.
        searched_tiles: tiles that the prior leaves, or all.
        timing_ms: by step, in milliseconds; ``total`` is larger than their sum by what lies between them.
    """

    verdict: Verdict
    position: Position | None
    hits: list[Hit]
    pool: Ranking
    width: int
    height: int
    known: Known
    view: View
    fix: Fix | None
    local: NDArray[np.float32] | None = field(repr=False)
    searched_tiles: int
    generation: int
    timing_ms: dict[str, float]


@dataclass(frozen=True)
class Localizer:
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

        Raises:
            AerofixError: the image, the hints or the gallery do not allow an answer; see ``service.errors``.
        """
        watch = Stopwatch()
        file, known, generation, image, view = await self._prepare(data, hints, in_line)
        watch.lap("decode")

        turned = self.contract.calibration.local.turns > 1 and known.heading_deg is None
        encoded = await self.batcher.encode(image, self.settings.deadline_s - watch.total_ms() / 1e3, turned=turned)
        watch.skip()  # the batcher notes queue and encode

        searched, hits, others = await self.matchers.run(
            self._search, encoded.embedding, top_k, known, view, near, maps
        )
        watch.lap("search")

        ranking = unmatched(hits, self.contract.calibration)
        if encoded.local is not None and hits:
            turns = encoded.local[None] if encoded.turned is None else np.vstack([encoded.local[None], encoded.turned])
            ranking = await self.matchers.run(self._rerank, turns, hits)
        watch.lap("rerank")

        verdict = judge(ranking.hits, ranking.calibration, ranking.evidence)
        position = fix = None
        if verdict.status != "not_found":
            position, fix = await self.matchers.run(self._position, ranking, verdict, known.heading_deg or 0.0, refine)
        watch.lap("refine")

        steps = watch.ms | {"queue": encoded.queue_ms, "encode": encoded.encode_ms, "total": watch.total_ms()}
        return Answer(
            verdict,
            position,
            ranking.hits[:top_k],
            with_others(ranking, others),
            file.width,
            file.height,
            known,
            view,
            fix,
            encoded.local,
            searched,
            generation,
            steps,
        )

    async def _prepare(
        self, data: bytes, hints: Hints, in_line: bool
    ) -> tuple[PhotoFile, Known, int, NDArray[np.uint8], View]:
        """The photo's file, what is known of it, the gallery's generation, the model's input and what it shows."""
        file, known, generation, view, share = await self.decoders.run(self._open, data, hints)
        useful_px = math.ceil(DECODE_SCALE * self.contract.image_size / share)

        def look(photo: Photo) -> NDArray[np.uint8]:
            return preprocess(make_view(photo, known.heading_deg, share), self.contract)

        pixels = await self.decoders.decode(file, look, useful_px, in_line=in_line)
        return file, known, generation, pixels, view

    def _open(self, data: bytes, hints: Hints) -> tuple[PhotoFile, Known, int, View, float]:
        """A photo's file, what is known of it, the gallery's generation, and what of it is compared: see ``_view``."""
        file = open_photo(data, self.settings.max_image_pixels)
        known = resolve(hints, file.pose, self.settings.exif_position_radius_m)
        generation = self.gallery.generation
        return file, known, generation, *self._view(file, known, generation)

    def _view(self, photo: PhotoFile, known: Known, generation: int) -> tuple[View, float]:
        """What of a photo is compared, and its share of the photo's shorter side."""
        if known.altitude_m is None or known.hfov_deg is None:
            return View(), 1.0
        width_m = ground_width_m(known.altitude_m, known.hfov_deg)
        short_side_m = width_m * min(photo.width, photo.height) / photo.width
        sides_m = self.sizes.sides_m(generation)
        tile_side_m = closest_side_m(sides_m, short_side_m)
        share = kept_share(short_side_m, tile_side_m)
        return View(width_m, share * short_side_m, tile_side_m, levels(sides_m)), share

    def _search(
        self,
        embedding: NDArray[np.float32],
        top_k: int,
        known: Known,
        view: View,
        near: Circle | None,
        maps: Sequence[str],
    ) -> tuple[int, list[Hit], list[Hit]]:
        """The number of tiles that were looked at, the best of them, and the others of the best ``near`` a place.

        No hits when the prior holds no tile.
        """
        count = max(top_k, MIN_CANDIDATES)

        def best(area: Circle | None) -> list[Hit]:
            found = self.gallery.find(embedding, count * view.tile_sizes, area, maps)
            if view.side_m is not None:
                found = found.take(prefer_size(*self.gallery.geometry(found), view.side_m))
            return self.gallery.hits(found)

        hits, others = best(known.prior), list[Hit]()
        if near is not None and known.prior is None:  # what the caller knows comes before what the track guesses
            known_ids = {hit.tile.id for hit in hits}
            others = [hit for hit in best(near) if hit.tile.id not in known_ids]
        return self.gallery.count(known.prior, maps), hits, others

    def _rerank(self, local: NDArray[np.float32], hits: list[Hit]) -> Ranking:
        """The candidates in their final order."""
        maps = self.gallery.local_maps(hits[:GLANCED])
        return rerank(hits, local, maps, self.contract.calibration, self.contract.resize)

    def _position(
        self, ranking: Ranking, verdict: Verdict, turned_deg: float, refine: bool
    ) -> tuple[Position, Fix | None]:
        """The best candidate's place. Only one that is laid on the ground has the accuracy fitted for those."""
        best, calibration = ranking.hits[0], self.contract.calibration
        fix = matched_position(ranking, calibration.local.min_inliers, turned_deg) if refine else None
        if fix is not None:
            error = matched_error(ranking, calibration.local)
            by_inliers = replace(ranking.calibration, sigma_tiles=error.sigma_m / best.tile.footprint.side_m)
            radius_m = accuracy_m(verdict, (fix.lat, fix.lon), best, by_inliers)
            return Position(fix.lat, fix.lon, radius_m, verdict.confidence, fix.heading_deg), fix
        temperature = calibration.refine_temperature
        place = weighted_position(ranking.hits, temperature) if refine else best.tile.footprint.centre
        return Position(*place, accuracy_m(verdict, place, best, calibration), verdict.confidence), None
