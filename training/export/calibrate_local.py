"""The calibration of a model with dense descriptors: what matches are worth, and how far they can be trusted.

Candidates are ordered by ``evidence``, cosine and matches in one number (``service/encoder/calibration.py``):

    evidence = score + inlier_weight · ln((support + c) / (min_inliers + c)),  c = min_inliers / 4

Support counts inliers by how far they spread; the service tells it. ``min_inliers`` is what wrong tiles hardly ever
reach; it, and the curves over evidence in place of the score, are fitted on a rehearsal
(``training/export/rehearsal.py``). Ours; the papers re-rank by sums of cosines.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.export.calibrate import (
    ACCURACY_SHARE,
    RADIUS_SIGMAS,
    RIGHT_WITHIN_SIDES,
    Answers,
    Floats,
    calibrate,
    calibration_error,
    features,
    probability,
)
from training.export.rehearsal import Rehearsal

#: Share of wrong tiles that may reach ``min_inliers``.
CHANCE = 0.01
#: e times as many matches are worth a cosine of 1. From 0.7 to 1.4 all weights find as many of 742 places, and single
#: photos decide which tells right from wrong best. At 0.5 half of what is right between high buildings becomes unsure.
INLIER_WEIGHT = 1.0
#: Share of ``min_inliers`` that is added to support, as the service adds it.
CHANCE_SHARE = 0.25
#: What a flight's lens and map add to the error of all its positions alike, in descriptor cells: a guess, which leaves
#: the larger part to each photo (``fit_scale``).
FLOOR_CELLS = 0.15
#: Positions are never taken to be more exact than this share of the spread of their matches.
LEAST_SCALE = 0.1
#: So many real photos that are laid on the ground tell how exactly.
ENOUGH_REAL = 20
#: Photos of real flights are few beside simulated ones; each counts for so many of these.
REAL_WEIGHT = 5.0
#: A wrong tile is this far, in tile sides, from the truth: nearer ones show some of the same ground.
APART_SIDES = 1.5


@dataclass(frozen=True)
class Evidence:
    """How matches are weighed."""

    min_inliers: int
    inlier_weight: float

    def __call__(self, rehearsal: Rehearsal) -> Floats:
        """``[M, C]`` evidence of each candidate."""
        chance = CHANCE_SHARE * self.min_inliers
        found = (rehearsal.support + chance) / (self.min_inliers + chance)
        total: Floats = rehearsal.scores + self.inlier_weight * np.log(found)
        return total


def calibrate_local(
    base: dict[str, Any], answer: Callable[[dict[str, Any]], Rehearsal], *, turns: int = 1, cell_tiles: float = 0.0
) -> tuple[dict[str, Any], list[str]]:
    """Add the section ``local`` to a calibration of cosines.

    Args:
        base: that calibration.
        answer: holds a rehearsal with the calibration it is given.
        turns: in how many turns the service is to match a photo of unknown heading.
        cell_tiles: side of the ground that a descriptor stands for, in tile sides.

    Returns:
        The calibration and a report, a line each.

    Raises:
        TrainingError: hardly any answer is right.
    """
    first = answer(_provisional(base, Evidence(50, INLIER_WEIGHT), turns))
    evidence = fit_evidence(first.of(~first.judged))
    final = answer(_provisional(base, evidence, turns))
    some = final.of(~final.judged)
    weights = np.where(some.real, REAL_WEIGHT, 1.0)
    fitted, report = calibrate(Answers(evidence(some), some.centres, some.truth), some.errors, weights)
    floor = FLOOR_CELLS * cell_tiles
    section = {"min_inliers": evidence.min_inliers, "inlier_weight": evidence.inlier_weight, "turns": turns}
    section |= {name: value for name, value in fitted.items() if name != "version"}
    located = confidence_of(some, evidence, section) >= section["located_min_confidence"]
    section |= {"sigma_scale": fit_scale(some.of(located), floor), "sigma_floor_tiles": floor}
    lines = [f"matches: {evidence.min_inliers} count, e times as many are worth a cosine of {evidence.inlier_weight}"]
    lines += [f"with matches: {line}" for line in report]
    for name, real in (("simulated", False), ("real", True)):
        lines += judged(name, final.of(final.judged & (final.real == real)), evidence, section)
    return base | {"local": section}, lines


def fit_evidence(rehearsal: Rehearsal) -> Evidence:
    """Find the fewest inliers that wrong tiles hardly ever reach, and ``INLIER_WEIGHT``."""
    gaps = np.linalg.norm(rehearsal.centres - rehearsal.truth[:, None], axis=-1)
    matched = rehearsal.support > 0
    wrong = matched & ~(gaps < APART_SIDES)  # NaN, a photo of elsewhere, is far from everything
    fewest = max(3, int(np.ceil(np.quantile(rehearsal.support[wrong], 1 - CHANCE)))) if wrong.any() else 3
    return Evidence(fewest, INLIER_WEIGHT)


def fit_scale(rehearsal: Rehearsal, floor: float) -> float:
    """Fit by how much right positions err more than their matches' spread says, so that 68 % lie within the radius.

    The error is Rayleigh of scale ``sqrt((scale · spread)² + floor²)``. Real photos decide alone where there are enough
    of them: lenses, relief and maps make them err by half as much again as simulated ones.

    Args:
        rehearsal: answers that are located; the radius of others holds a second place.
        floor: in tile sides.
    """
    use = (rehearsal.errors < RIGHT_WITHIN_SIDES) & np.isfinite(rehearsal.spread)  # NaN is never right
    if (use & rehearsal.real).sum() >= ENOUGH_REAL:
        use &= rehearsal.real
    if not use.any():
        return 1.0
    off = rehearsal.errors[use] / RADIUS_SIGMAS
    squares = np.maximum(off**2 - floor**2, 0.0) / rehearsal.spread[use] ** 2
    return max(LEAST_SCALE, math.sqrt(np.quantile(squares, ACCURACY_SHARE)))


def confidence_of(some: Rehearsal, evidence: Evidence, section: dict[str, Any]) -> Floats:
    """Tell how sure the fitted calibration is of answers, ``[M]``."""
    score, margin, _ = features(Answers(evidence(some), some.centres, some.truth), section["rival_floor"])
    return probability(section["place"], score, margin)


def judged(name: str, some: Rehearsal, evidence: Evidence, section: dict[str, Any]) -> list[str]:
    """Tell what the fitted calibration says of answers that it was not fitted on, and what is true of them."""
    if not len(some.truth):
        return []
    confidence = confidence_of(some, evidence, section)
    right, located = some.errors < RIGHT_WITHIN_SIDES, confidence >= section["located_min_confidence"]
    sigma = np.hypot(section["sigma_scale"] * some.spread, section["sigma_floor_tiles"])
    inside = some.errors < sigma * RADIUS_SIGMAS
    laid = right & located & np.isfinite(some.spread)
    return [
        f"{name} photos that nothing was fitted on: {len(right)}; right {right.sum()}, located {located.sum()}, "
        f"of these right {(right & located).sum()}; error of confidence {calibration_error(confidence, right):.3f}; "
        f"within the radius {inside[laid].mean() if laid.any() else math.nan:.2f}"
    ]


def _provisional(base: dict[str, Any], evidence: Evidence, turns: int) -> dict[str, Any]:
    """A calibration under which every answer has a position, whose error is the spread of its matches."""
    local = {"min_inliers": evidence.min_inliers, "inlier_weight": evidence.inlier_weight}
    return base | {"local": local | {"turns": turns, "not_found_below": 0.0}}
