"""All the places that a photo may show, each with its own probability: what a track chooses from."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.encoder.calibration import Calibration, LocalCalibration
from service.localization.confidence import judge
from service.localization.neighbours import same_place
from service.localization.refine import Fix, weighted_position
from service.localization.rerank import Ranking

MAX_PLACES = 16
MIN_CONFIDENCE = 0.005
"""A place below this is not worth a thought: no track is so sure of itself that it would choose it."""

RASTER_SHARE, GRAIN_SIDES = 0.75, 0.25
"""Positions between tile centres err as the raster of tiles makes them, and photos nearby alike: with half overlap
their errors go round once a half side, and are another after half of that. On a flight over the demo town, errors of
photos 10 m apart correlate by 0.7, which falls to 1/e at 0.3 sides."""


@dataclass(frozen=True)
class PositionError:
    """What a position errs by if its place is right: independent parts, metres of standard deviation along each axis.

    Attributes:
        own_m: what this photo errs by alone.
        raster_m: what photos nearby err by too.
        grain_m: distance over which ``raster_m`` becomes another error.
        common_m: what all photos of this map and camera err by alike.
    """

    own_m: float
    raster_m: float = 0.0
    grain_m: float = 0.0
    common_m: float = 0.0

    @property
    def sigma_m(self) -> float:
        """Standard deviation of the whole error along each axis, metres."""
        return math.hypot(self.own_m, self.raster_m, self.common_m)


@dataclass(frozen=True, eq=False)
class CameraFix:
    """Where the camera was, if the photo shows the place that it is a part of.

    Attributes:
        lat, lon: degrees.
        covariance_m2: ``[2, 2]``, east and north: what this photo errs by alone.
        common_m: what photos of this flight err by alike, along each axis.
        height_m: above the ground at the photo's centre, if known.
        heading_deg: where it looked.
    """

    lat: float
    lon: float
    covariance_m2: NDArray[np.float64]
    common_m: float
    height_m: float | None
    heading_deg: float


@dataclass(frozen=True)
class Place:
    """A place that a photo may show.

    Attributes:
        lat, lon: degrees.
        error: of this position.
        confidence: probability that the place is right, judged from the photo alone.
        tile_id: the best tile there.
        camera: where the camera was then; None when that is not known.
    """

    lat: float
    lon: float
    error: PositionError
    confidence: float
    tile_id: str
    camera: CameraFix | None = None


def matched_error(fix: Fix, side_m: float, local: LocalCalibration) -> PositionError:
    """Return the error of a position whose photo was laid on the ground.

    Args:
        fix: how it lies.
        side_m: of the tile that shows the same.
        local: of the model.
    """
    return PositionError(local.sigma_scale * fix.sigma_m, common_m=local.sigma_floor_tiles * side_m)


def raster_error(sigma_m: float, side_m: float) -> PositionError:
    """Return the error of a position between tile centres, for tiles of this side."""
    own_m, raster_m = (math.sqrt(share) * sigma_m for share in (1 - RASTER_SHARE, RASTER_SHARE))
    return PositionError(own_m, raster_m, GRAIN_SIDES * side_m)


def places(pool: Ranking, calibration: Calibration, refine: bool = True) -> list[Place]:
    """Group candidates into places.

    Args:
        pool: every tile belongs to the place of the best one near it.
        calibration: of the model that made the embeddings.
        refine: weigh the tiles of each place; else its best tile's centre.

    Returns:
        At most ``MAX_PLACES``, the best tile's first.
    """
    hits = pool.hits
    if not hits:
        return []
    near, confidences = same_place(hits), judge(hits, pool.calibration, pool.evidence).candidate_confidences
    found: list[Place] = []
    left = list(range(len(hits)))
    while left and len(found) < MAX_PLACES:
        first, *others = left
        best = hits[first]
        if confidences[first] >= MIN_CONFIDENCE:
            # its neighbours may already be counted with a better place: for the position they still count
            around = [best, *(hit for i, hit in enumerate(hits) if i != first)]
            centre = best.tile.footprint.centre
            lat, lon = weighted_position(around, calibration.refine_temperature) if refine else centre
            side_m = best.tile.footprint.side_m
            error = raster_error(calibration.sigma_tiles * side_m, side_m)
            found.append(Place(lat, lon, error, confidences[first], best.tile.id))
        left = [i for i in others if not near[first, i]]
    return found
