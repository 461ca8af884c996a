"""A second look at the best candidates: does the ground that the photo shows lie in the tile, position by position?"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.camera.look import Look
from service.encoder.calibration import Calibration
from service.encoder.contract import Resize
from service.geo import offset_m
from service.ground.local_maps import LocalMap
from service.ground.records import Hit
from service.ground.tile import Footprint
from service.localization.agreement import Sighting, pooled, sighting
from service.localization.confidence import Verdict, is_proven, judge, with_proof
from service.localization.evidence import support
from service.localization.glance import GLANCED, best_looking, inner_cells, likeness, unit
from service.localization.matching import (
    Complex,
    Floats,
    Similarity,
    cell_centres,
    fit_similarity,
    mutual_neighbours,
)
from service.localization.scale import first_of_levels, levels_of

MATCHED = 32
"""At most so many candidates are matched, those of each level which look best; most photos need a few (``SURE``). Of 57
real photos among five maps, 48 find no other place, with or without hints (``benchmarks/real.py``)."""

SURE, AT_LEAST = 2.0, 8
"""No other candidate needs to be matched when one has so many times ``min_inliers`` of support and at least so many
were matched: wrong ones reach 1.6 times."""

INLIER_CELLS = 1.5
"""A match may be off by so many cells of the tile's map: half a cell each way for the grid, and one for the
descriptors, which change slowly from cell to cell."""

SCALE_RANGE = (0.4, 2.5)
"""The side of the photo may be so many times that of the tile. Descriptors are trained for 0.6 to 1.8; beyond, few
still match."""


@dataclass(frozen=True)
class Amount:
    """How many candidates are looked at, the best by score, and how many of these are matched at the most."""

    glanced: int
    matched: int


FEW, MANY, LATER = Amount(48, 12), Amount(GLANCED, MATCHED), Amount(96, 24)
"""What the first look begins with, what it goes on to while nothing is beyond doubt, and what each later look gets. Of
the same photos with all hints, none is lost against 192 and 48 in later looks, and one of 57 without hints; with 96 and
16 it is two, and one is no longer ``located``."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A photo under one look, encoded.

    Attributes:
        look: how it was laid flat.
        local: unit descriptors ``[T, C, h, w]`` of the square: as it is, and for T = 4 turned counter-clockwise by 90°,
            180° and 270°.
        plan: number of the look.
        within_deg: how far the square, in its turn, can be from lying north up on the ground.
        sides_m: smallest and largest side that the square can have on the ground.
    """

    look: Look
    local: NDArray[np.float32]
    plan: int = 0
    within_deg: float = 180.0
    sides_m: tuple[float, float] = (0.0, math.inf)


@dataclass(frozen=True, eq=False)
class Matches:
    """M positions of the photo that were found in a tile, right and wrong ones.

    Attributes:
        square: complex ``[M]``, right + i·up in sides of the square that was compared, from its centre.
        ground_m: complex ``[M]``, east + i·north in metres from the tile's centre.
        tolerance_m: ``[M]``, how far they may be off.
        seen: the look.
        fit: the similarity that most agree on, None when there is none.
        support: see ``evidence.support``.
        again: whether this is the second match, of a square that was laid on the ground as the first one found it.
    """

    square: Complex
    ground_m: Complex
    tolerance_m: Floats
    seen: Seen
    fit: Similarity | None
    support: float
    again: bool = False


@dataclass(frozen=True, eq=False)
class Ranking:
    """Candidates, best first.

    Attributes:
        evidence: of each, what ``calibration`` judges: score and matches together, or the score alone for a model whose
            calibration knows nothing of matches.
        matches: of each, None for those not matched.
        calibration: how evidence turns into probabilities.
        supports: of each, what its matches and all that agree with them are worth; None for those not matched.
        sightings: where all matches of all looks lay the photo.
    """

    hits: list[Hit]
    evidence: list[float]
    matches: list[Matches | None]
    calibration: Calibration
    supports: list[float | None]
    sightings: list[Sighting]

    @property
    def was_matched(self) -> bool:
        """Whether a candidate was matched at all, whether or not anything agreed."""
        return any(found is not None for found in self.matches)

    @property
    def matched_ids(self) -> set[str]:
        """Ids of the tiles that were matched."""
        return {hit.tile.id for hit, found in zip(self.hits, self.matches, strict=True) if found is not None}

    def is_proven(self, calibration: Calibration) -> bool:
        """Say whether more matches of the best candidate agree than unrelated ground gives."""
        return bool(self.supports) and is_proven(self.supports[0], calibration.local.min_inliers)

    def is_sure(self, calibration: Calibration) -> bool:
        """Say whether the matches of the best candidate are far beyond chance: then nothing else needs to be tried."""
        return bool(self.supports) and (self.supports[0] or 0.0) > sure_support(calibration)


def sure_support(calibration: Calibration) -> float:
    """Return the support beyond which there is no doubt, see ``SURE``."""
    return SURE * calibration.local.min_inliers


def unmatched(hits: list[Hit], calibration: Calibration) -> Ranking:
    """Return candidates as the search has ordered them."""
    return Ranking(hits, [hit.score for hit in hits], [None] * len(hits), calibration, [None] * len(hits), [])


def verdict_of(ranking: Ranking, calibration: Calibration) -> Verdict:
    """Judge what the candidates say together; where they were matched, a place that is sure has to be proven too."""
    verdict = judge(ranking.hits, ranking.calibration, ranking.evidence)
    if calibration.local.judge is None or not ranking.was_matched:
        return verdict
    return with_proof(verdict, ranking.supports[0], calibration.local.min_inliers)


def with_others(ranking: Ranking, others: list[Hit]) -> Ranking:
    """Add candidates, by score, that the search found to be worse and nobody matched."""
    more = unmatched(others, ranking.calibration)
    return replace(
        ranking,
        hits=[*ranking.hits, *others],
        evidence=[*ranking.evidence, *more.evidence],
        matches=[*ranking.matches, *more.matches],
        supports=[*ranking.supports, *more.supports],
    )


def ranked(
    hits: list[Hit], matches: list[Matches | None], calibration: Calibration, sightings: list[Sighting]
) -> Ranking:
    """Order candidates by score and matches; those of equal evidence keep their order.

    Args:
        hits: candidates.
        matches: of each.
        calibration: of the model.
        sightings: of all looks, these matches among them.
    """
    local, worth = calibration.local, pooled(sightings)
    supports = [
        None if found is None else max(found.support, worth.get((hit.tile.id, found.seen.plan), 0.0))
        for hit, found in zip(hits, matches, strict=True)
    ]
    evidence = [local.evidence(hit.score, support) for hit, support in zip(hits, supports, strict=True)]
    order = sorted(range(len(hits)), key=lambda i: -evidence[i])
    judged = [hits[i].score if local.judge is None else evidence[i] for i in order]
    return Ranking(
        [hits[i] for i in order],
        judged,
        [matches[i] for i in order],
        local.judge or calibration,
        [supports[i] for i in order],
        sightings,
    )


def sightings_of(hits: list[Hit], matches: Sequence[Matches | None]) -> list[Sighting]:
    """Tell where matches lay the photo."""
    found = (
        sighting(hit, each.seen.plan, each.seen.look.from_photo, each.fit, each.support)
        for hit, each in zip(hits, matches, strict=True)
        if each is not None
    )
    return [each for each in found if each is not None]


def joined(one: Ranking, other: Ranking, calibration: Calibration) -> Ranking:
    """Join what two looks found: of a tile that both did, the look that has more support there."""
    best: dict[str, tuple[Hit, Matches | None]] = {}
    for ranking in (one, other):
        for hit, found in zip(ranking.hits, ranking.matches, strict=True):
            known = best.get(hit.tile.id)
            if known is None or _worth(hit, found) > _worth(*known):
                best[hit.tile.id] = hit, found
    if all(found is None for _, found in best.values()):
        return unmatched(sorted((hit for hit, _ in best.values()), key=lambda hit: -hit.score), calibration)
    hits, matches = [hit for hit, _ in best.values()], [found for _, found in best.values()]
    return ranked(hits, matches, calibration, [*one.sightings, *other.sightings])


def rerank(
    hits: list[Hit],
    seen: Seen,
    maps: Callable[[list[Hit]], Sequence[LocalMap | None]],
    calibration: Calibration,
    resize: Resize,
    amount: Amount = MANY,
    done: Ranking | None = None,
) -> Ranking:
    """Match the best looking candidates, see who agrees, and order all by score and matches.

    Levels are treated alike: each gets an equal part of what is matched, for likeness at a glance tells windows of one
    size apart, and says nothing of which size is right. Matching stops early when one is far beyond chance.
    The order does not change when no tile has descriptors.

    Args:
        hits: by score, best first.
        seen: the photo; in each tile the turn counts that is most alike at a glance.
        maps: gives those of some of the hits, of each None where a tile has none.
        calibration: of the model.
        resize: how a tile's image became the model's input.
        amount: how many are looked at and matched.
        done: what fewer have told; what was matched for it is not matched again, and left unmatched here.
    """
    sides_m = np.array([hit.tile.footprint.side_m for hit in hits])
    rows = first_of_levels(sides_m, amount.glanced).tolist()
    local_maps = {
        row: local for row, local in zip(rows, maps([hits[row] for row in rows]), strict=True) if local is not None
    }
    if not local_maps:
        return unmatched(hits, calibration)
    before = set[str]() if done is None else done.matched_ids
    turns, sure = _turns(seen), sure_support(calibration)
    looked_at, matches, best = list(hits), list[Matches | None]([None] * len(hits)), 0.0
    promising = _promising(hits, sides_m, local_maps, seen.local, amount.matched)
    new = [(i, turn) for i, turn in promising if hits[i].tile.id not in before]
    for count, (i, turn) in enumerate(new[: amount.matched - len(before)], 1):
        footprint = hits[i].tile.footprint
        found = matches[i] = match(turns[turn], _of_tile(local_maps[i], footprint, resize), footprint.side_m, seen)
        looked_at[i] = replace(hits[i], inliers=0 if found.fit is None else found.fit.count)
        best = max(best, found.support)
        if count >= AT_LEAST and best > sure:
            break
    return ranked(looked_at, matches, calibration, sightings_of(hits, matches))


@dataclass(frozen=True, eq=False)
class Turn:
    """A turned square: where its cells lay before, their descriptors ``[C, P]``, and what faces east if it is north up.

    ``east`` is a step to the right of the square as it was, on ground that lies north up in the turned one.
    """

    points: Complex
    descriptors: NDArray[np.float32]
    east: complex = 1 + 0j


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of the ground: places ``[Q]``, east + i·north in metres, descriptors ``[C, Q]``, and a cell's side."""

    ground_m: Complex
    descriptors: NDArray[np.float32]
    cell_m: float


