"""A second look at the best candidates: does the ground that the photo shows lie in the tile, position by position?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.encoder.calibration import Calibration
from service.encoder.contract import Resize
from service.geo import offset_m
from service.ground.gallery import Hit
from service.ground.local_maps import LocalMap
from service.ground.tile import Footprint
from service.localization.glance import best_looking, inner_cells, likeness, unit
from service.localization.matching import Complex, Floats, cell_centres, fit_similarity, mutual_neighbours

MATCHED = 24
"""Candidates that are matched: those which look best. A match costs seven times a glance (benchmarks/refine.py)."""

INLIER_CELLS = 1.5
"""Cells of the tile's map that a match may be off: half a cell each way for the grid, and one for the descriptors,
which change slowly from cell to cell."""

SCALE_RANGE = (0.4, 2.5)
"""Side of the photo over that of the tile. Descriptors are trained for 0.6 to 1.8; beyond, few still match."""


@dataclass(frozen=True, eq=False)
class Matches:
    """M positions of the photo that were found in a tile, right and wrong ones.

    Attributes:
        photo: complex ``[M]``, right + i·up in sides of the square that was compared, from its centre.
        ground_m: complex ``[M]``, east + i·north in metres from the tile's centre.
        tolerance_m: ``[M]``, how far they may be off.
    """

    photo: Complex
    ground_m: Complex
    tolerance_m: Floats


@dataclass(frozen=True, eq=False)
class Ranking:
    """Candidates, best first.

    Attributes:
        evidence: of each, what ``calibration`` judges: score and inliers together, or the score alone for a model whose
            calibration knows nothing of inliers.
        matches: of each, None for those not matched.
        calibration: how evidence turns into probabilities.
    """

    hits: list[Hit]
    evidence: list[float]
    matches: list[Matches | None]
    calibration: Calibration


def unmatched(hits: list[Hit], calibration: Calibration) -> Ranking:
    """Candidates as the search has ordered them."""
    return Ranking(hits, [hit.score for hit in hits], [None] * len(hits), calibration)


def with_others(ranking: Ranking, others: list[Hit]) -> Ranking:
    """Add candidates, by score, that the search found to be worse and nobody matched."""
    more = unmatched(others, ranking.calibration)
    evidence, matches = [*ranking.evidence, *more.evidence], [*ranking.matches, *more.matches]
    return Ranking([*ranking.hits, *others], evidence, matches, ranking.calibration)


def rerank(
    hits: list[Hit],
    photo: NDArray[np.float32],
    maps: Sequence[LocalMap | None],
    calibration: Calibration,
    resize: Resize,
) -> Ranking:
    """Look at candidates, match the best looking, count who agrees, and order all by score and inliers.

    The order does not change when no tile has descriptors, and those of equal evidence keep theirs.

    Args:
        hits: by score, best first.
        photo: the photo's local descriptors, ``[T, C, h, w]``: as it is, and for T = 4 turned counter-clockwise by 90°,
            180° and 270°; in each tile the turn counts that is most alike at a glance.
        maps: those of the first hits; None where a tile has none.
        calibration: of the model.
        resize: how a tile's image became the model's input.
    """
    with_map = [(i, local) for i, local in enumerate(maps[: len(hits)]) if local is not None]
    if not with_map:
        return unmatched(hits, calibration)
    local, turns = calibration.local, _turns(photo)
    looked_at, matches = list(hits), list[Matches | None]([None] * len(hits))
    alike = likeness(photo, [tile_map for _, tile_map in with_map])
    for row in best_looking([hits[i].score for i, _ in with_map], alike.max(axis=1), MATCHED):
        i, tile_map = with_map[row]
        footprint = hits[i].tile.footprint
        found = matches[i] = _match(turns[int(alike[row].argmax())], tile_map, footprint, resize)
        looked_at[i] = replace(hits[i], inliers=_inliers(found, footprint.side_m))
    evidence = [local.evidence(hit.score, hit.inliers) for hit in looked_at]
    order = sorted(range(len(hits)), key=lambda i: -evidence[i])
    ranked = [looked_at[i] for i in order]
    if local.judge is None:
        judged, judge = [hit.score for hit in ranked], calibration
    else:
        judged, judge = [evidence[i] for i in order], local.judge
    return Ranking(ranked, judged, [matches[i] for i in order], judge)


def ground_grid(footprint: Footprint, height: int, width: int, resize: Resize) -> tuple[Complex, float]:
    """Where the cells of a tile's map lie on the ground.

    ``squash``: the map spans the whole image. ``center_crop``: its centre square; which part of the footprint that is
    follows from the footprint's own shape, for pixels as high as wide on the ground.

    Returns:
        Cell centres row by row, ``[height · width]``, east + i·north in metres from the tile's centre; and a cell's
        mean side in metres.
    """
    lats, lons = np.array(footprint.corners).T
    east_m, north_m = offset_m(*footprint.centre, lats, lons)
    top_left, top_right, bottom_right, bottom_left = east_m + 1j * north_m
    across_m = (abs(top_right - top_left) + abs(bottom_right - bottom_left)) / 2
    down_m = (abs(bottom_left - top_left) + abs(bottom_right - top_right)) / 2
    square_m = min(across_m, down_m)
    kept_m = (across_m, down_m) if resize == "squash" else (square_m, square_m)
    centres = cell_centres(height, width)
    right, down = 0.5 + centres.real * kept_m[0] / across_m, 0.5 - centres.imag * kept_m[1] / down_m
    top, bottom = top_left + right * (top_right - top_left), bottom_left + right * (bottom_right - bottom_left)
    return top + down * (bottom - top), math.sqrt(kept_m[0] * kept_m[1] / (height * width))


def scale_range_m(side_m: float) -> tuple[float, float]:
    """Ground sides that a photo compared with a tile of ``side_m`` may have, in metres."""
    return SCALE_RANGE[0] * side_m, SCALE_RANGE[1] * side_m


@dataclass(frozen=True, eq=False)
class _Turn:
    """A turned photo: where its cells lay before, and their descriptors ``[C, P]``."""

    points: Complex
    descriptors: NDArray[np.float32]


def _turns(photo: NDArray[np.float32]) -> list[_Turn]:
    """The photo's maps ``[T, C, h, w]``, to be matched; what k quarter turns moved to z came from ``(-i)^k z``."""
    inner = inner_cells(*photo.shape[2:])
    points, flat = cell_centres(*photo.shape[2:])[inner.ravel()], photo[:, :, inner]
    return [_Turn((-1j) ** k * points, flat[k]) for k in range(len(photo))]


def _match(turn: _Turn, tile_map: LocalMap, footprint: Footprint, resize: Resize) -> Matches:
    _, height, width = tile_map.shape
    ground_m, cell_m = ground_grid(footprint, height, width, resize)
    inner = inner_cells(height, width)
    of_photo, of_tile = mutual_neighbours(turn.descriptors, unit(tile_map[:, inner], axis=0))
    return Matches(
        turn.points[of_photo], ground_m[inner.ravel()][of_tile], np.full(len(of_tile), INLIER_CELLS * cell_m)
    )


def _inliers(matches: Matches, side_m: float) -> int:
    fit = fit_similarity(matches.photo, matches.ground_m, matches.tolerance_m, scale_range_m(side_m))
    return 0 if fit is None else fit.count
