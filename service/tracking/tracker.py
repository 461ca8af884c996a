"""The next photo of a flight: localize it with the track's help, and take what it shows into the track."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from service.encoder.calibration import Calibration
from service.errors import MissingParameter
from service.geo import Circle, offset_m
from service.ground.records import GalleryInfo
from service.imaging.decode import open_photo
from service.localization.answer import Answer
from service.localization.hints import Hints
from service.localization.looks import Effort
from service.localization.pipeline import PhotoLocalizer
from service.localization.places import CameraFix, Place, matched_error, places
from service.tracking.flight import lens_and_camera
from service.tracking.history import Use
from service.tracking.odometry import Sight, shift_between
from service.tracking.store import TrackStore
from service.tracking.track import Track, Trust


@dataclass(frozen=True)
class TrackedPhoto:
    """A photo's own answer, and what became of it in the track."""

    answer: Answer
    use: Use
    place: Place | None


@dataclass(frozen=True)
class Tracker:
    """Follows flights; holds what all requests share."""

    localizer: PhotoLocalizer
    store: TrackStore

    async def localize(
        self,
        track: Track,
        data: bytes,
        hints: Hints,
        timestamp_s: float | None = None,
        top_k: int = 5,
        refine: bool = True,
        maps: Sequence[str] = (),
        effort: Effort = "normal",
    ) -> TrackedPhoto:
        """Localize the next photo of a track. A photo that cannot be localized leaves the track as it was.

        Args:
            track: whose turn it is, see ``TrackStore.turn``.
            data: the image file.
            hints: see ``Hints``.
            timestamp_s: when it was taken, later than the photo before; None: as its metadata has it, if hints allow.
            top_k: see ``PhotoLocalizer.localize``.
            refine: see ``PhotoLocalizer.localize``.
            maps: see ``PhotoLocalizer.localize``.
            effort: see ``PhotoLocalizer.localize``.

        Raises:
            MissingParameter: no time is given, and the photo has none.
            InvalidParameter: the timestamp does not increase.
            AerofixError: as ``PhotoLocalizer.localize``.
        """
        if timestamp_s is None:
            timestamp_s = await self.localizer.decoders.run(self._taken_at, data, hints)
        track.check(timestamp_s)
        calibration = self.localizer.contract.calibration
        info = await self.localizer.matchers.run(self.localizer.gallery.info)
        near = track.predicted_area(timestamp_s, calibration.sigma_tiles * (info.tile_side_m or 0.0))
        told = None if track.lens is None else track.lens.to_send
        answer = await self.localizer.localize(data, hints, top_k, refine, near, maps=maps, effort=effort, lens=told)
        lens, camera = await self.localizer.matchers.run(lens_and_camera, track.lens, answer)
        found = _places(answer, calibration, refine, camera)
        area_m2 = searched_area_m2(info, answer.known.prior)
        moved = None
        if track.sight is not None and answer.local is not None:
            min_inliers = calibration.local.min_inliers
            moved = await self.localizer.matchers.run(shift_between, track.sight, answer.local, min_inliers)
        shift, carried = (None, None) if moved is None else moved
        # from here on nothing waits: a request that is given up leaves the track as it was, or as it shall be
        use = track.update(timestamp_s, found, area_m2, _trust(answer, calibration), shift)
        place = track.hypotheses[0].place if track.hypotheses else None
        track.sight, track.lens = _sight(answer, place, carried), lens
        track.note(use, answer.verdict.status)
        return TrackedPhoto(answer, use, place)

    def _taken_at(self, data: bytes, hints: Hints) -> float:
        """When a photo was taken, as its metadata says.

        Raises:
            MissingParameter: it does not, or metadata is not to be read.
        """
        how = "send timestamp: seconds on any clock, or an ISO 8601 time."
        if not hints.use_exif:
            raise MissingParameter(f"timestamp is missing, and use_exif=false lets no metadata say it; {how}")
        taken_at_s = open_photo(data, self.localizer.settings.max_image_pixels).pose.taken_at_s
        if taken_at_s is None:
            raise MissingParameter(f"timestamp is missing, and the photo has no EXIF DateTimeOriginal; {how}")
        return taken_at_s


def _trust(answer: Answer, calibration: Calibration) -> Trust:
    """What the photo's places are worth to a track."""
    if answer.verdict.status == "located":
        return "located"
    return "unmatched" if answer.fix is None and calibration.local.judge is not None else "ambiguous"


def _sight(answer: Answer, fused: Place | None, carried: Sight | None) -> Sight | None:
    """What the photo showed, lying as it was matched if the track agrees, else as the last one lay or as stated."""
    if answer.local is None:
        return None
    if answer.fix is not None and fused is not None and fused.tile_id == answer.hits[0].tile.id:
        return Sight.of_fix(answer.local, answer.step_right_m, answer.step_up_m)
    if answer.view.side_m is None or answer.known.camera.heading_deg is None or answer.disputed:
        return carried
    stated = Sight.of_hints(answer.local, answer.view.side_m)
    return stated if carried is None else min(carried, stated, key=lambda each: each.error_share)


def _places(answer: Answer, calibration: Calibration, refine: bool, camera: CameraFix | None) -> list[Place]:
    """What the photo may show, with its own answer in the stead of the place that this stands for."""
    position = answer.position
    if position is None:
        return []
    side_m = answer.hits[0].tile.footprint.side_m
    error = None if answer.fix is None else matched_error(answer.fix, side_m, calibration.local)
    return [
        replace(place, lat=position.lat, lon=position.lon, error=error or place.error, camera=camera)
        if place.tile_id == answer.hits[0].tile.id
        else place
        for place in places(answer.pool, calibration, refine)
    ]


def searched_area_m2(info: GalleryInfo, prior: Circle | None) -> float:
    """Measure the ground where a photo was looked for: that of all tiles, at most their bounds and the prior."""
    if info.bounds is None or info.tile_side_m is None:
        return 1.0
    west, south, east, north = info.bounds
    lat = (south + north) / 2
    width_m = float(offset_m(lat, 0.0, lat, 1.0)[0]) * ((east - west) % 360.0 or 360.0)
    height_m = float(offset_m(lat, 0.0, lat + 1.0, 0.0)[1]) * (north - south)
    areas_m2 = [info.count * info.tile_side_m**2, width_m * height_m]
    if prior is not None:
        areas_m2.append(math.pi * prior.radius_m**2)
    return min(areas_m2)
