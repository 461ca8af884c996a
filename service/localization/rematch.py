"""The second match: the photo laid on the ground as the first match found it, against the map around that place.

The first match knows turn and slant of a photo only roughly. Laid flat by the homography that it gave, the photo looks
as the map does, and right places gain: of 21 slanting photos whose pitch nobody told, the right window's inliers grew
from 37 to 76 in the median, while wrong windows lost a third. Known as AdHoP (OrthoLoC, 2025).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.camera.look import Look
from service.camera.pinhole import apply, inverted, similarity_matrix
from service.encoder.calibration import Calibration
from service.encoder.contract import Resize
from service.ground.gallery import Gallery
from service.ground.local_maps import LocalMap
from service.ground.records import Hit
from service.ground.windows import cells_of, maps_of, zooms_of
from service.localization.glance import inner_cells, unit
from service.localization.neighbours import NEAR_SIDES, same_place
from service.localization.refine import laid_flat
from service.localization.rerank import (
    Cells,
    Matches,
    Ranking,
    Seen,
    ground_grid,
    match,
    ranked,
    sightings_of,
    sure_support,
    turn_of,
)

PLACES = 8
"""After each look so many of the best places are matched again. Under high buildings a right place can be the sixth
after its first match, and is by far the best after its second."""

HOPE = 0.6
"""A place whose first match has less support than this share of ``min_inliers`` is not matched again. Of 1,560 places
that 57 real photos were matched with twice, 880 had less, and two of these then reached ``min_inliers``, just so."""

MARGIN = 1 / 7
"""This share of a window's cells is added on each side of it: the first match is off by less."""

LIKE_THE_MAP_DEG, LIKE_THE_MAP_SCALE = 10.0, 1.2
"""A first match that was turned and scaled by less, without a slant, had the photo as the second one would have it."""

LAID_DEG, LAID_SCALE = 20.0, 1.5
"""The first match leaves this open: how far the square may still be turned, and by which factor it may be off."""


@dataclass(frozen=True, eq=False)
class Again:
    """A candidate that is to be matched again.

    Attributes:
        hit: it.
        look: how the photo is laid flat for it.
        centre_m: the square's centre, east + i·north from the tile's.
        plan: number of the look that found it.
    """

    hit: Hit
    look: Look
    centre_m: complex
    plan: int


def worth_a_second(ranking: Ranking, calibration: Calibration) -> list[Again]:
    """Return the best places that were matched once, each with the look that its first match gives.

    Only the first where it is far better than chance, and none that has no ``HOPE``.

    Args:
        ranking: candidates, best first.
        calibration: of the model.
    """
    matches: list[Matches] = []
    for each in ranking.matches:
        if each is None:
            break
        matches.append(each)
    if not matches:
        return []
    near, taken = same_place(ranking.hits[: len(matches)]), np.zeros(len(matches), bool)
    chosen: list[Again] = []
    for _ in range(PLACES):
        if taken.all():
            break
        best = int(taken.argmin())
        hit, found = ranking.hits[best], matches[best]
        taken |= near[best]
        hopeful = found.support >= HOPE * calibration.local.min_inliers
        if hopeful and not found.again and (again := _again(hit, found)) is not None:
            chosen.append(again)
        if found.support > sure_support(calibration):
            break
    return chosen


def match_again(
    ranking: Ranking,
    chosen: list[Again],
    locals_: list[NDArray[np.float32]],
    gallery: Gallery,
    calibration: Calibration,
    resize: Resize,
) -> Ranking:
    """Replace the matches of some candidates by second ones.

    Args:
        ranking: candidates.
        chosen: those that are matched again.
        locals_: the descriptors ``[C, h, w]`` of the square of each.
        gallery: has the ground's.
        calibration: of the model.
        resize: how a tile's image became the model's input.
    """
    hits, matches = list(ranking.hits), list(ranking.matches)
    rows = {hit.tile.id: row for row, hit in enumerate(hits)}
    done = set[tuple[str, int]]()
    for again, local in zip(chosen, locals_, strict=True):
        cells = _cells(again, local.shape, gallery, resize)
        if cells is None:
            continue
        side_m = again.hit.tile.footprint.side_m
        sides_m = side_m / LAID_SCALE, side_m * LAID_SCALE
        seen = Seen(again.look, local[None], again.plan, LAID_DEG, sides_m)
        found = match(turn_of(seen, 0), cells, side_m, seen, again=True)
        row = rows[again.hit.tile.id]
        matches[row] = found
        done.add((again.hit.tile.id, again.plan))
        hits[row] = replace(hits[row], inliers=0 if found.fit is None else found.fit.count)
    once = [each for each in ranking.sightings if (each.tile_id, each.look) not in done]
    twice = [rows[tile_id] for tile_id, _ in done]
    more = sightings_of([hits[row] for row in twice], [matches[row] for row in twice])
    return ranked(hits, matches, calibration, [*once, *more])


