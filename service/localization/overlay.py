"""The photo laid over the ground as a whole, at every place that is left: for one whose heading and size are known.

Of a photo from another year hardly a detail matches by itself, and the right place has no more matches than a wrong
one. But all details together are still more alike to the ground that they show than to any other, and where nothing
but the place is left to be found, every place can be tried: roughly over all ground of the best windows, then exactly
around the best places. How far the best stands out from the next tells whether it is the right one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.encoder.calibration import Calibration
from service.geo import Circle
from service.ground.gallery import Gallery
from service.ground.inventory import FIRST_WINDOW
from service.ground.search import Found
from service.localization.correlation import mean_of, without
from service.localization.glance import unit
from service.localization.looks import PlannedLook
from service.localization.matching import cell_centres, fit_similarity
from service.localization.placing import Over, Place, ground_at, places_of, square_of, there_in
from service.localization.rerank import INLIER_CELLS, Matches, Ranking, Seen, ranked, unmatched

MOST_WINDOWS = 4096
"""So many windows, the best by their embeddings, are tried: 14 km² of those of 115 m."""

SAME_SIZE = 1.1
"""Windows that differ in size by less than this factor share a square: those of maps at other latitudes."""

OCTAVES = 1.1
"""Windows whose side is further from the photo's, in octaves, are not tried."""

LEAST_WINDOWS = 12
"""Among fewer windows nothing stands out: there has to be ground that the photo does not show."""

APART = 0.25
"""The next best place is one that is further away than this share of a window's side."""

CHANCE, ODDS_WORTH = 0.85, 0.11
"""What a place is worth in matches, as a share of ``min_inliers``: so much by chance, and so much for each unit of its
odds. Where nothing is right, the best of n places stands out from the next by an exponentially distributed gap of scale
``1 / sqrt(2 ln n)`` (extreme values of a normal distribution), and the next itself by about the root: so their product,
the odds, exceeds x with a probability of about ``exp(-x)``. Of 132 photos of other years with all hints, laid over
9 km², a fifth of those with odds around 1 are right, half around 2, and all 70 above 3.5; with a prior of 200 m around
ground that they do not show, one of 132 exceeds 4."""

AROUND = 2
"""Details look for their like so many cells around where the photo as a whole puts them: relief moves them, and what is
known of the camera is not exact."""

LAID_DEG, LAID_SCALE = 20.0, 1.3
"""Together they may then turn the photo by so much, and change its size by this factor."""


def plan_overlays(plan: PlannedLook, aspect: float, gallery: Gallery, found: Found) -> list[Over]:
    """Tell what is to be laid over which windows; nothing where heading or size of the photo are not known.

    Args:
        plan: the look that believes all hints.
        aspect: height over width of the photo.
        gallery: has the windows.
        found: the best windows; loose pictures among them are left out.
    """
    side_m = plan.side_m(plan.look(aspect))
    if side_m is None or not plan.heading_known:
        return []
    sides_m, nearest_m = gallery.geometry(found)[1], gallery.nearest_sides_m(found, side_m)
    with np.errstate(invalid="ignore"):
        octaves = np.log2(sides_m / side_m)
        of_use = (found.ids >= FIRST_WINDOW) & (np.abs(octaves) <= OCTAVES) & (sides_m < nearest_m * SAME_SIZE)
        of_use &= sides_m * SAME_SIZE > nearest_m
        size = np.rint(octaves / math.log2(SAME_SIZE))
    overs = []
    for each in np.unique(size[of_use]):
        rows = np.flatnonzero(of_use & (size == each))
        of_size_m = float(np.median(sides_m[rows]))
        look = plan.square(aspect, of_size_m)
        if len(rows) >= LEAST_WINDOWS and look is not None:
            overs.append(Over(found.take(rows), look, of_size_m))
    return overs


def lay_over(
    overs: Sequence[Over],
    locals_: Sequence[NDArray[np.float32]],
    gallery: Gallery,
    calibration: Calibration,
    prior: Circle | None,
) -> Ranking:
    """Find the place that stands out: a ranking of the one window there, with matches.

    Args:
        overs: what is laid over what; at least one.
        locals_: descriptors ``[C, h, w]`` of the square of each.
        gallery: has the ground's.
        calibration: of the model.
        prior: the photo's centre lies in this circle.
    """
    squares = [each for over, local in zip(overs, locals_, strict=True) if (each := square_of(over, local)) is not None]
    centre = gallery.geometry(overs[0].windows.take(np.array([0])))[0][0]
    origin = float(centre[0]), float(centre[1])
    tried = [place for square in squares for place in places_of(square, gallery, origin, prior)]
    best = max(tried, key=lambda each: each.stands_out, default=None)
    if best is None:
        return unmatched([], calibration)
    apart_m = APART * best.square.over.side_m
    second = max((e.stands_out for e in tried if abs(e.photo_m - best.photo_m) > apart_m), default=best.stands_out)
    odds = (best.stands_out - second) * max(0.0, second)
    worth = calibration.local.min_inliers * (CHANCE + ODDS_WORTH * odds)
    over, (down, across) = best.square.over, best.square.half
    off = np.abs(over.cells[:, 2] * down - best.top) + np.abs(over.cells[:, 3] * across - best.left)
    off[(over.cells[:, :2] != best.map_zoom).any(axis=1)] = np.iinfo(np.int64).max
    nearest = int(off.argmin())
    hits = gallery.hits(over.windows.take(np.array([nearest])))
    row, column = (int(each) for each in over.cells[nearest, 2:])
    found = _matches(best, gallery, best.top - row * down, best.left - column * across, worth)
    if not hits or found is None or found.fit is None:
        return unmatched(hits, calibration)
    return ranked([replace(hits[0], inliers=found.fit.count)], [found], calibration, [])


def _matches(place: Place, gallery: Gallery, below: int, right: int, worth: float) -> Matches | None:
    """What of the photo is alike to what around the place that it lies at, ``below`` and ``right`` of a window."""
    square, over = place.square, place.square.over
    height, width = square.shown.shape
    corner = np.array([*place.map_zoom, place.top - AROUND, place.left - AROUND], np.int64)
    stored = ground_at(gallery, square, corner, (height + 2 * AROUND, width + 2 * AROUND))
    there, ground = there_in(stored)[None], unit(stored, axis=0)[None]
    ground = without(mean_of(ground, there), ground, there)[0]
    best, moved = np.full((height, width), -np.inf, np.float32), np.zeros((height, width), np.complex128)
    for i, j in np.ndindex(2 * AROUND + 1, 2 * AROUND + 1):
        alike = (square.own * ground[:, i : i + height, j : j + width]).sum(axis=0)
        moved[alike > best] = (j - AROUND) / width - 1j * (i - AROUND) / height
        best = np.maximum(best, alike)
    used = square.shown & (best > 0)
    points = cell_centres(height, width).reshape(height, width)
    ground_m = over.side_m * (points + right / width - 1j * below / height + moved)[used]
    tolerance_m = np.full(len(ground_m), INLIER_CELLS * over.side_m / width)
    sides_m = over.side_m / LAID_SCALE, over.side_m * LAID_SCALE
    fit = fit_similarity(points[used], ground_m, tolerance_m, sides_m, within_deg=LAID_DEG)
    seen = Seen(over.look, square.local[None], 0, LAID_DEG, sides_m)
    return None if fit is None else Matches(points[used], ground_m, tolerance_m, seen, fit, worth, again=True)
