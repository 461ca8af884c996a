"""What several looks and levels say of one place: a position that is found again counts for more.

Chance puts a photo somewhere else in every look and at every level; the right place is found again. So what matches
are worth is pooled over those that lay the photo alike: their fourth powers add, so that one good look stands alone,
and what chance reaches elsewhere hardly adds to it. None is lifted by a better one: others count as much as itself at
the most, so that of those that agree the best one stays the best.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.camera.pinhole import apply
from service.geo import MEAN_RADIUS_M, offset
from service.ground.records import Hit
from service.localization.matching import Complex, Floats, Similarity

POWER = 4
"""What looks say is summed with this power: as much again in a second look makes 1.19 times as much, half as much 1.015
times."""

NEAR_WIDTHS, TURNED_DEG, SCALED = 0.25, 30.0, 1.6
"""Two matches lay a photo alike when its centre differs by less than this share of its width on the ground, its turn by
less than this, and its size by less than this factor: a similarity is a rough idea of a slanting photo."""

_STEP = 1e-3
"""The ground that a step to the right covers is measured with a step of this share of the photo's width."""


@dataclass(frozen=True)
class Sighting:
    """Where one match lays a photo.

    Attributes:
        tile_id: tile that was matched.
        look: number of the look.
        octave: of the tile's side, so that levels are told apart.
        lat, lon: ground at the photo's centre, degrees.
        right_m: ground, east + i·north, of a width of the photo to the right at its centre.
        support: see ``evidence.support``.
    """

    tile_id: str
    look: int
    octave: int
    lat: float
    lon: float
    right_m: complex
    support: float


def sighting(hit: Hit, look: int, from_photo: Floats, fit: Similarity | None, support: float) -> Sighting | None:
    """Tell where a match lays the photo; None when nothing agrees, or its centre lies above the horizon of the look.

    Args:
        hit: the tile that was matched.
        look: number of the look.
        from_photo: homography from the photo to the look's square.
        fit: similarity from the square to metres from the tile's centre.
        support: of the match.
    """
    if fit is None:
        return None
    centre, right = fit.a * apply(from_photo, np.array([0j, _STEP + 0j])) + fit.b
    if not cmath.isfinite(centre) or not cmath.isfinite(right) or right == centre:
        return None
    lat, lon = offset(*hit.tile.footprint.centre, centre.real, centre.imag)
    octave = round(math.log2(hit.tile.footprint.side_m))
    return Sighting(hit.tile.id, look, octave, float(lat), float(lon), complex(right - centre) / _STEP, support)


def pooled(sightings: Sequence[Sighting]) -> dict[tuple[str, int], float]:
    """Tell what each match is worth with all that agree with it; of one level of one look the best of these counts.

    Returns:
        By tile and look.
    """
    if not sightings:
        return {}
    support = np.array([each.support for each in sightings])
    alike = _alike(sightings)
    groups = np.array([(each.look, each.octave) for each in sightings])
    total = support**POWER  # its own group it stands for itself
    for group in np.unique(groups, axis=0):
        of_group = (groups == group).all(axis=1)
        best = np.where(alike[:, of_group], support[of_group], 0.0).max(axis=1)
        total += np.where(of_group, 0.0, np.minimum(best, support) ** POWER)
    worth = total ** (1 / POWER)
    return {(each.tile_id, each.look): float(value) for each, value in zip(sightings, worth, strict=True)}


def _alike(sightings: Sequence[Sighting]) -> NDArray[np.bool_]:
    """Which lay the photo alike, ``[N, N]``."""
    lat, lon = np.radians([(each.lat, each.lon) for each in sightings]).T
    place_m = MEAN_RADIUS_M * np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    apart_m = np.linalg.norm(place_m[:, None] - place_m, axis=2)  # through the earth, which differs by nothing here
    right_m: Complex = np.array([each.right_m for each in sightings])
    width_m = np.abs(right_m)
    ratio = right_m[:, None] / right_m
    near = apart_m < NEAR_WIDTHS * np.minimum(width_m[:, None], width_m)
    turned = np.abs(np.angle(ratio)) < math.radians(TURNED_DEG)
    sized = np.abs(np.log(np.abs(ratio))) < math.log(SCALED)
    alike: NDArray[np.bool_] = near & turned & sized
    return alike