def _again(hit: Hit, found: Matches) -> Again | None:
    """The square of ground, of the tile's side and north up, around what the photo's square showed."""
    if found.fit is None:
        return None
    side_m, fit = hit.tile.footprint.side_m, found.fit
    laid = laid_flat(fit, found.square, found.ground_m, found.tolerance_m)
    slanting = abs(laid.matrix[2, 0]) + abs(laid.matrix[2, 1]) > 0
    scale = fit.scale / side_m
    alike = 1 / LIKE_THE_MAP_SCALE < scale < LIKE_THE_MAP_SCALE and abs(fit.rotation_deg) < LIKE_THE_MAP_DEG
    if alike and not slanting and abs(fit.b) < side_m / 4:
        return None
    centre_m = complex(apply(laid.matrix, np.zeros(1, np.complex128))[0])
    if not abs(centre_m) <= NEAR_SIDES * side_m:
        return None
    to_square = inverted(laid.matrix) @ similarity_matrix(complex(side_m), centre_m)
    look = Look(found.seen.look.to_photo @ to_square, found.seen.look.aspect)
    return Again(hit, look, centre_m, found.seen.plan)


def _cells(again: Again, shape: tuple[int, ...], gallery: Gallery, resize: Resize) -> Cells | None:
    """The ground around the square; of a loose picture what it shows."""
    _, height, width = shape
    footprint, number = again.hit.tile.footprint, np.array([again.hit.number], np.int64)
    if again.hit.map is None:
        (tile_map,) = gallery.local_maps([again.hit])
        if tile_map is None:
            return None
        _, height, width = tile_map.shape
        ground_m, cell_m = ground_grid(footprint, height, width, resize)
        return _of_use(tile_map, ground_m, cell_m, inner_cells(height, width).ravel())
    down, across = round(MARGIN * height), round(MARGIN * width)
    (row,), (column,) = cells_of(number)
    grid, cell_m = ground_grid(footprint, height, width, resize)
    steps = _steps(grid.reshape(height, width))
    # how many cells the square's centre lies right of and below the window's
    right = (again.centre_m * steps[0].conjugate()).real / abs(steps[0]) ** 2
    below = (again.centre_m * steps[1].conjugate()).real / abs(steps[1]) ** 2
    top, left = round(below) - down, round(right) - across
    wanted = height + 2 * down, width + 2 * across
    tile_map = gallery.cells(
        int(maps_of(number)[0]),
        int(zooms_of(number)[0]),
        int(row) * (height // 2) + top,
        int(column) * (width // 2) + left,
        *wanted,
    )
    if tile_map is None:
        return None
    i, j = np.arange(wanted[0])[:, None] + top, np.arange(wanted[1]) + left
    ground_m = grid[0] + j * steps[0] + i * steps[1]
    return _of_use(tile_map, ground_m.ravel(), cell_m, np.ones(wanted[0] * wanted[1], bool))


def _steps(grid: NDArray[np.complex128]) -> tuple[complex, complex]:
    """From a cell to the one right of it, and to the one below."""
    height, width = grid.shape
    return complex((grid[0, -1] - grid[0, 0]) / (width - 1)), complex((grid[-1, 0] - grid[0, 0]) / (height - 1))


def _of_use(tile_map: LocalMap, ground_m: NDArray[np.complex128], cell_m: float, inner: NDArray[np.bool_]) -> Cells:
    flat = tile_map.reshape(len(tile_map), -1)
    there = inner & flat.any(axis=0)  # zeros: no ground is stored there
    return Cells(ground_m[there], unit(flat[:, there], axis=0), cell_m)
