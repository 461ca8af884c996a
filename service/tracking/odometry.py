"""How far the ground point has moved between two overlapping photos, from their local descriptors.

The later photo is matched to the one before, as a photo is to a tile. The shift between them knows nothing of the map:
it tells a movement from a change of error, and goes on where the map has nothing to say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.ground.local_maps import LocalMap, to_int8
from service.localization.glance import inner_cells, unit
from service.localization.matching import (
    Complex,
    Floats,
    Indices,
    cell_centres,
    fit_similarity,
    mutual_neighbours,
)
from service.localization.rerank import INLIER_CELLS
from service.tracking.filter import Shift

SCALE_RANGE = (0.5, 2.0)
"""The ground side of the later photo may be so many times that of the one before: more is no climb between two photos
that overlap."""

FIX_SHARE, HINT_SHARE, DRIFT_SHARE = 0.01, 0.05, 0.01
"""A shift errs by these shares of its length: turn and size are those of a photo that was laid on the ground, or those
that the drone states, of which a height may be off by a twentieth and a heading by 3°; handed on from photo to photo,
they become worse (sizes by 1 % a photo on a flight over the demo town)."""

SIGMA_CELLS = 0.05
"""A shift errs by so many cells of the descriptor map. On a flight over the demo town (``benchmarks/tracks.py``; a
photo every 10 m, cells of 3.1 m) shifts err by 0.16 m along each axis, and by 0.27 m if matches stay at whole cells."""

MAX_ALIKE = 0.5
"""From this length of the mean descriptor on a photo shows nothing: it is 0.1 to 0.22 for photos of a town, 0.82 for a
blank one, whose cells differ by where they lie alone, so that it seems to hover."""

SWAY_SHARE = 0.04
"""The ground point swings about its course by this share of the side of the view: 2° of pitch, as high up as that is
wide."""


@dataclass(frozen=True, eq=False)
class Sight:
    """What a photo showed, and how it lies on the ground.

    Attributes:
        local: descriptors ``[C, h, w]`` of the compared square.
        right_m, up_m: ground, east + i·north, that a step of one side to the right and one up covers at its centre.
        error_share: error of these, over their length.
    """

    local: LocalMap
    right_m: complex
    up_m: complex
    error_share: float

    @classmethod
    def of_fix(cls, local: NDArray[np.float32], right_m: complex, up_m: complex) -> Sight:
        """Tell what a photo showed that was laid on the ground; see the attributes."""
        return cls(to_int8(local), right_m, up_m, FIX_SHARE)

    @classmethod
    def of_hints(cls, local: NDArray[np.float32], side_m: float) -> Sight:
        """Tell what a photo showed that was turned north-up, and whose ground side was stated."""
        return cls(to_int8(local), complex(side_m), side_m * 1j, HINT_SHARE)

    def on_ground(self, step: complex) -> complex:
        """Convert a step right + i·up, in sides of the square, as metres east + i·north."""
        return step.real * self.right_m + step.imag * self.up_m

    @property
    def side_m(self) -> float:
        """Ground that the square's side covers."""
        return abs(self.right_m)


def shift_between(before: Sight, local: NDArray[np.float32], min_inliers: int) -> tuple[Shift, Sight] | None:
    """Return the movement of the square's centre, and how the later photo then lies.

    Args:
        before: the photo before.
        local: unit descriptors ``[C, h, w]`` of the later one.
        min_inliers: what unrelated ground does not reach.

    Returns:
        None where the two do not show enough of the same ground, or are turned by more than descriptors know.
    """
    if local.shape != before.local.shape or np.linalg.norm(local.mean(axis=(1, 2))) > MAX_ALIKE:
        return None
    _, height, width = local.shape
    inner = inner_cells(height, width)
    cells, points = np.flatnonzero(inner), cell_centres(height, width)
    earlier_local = unit(before.local, axis=0)
    later, earlier = (cells[of] for of in mutual_neighbours(local[:, inner], earlier_local[:, inner]))
    source, target = points[later], points[earlier] + _within_cell(local, earlier_local, later, earlier)
    cell = 1 / math.sqrt(height * width)
    fit = fit_similarity(source, target, np.full(len(later), INLIER_CELLS * cell), SCALE_RANGE)
    if fit is None or fit.count < min_inliers:
        return None
    moved_m = before.on_ground(fit.b)
    sigma_m = math.hypot(before.error_share * abs(moved_m), SIGMA_CELLS * cell * before.side_m)
    right_m, up_m = before.on_ground(fit.a), before.on_ground(1j * fit.a)
    after = Sight(to_int8(local), right_m, up_m, before.error_share + DRIFT_SHARE)
    return Shift(moved_m.real, moved_m.imag, sigma_m, SWAY_SHARE * after.side_m), after


def _within_cell(
    later_local: NDArray[np.float32], earlier_local: NDArray[np.float32], later: Indices, earlier: Indices
) -> Complex:
    """How far from its cell's centre each match lies, in sides: else a level flight would move by whole cells.

    The vertex of the parabola through the similarities to a cell and to its two neighbours, along each axis.
    """
    channels, height, width = earlier_local.shape
    wanted, cells = later_local.reshape(channels, -1)[:, later], earlier_local.reshape(channels, -1)

    def vertex(step: int, place: Indices, count: int) -> Floats:
        between = (place > 0) & (place < count - 1)
        before, here, after = (
            np.einsum("cm,cm->m", wanted, cells[:, earlier + k * step * between]) for k in (-1, 0, 1)
        )
        curvature = np.minimum(before - 2 * here + after, -1e-6)  # a match is no minimum along its own axes
        found: Floats = np.clip(0.5 * (before - after) / curvature, -0.5, 0.5).astype(np.float64)
        return found

    row, column = np.divmod(earlier, width)
    right, down = vertex(1, column, width) / width, vertex(width, row, height) / height
    offset: Complex = right - 1j * down
    return offset
