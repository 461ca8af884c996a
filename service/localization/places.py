"""All the places that a photo may show, each with its own probability: what a track chooses from."""

from dataclasses import dataclass

from service.encoder.calibration import Calibration
from service.localization.confidence import judge
from service.localization.neighbours import same_place
from service.localization.refine import weighted_position
from service.localization.rerank import Ranking

MAX_PLACES = 16
MIN_CONFIDENCE = 0.005
"""A place below is not worth a thought: no track is so sure of itself that it would choose it."""

GRAIN_SIDES = 0.25
"""Errors come from the raster of tiles: with half overlap they go round once a half side, and are another after half of
that. On a flight over the demo town their correlation falls to 1/e at 0.3 sides."""


@dataclass(frozen=True)
class Place:
    """A place that a photo may show.

    Attributes:
        lat, lon: degrees.
        sigma_m: standard deviation of the position along each axis if the place is right.
        grain_m: distance over which this error changes: a fix nearby has nearly the same.
        confidence: probability that the place is right, judged from the photo alone.
        tile_id: the best tile there.
    """

    lat: float
    lon: float
    sigma_m: float
    grain_m: float
    confidence: float
    tile_id: str


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
            sigma_m, grain_m = calibration.sigma_tiles * side_m, GRAIN_SIDES * side_m
            found.append(Place(lat, lon, sigma_m, grain_m, confidences[first], best.tile.id))
        left = [i for i in others if not near[first, i]]
    return found