def match(turn: Turn, cells: Cells, side_m: float, seen: Seen, again: bool = False) -> Matches:
    """Match a square with ground.

    Args:
        turn: of the square.
        cells: of the ground.
        side_m: of the tile, from whose centre they lie.
        seen: what the square shows.
        again: see ``Matches``.
    """
    of_photo, of_tile = mutual_neighbours(turn.descriptors, cells.descriptors)
    square, ground_m = turn.points[of_photo], cells.ground_m[of_tile]
    tolerance_m = np.full(len(of_tile), INLIER_CELLS * cells.cell_m)
    (smallest_m, largest_m), (least_m, most_m) = scale_range_m(side_m), seen.sides_m
    sides_m = max(smallest_m, least_m), min(largest_m, most_m)
    fit = fit_similarity(square, ground_m, tolerance_m, sides_m, turn.east, seen.within_deg)
    worth = 0.0 if fit is None else support(square[fit.inliers], ground_m[fit.inliers], side_m)
    return Matches(square, ground_m, tolerance_m, seen, fit, worth, again)


def turn_of(seen: Seen, k: int) -> Turn:
    """Return the square turned by k quarters, without cells beyond the photo.

    What k quarters moved to z came from ``(-i)^k z``.
    """
    height, width = seen.local.shape[2:]
    points = (-1j) ** k * cell_centres(height, width)
    of_use = inner_cells(height, width).ravel() & seen.look.shown(points)
    return Turn(points[of_use], seen.local[k].reshape(seen.local.shape[1], -1)[:, of_use], 1j**k)


