"""What one photo leads to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.camera.look import Look
from service.camera.pinhole import apply
from service.ground.records import Hit
from service.localization.confidence import Verdict
from service.localization.hints import Known
from service.localization.looks import PlannedLook
from service.localization.refine import Fix
from service.localization.rerank import Ranking
from service.localization.whereabouts import Camera


@dataclass(frozen=True)
class Position:
    """A place on the ground in degrees (WGS84), right within ``accuracy_m`` metres with 68 % probability.

    Attributes:
        sigma_m: standard deviation along each axis if the place is the right one.
        heading_deg: compass direction of the photo's top edge; None when the photo was not laid on the ground.
    """

    lat: float
    lon: float
    accuracy_m: float
    confidence: float
    sigma_m: float
    heading_deg: float | None = None


@dataclass(frozen=True)
class View:
    """What of the photo was compared first, and with which tiles; metres, None where the ground size is unknown.

    Attributes:
        photo_width_m: ground that the photo's width covers at its centre.
        side_m: side of the square of ground that was compared.
        tile_side_m: size of the tiles that were preferred.
    """

    photo_width_m: float | None = None
    side_m: float | None = None
    tile_side_m: float | None = None

    @classmethod
    def of(cls, plan: PlannedLook, look: Look, aspect: float, largest_m: float | None) -> View:
        """Tell what a look shows of a photo of this height over width, compared with tiles of ``largest_m``."""
        side_m, height = plan.side_m(look), plan.known.height_m
        if side_m is None or height is None:
            return cls()
        across = apply(plan.camera(aspect).to_ground, np.array([-0.5 + 0j, 0.5 + 0j]))
        width_m = float(abs(across[1] - across[0])) * height.value
        return cls(width_m if math.isfinite(width_m) else None, side_m, largest_m)


@dataclass(frozen=True)
class Whereabouts:
    """Where the camera was.

    Attributes:
        camera: None when the photo does not tell.
        accuracy_m: radius that holds its place with 68 % probability; None without a camera.
        missing: what is not known of it and why, or why there is none; None when all is known.
        footprint: where the photo's corners lie, clockwise from its top left; None for one above the horizon. None when
            the photo was not laid on the ground.
    """

    camera: Camera | None = None
    accuracy_m: float | None = None
    missing: str | None = None
    footprint: list[tuple[float, float] | None] | None = None


@dataclass(frozen=True)
class Answer:
    """What one photo leads to.

    Attributes:
        verdict: status and confidences.
        position: None when the status is ``not_found``.
        place: ``lat, lon`` of the best candidate; None where there are no candidates.
        whereabouts: of the camera.
        hits: the candidates to show, best first; ``verdict.candidate_confidences`` starts with theirs.
        pool: all candidates that were looked at, best first, those ``near`` the asked-for circle at the end.
        known: which hints counted, and where each comes from.
        disputed: hints that the ground contradicts, and what it says.
        looks: how many the photo was given.
        fix: how the photo lies on the ground, None when that is not known.
        local: local descriptors ``[C, h, w]`` of the square that was compared first, None when the model has none.
        step_right_m, step_up_m: ground that a step of that square's side covers; 0 without a fix.
        searched_tiles: tiles that the prior leaves, or all.
        timing_ms: by step, in milliseconds; ``total`` is larger than their sum by what lies between them.
    """

    verdict: Verdict
    position: Position | None
    place: tuple[float, float] | None
    whereabouts: Whereabouts
    hits: list[Hit]
    pool: Ranking
    width: int
    height: int
    known: Known
    disputed: dict[str, str]
    looks: int
    view: View
    fix: Fix | None
    local: NDArray[np.float32] | None = field(repr=False)
    step_right_m: complex
    step_up_m: complex
    searched_tiles: int
    generation: int
    timing_ms: dict[str, float]
