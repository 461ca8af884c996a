"""The next photo of a flight: localize it with the track's help, and take what it shows into the track."""

import asyncio
import math
from dataclasses import dataclass, replace

from service.encoder.calibration import ACCURACY_PROBABILITY
from service.gallery.gallery import GalleryInfo
from service.geo import Circle, offset_m
from service.localization.hints import Hints
from service.localization.pipeline import Answer, Localizer
from service.localization.places import Place, places
from service.tracking.odometry import NorthUpView, shift_between
from service.tracking.store import TrackStore
from service.tracking.track import Track, Use

RAYLEIGH_68 = math.sqrt(-2 * math.log(1 - ACCURACY_PROBABILITY))
"""1.51: a 68 % radius over the standard deviation along each axis, for a Gaussian in the plane."""


@dataclass(frozen=True)
class Step:
    """A photo's own answer, and what became of it in the track."""

    answer: Answer
    use: Use
    place: Place | None


@dataclass(frozen=True)
class Tracker:
    """Follows flights; holds what all requests share."""

    localizer: Localizer
    store: TrackStore

    async def localize(
        self, track: Track, data: bytes, hints: Hints, timestamp_s: float, top_k: int = 5, refine: bool = True
    ) -> Step:
        """Localize the next photo of a track. A photo that cannot be localized leaves the track as it was.

        Args:
            track: whose turn it is, see ``TrackStore.turn``.
            data: the image file.
            hints: see ``Hints``.
            timestamp_s: when it was taken, later than the photo before.
            top_k: see ``Localizer.localize``.
            refine: see ``Localizer.localize``.

        Raises:
            InvalidParameter: the timestamp does not increase.
            AerofixError: as ``Localizer.localize``.
        """
        track.check(timestamp_s)
        calibration = self.localizer.contract.calibration
        info = await asyncio.to_thread(self.localizer.gallery.info)
        near = track.predicted_area(timestamp_s, calibration.sigma_tiles * (info.tile_side_m or 0.0))
        answer = await self.localizer.localize(data, hints, top_k, refine, near)
        found = [] if answer.position is None else _as_answered(places(answer.pool, calibration, refine), answer)
        area_m2 = searched_area_m2(info, answer.known.prior)
        view = _north_up_view(answer)
        shift = None
        if track.view is not None and view is not None:
            shift = await asyncio.to_thread(shift_between, track.view, view)
        # from here on nothing waits: a request that is given up leaves the track as it was, or as it shall be
        use = track.update(timestamp_s, found, area_m2, answer.verdict.status == "located", shift)
        track.view = view
        return Step(answer, use, track.hypotheses[0].place if track.hypotheses else None)


def _north_up_view(answer: Answer) -> NorthUpView | None:
    """What the photo showed, where its heading and ground size are known."""
    view = answer.view
    if view.pixels is None or view.side_m is None or answer.known.heading_deg is None:
        return None
    return NorthUpView.of(view.pixels, view.side_m)


def _as_answered(found: list[Place], answer: Answer) -> list[Place]:
    """The photo's own answer in the stead of the place it stands for, with its accuracy where that is of one place."""
    position, best = answer.position, answer.hits[0].tile.id
    if position is None:
        return found
    sigma_m = position.accuracy_m / RAYLEIGH_68 if answer.verdict.status == "located" else None
    return [
        replace(place, lat=position.lat, lon=position.lon, sigma_m=sigma_m or place.sigma_m)
        if place.tile_id == best
        else place
        for place in found
    ]


def searched_area_m2(info: GalleryInfo, prior: Circle | None) -> float:
    """Ground on which a photo was looked for: that of all tiles, at most that of their bounds and of the prior."""
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