def ground_grid(footprint: Footprint, height: int, width: int, resize: Resize) -> tuple[Complex, float]:
    """Tell where the cells of a tile's map lie on the ground.

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
    """Return ground sides that a photo compared with a tile of ``side_m`` may have, in metres."""
    return SCALE_RANGE[0] * side_m, SCALE_RANGE[1] * side_m


def _worth(hit: Hit, found: Matches | None) -> tuple[float, float]:
    return -1.0 if found is None else found.support, hit.score


def _turns(seen: Seen) -> list[Turn]:
    return [turn_of(seen, k) for k in range(len(seen.local))]


def _of_tile(tile_map: LocalMap, footprint: Footprint, resize: Resize) -> Cells:
    """The cells of a tile."""
    _, height, width = tile_map.shape
    ground_m, cell_m = ground_grid(footprint, height, width, resize)
    inner = inner_cells(height, width)
    return Cells(ground_m[inner.ravel()], unit(tile_map[:, inner], axis=0), cell_m)


def _promising(
    hits: list[Hit], sides_m: Floats, local_maps: dict[int, LocalMap], local: NDArray[np.float32], most: int
) -> list[tuple[int, int]]:
    """Candidates to be matched and the turn of each, the most promising of every level first.

    Args:
        hits: all candidates.
        sides_m: of each.
        local_maps: of those that are looked at, by row.
        local: of the photo, in its turns.
        most: how many, of all levels together.
    """
    rows, levels = np.array(list(local_maps)), levels_of(sides_m)
    alike, scores = likeness(local, list(local_maps.values())), np.array([hit.score for hit in hits])
    present = np.unique(levels[rows])
    each = max(1, most // len(present))
    queues = []
    for level in present:
        of_level = np.flatnonzero(levels[rows] == level)
        best = of_level[best_looking(scores[rows[of_level]].tolist(), alike[of_level].max(axis=1), each)]
        queues.append(list(zip(rows[best].tolist(), alike[best].argmax(axis=1).tolist(), strict=True)))
    return [queue[n] for n in range(each) for queue in queues if n < len(queue)]
