"""The main job: a photo in, a position out."""

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.encoder.batcher import Batcher
from service.encoder.contract import ModelContract
from service.encoder.preprocess import preprocess
from service.gallery.gallery import Gallery, Hit
from service.geo import Circle
from service.imaging.decode import Photo, decode
from service.imaging.view import ground_width_m, make_view
from service.localization.confidence import Verdict, accuracy_m, judge
from service.localization.hints import Hints, Known, Source, resolve
from service.localization.refine import matched_position, weighted_position
from service.localization.rerank import MATCHED, Ranking, rerank, unmatched
from service.settings import Settings
from service.telemetry import Stopwatch

# Candidates fetched from the index, however few are asked for: tiles overlap, so the best dozen may all be of one
# place, and the confidence needs the best rival of another.
MIN_CANDIDATES = 64
# Photos are decoded to at least this many times the model's input size: the view may be cropped to a part of them.
DECODE_SCALE = 4


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
class Answer:
    """What one photo leads to.

    Attributes:
        verdict: status and confidences.
        position: None when the status is ``not_found``.
        hits: the candidates to show, best first; ``verdict.candidate_confidences`` starts with theirs.
        used: which hints counted, and where each comes from.
        searched_tiles: tiles that the prior leaves, or all.
        timing_ms: by step, in milliseconds; ``total`` is larger than their sum by what lies between them.
    """

    verdict: Verdict
    position: Position | None
    hits: list[Hit]
    width: int
    height: int
    used: dict[str, Source]
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

    async def localize(self, data: bytes, hints: Hints, top_k: int = 5, refine: bool = True) -> Answer:
        """Localize one photo.

        Args:
            data: the image file.
            hints: see ``Hints``.
            top_k: candidates to return; at least ``MIN_CANDIDATES`` are looked at.
            refine: lay the photo on the ground, or weigh neighbouring tiles; else the best tile's centre.

        Raises:
            AerofixError: the image, the hints or the gallery do not allow an answer; see ``service.errors``.
        """
        watch = Stopwatch()
        useful_side_px = DECODE_SCALE * self.contract.image_size
        photo = await asyncio.to_thread(decode, data, self.settings.max_image_pixels, useful_side_px)
        known = resolve(hints, photo.pose, self.settings.exif_position_radius_m)
        info = await asyncio.to_thread(self.gallery.info)
        image = await asyncio.to_thread(self._view, photo, known, info.tile_side_m)
        watch.lap("decode")

        encoded = await self.batcher.encode(image, self.settings.deadline_s - watch.total_ms() / 1e3)
        watch.skip()  # the batcher notes queue and encode

        searched, hits = await asyncio.to_thread(self._search, encoded.embedding, top_k, known.prior)
        watch.lap("search")

        ranking = unmatched(hits, self.contract.calibration)
        if encoded.local is not None and hits:
            ranking = await asyncio.to_thread(self._rerank, encoded.local, hits)
        watch.lap("rerank")

        verdict = judge(ranking.hits, ranking.calibration, ranking.evidence)
        position = None
        if verdict.status != "not_found":
            position = await asyncio.to_thread(self._position, ranking, verdict, known.heading_deg or 0.0, refine)
        watch.lap("refine")

        steps = watch.ms | {"queue": encoded.queue_ms, "encode": encoded.encode_ms, "total": watch.total_ms()}
        return Answer(
            verdict,
            position,
            ranking.hits[:top_k],
            photo.width,
            photo.height,
            known.used,
            searched,
            info.generation,
            steps,
        )

    def _view(self, photo: Photo, known: Known, tile_side_m: float | None) -> NDArray[np.uint8]:
        width_m = None
        if known.altitude_m is not None and known.hfov_deg is not None:
            width_m = ground_width_m(known.altitude_m, known.hfov_deg)
        return preprocess(make_view(photo, known.heading_deg, width_m, tile_side_m), self.contract)

    def _search(self, embedding: NDArray[np.float32], top_k: int, area: Circle | None) -> tuple[int, list[Hit]]:
        """The tiles that were looked at, and the best of them; none when the prior holds no tile."""
        hits = self.gallery.search(embedding[None], max(top_k, MIN_CANDIDATES), area)[0]
        return self.gallery.count(area), hits

    def _rerank(self, local: NDArray[np.float32], hits: list[Hit]) -> Ranking:
        """The candidates in their final order."""
        maps = self.gallery.local_maps([hit.tile.id for hit in hits[:MATCHED]])
        return rerank(hits, local, maps, self.contract.calibration, self.contract.resize)

    def _position(self, ranking: Ranking, verdict: Verdict, turned_deg: float, refine: bool) -> Position:
        """The best candidate's place. Only one that is laid on the ground has the accuracy fitted for those."""
        best, calibration = ranking.hits[0], self.contract.calibration
        fix = matched_position(ranking, calibration.local.min_inliers, turned_deg) if refine else None
        if fix is not None:
            radius_m = accuracy_m(verdict, (fix.lat, fix.lon), best, ranking.calibration)
            return Position(fix.lat, fix.lon, radius_m, verdict.confidence, fix.heading_deg)
        temperature = calibration.refine_temperature
        place = weighted_position(ranking.hits, temperature) if refine else best.tile.footprint.centre
        return Position(*place, accuracy_m(verdict, place, best, calibration), verdict.confidence)
