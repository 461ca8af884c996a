"""The calibration of a model with dense descriptors: what matches are worth, and how far they can be trusted.

Candidates are ordered by ``evidence``, cosine and matches in one number (``service/encoder/calibration.py``):

    evidence = score + inlier_weight · ln((support + c) / (min_inliers + c)),  c = min_inliers / 4

Support counts inliers by how far they spread; the service tells it. ``min_inliers`` is what wrong tiles hardly ever
reach, ``inlier_weight`` what puts most photos in their place; both, and the curves over evidence in place of the score,
are fitted on a rehearsal (``training/export/rehearsal.py``). Ours; the papers re-rank by sums of cosines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.export.calibrate import RIGHT_WITHIN_SIDES, Answers, Floats, calibrate, rayleigh_sigma
from training.export.rehearsal import Rehearsal

#: Share of wrong tiles that may reach ``min_inliers``.
CHANCE = 0.01
#: Weights that are tried. Geometry comes first: simulated photos show the same picture as their tiles, so cosines are
#: better there than between dates; below 0.5 a stranger's cosine beats twice the support of the right place.
WEIGHTS = (0.5, 0.7, 1.0, 1.4, 2.0)
#: Share of ``min_inliers`` that is added to support, as the service adds it.
CHANCE_SHARE = 0.25
#: What real lenses, relief and maps add to the error of a position, in descriptor cells: so that of the development
#: flights two thirds lie within what is claimed (``benchmarks/real.py``).
FLOOR_CELLS = 0.25
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
    first = answer(_provisional(base, Evidence(50, 1.0), turns))
    evidence = fit_evidence(first)
    final = answer(_provisional(base, evidence, turns))
    errors = np.linalg.norm(final.positions - final.truth, axis=1)
    fitted, report = calibrate(Answers(evidence(final), final.centres, final.truth), errors)
    best = evidence(final).argmax(1)
    inliers = final.inliers[np.arange(len(best)), best]
    right = errors < RIGHT_WITHIN_SIDES  # NaN, a photo of elsewhere, is never right
    exponent, sigma = fit_sigma(inliers[right] / evidence.min_inliers, errors[right])
    section = {"min_inliers": evidence.min_inliers, "inlier_weight": evidence.inlier_weight, "turns": turns}
    section |= {name: value for name, value in fitted.items() if name != "version"}
    section |= {"sigma_exponent": exponent, "sigma_tiles": sigma, "sigma_floor_tiles": FLOOR_CELLS * cell_tiles}
    lines = [f"matches: {evidence.min_inliers} count, e times as many are worth a cosine of {evidence.inlier_weight}"]
    return base | {"local": section}, lines + [f"with matches: {line}" for line in report]


def fit_evidence(rehearsal: Rehearsal) -> Evidence:
    """The fewest inliers that wrong tiles hardly ever reach, and the weight that finds most places."""
    gaps = np.linalg.norm(rehearsal.centres - rehearsal.truth[:, None], axis=-1)
    matched = rehearsal.support > 0
    wrong = matched & ~(gaps < APART_SIDES)  # NaN, a photo of elsewhere, is far from everything
    fewest = max(3, int(np.ceil(np.quantile(rehearsal.support[wrong], 1 - CHANCE)))) if wrong.any() else 3
    inside = ~np.isnan(rehearsal.truth[:, 0])

    def found(weight: float) -> float:
        best = Evidence(fewest, weight)(rehearsal).argmax(1)
        return float((gaps[np.arange(len(best)), best] < 2 * RIGHT_WITHIN_SIDES)[inside].mean())

    return Evidence(fewest, max(WEIGHTS, key=found))


def fit_sigma(found: Floats, errors: Floats) -> tuple[float, float]:
    """How the error of right answers falls with their matches: ``error ~ sigma · found^-exponent``, Rayleigh.

    The exponent is the slope of a least-squares line through the logarithms; sigma makes 68 % lie within its radius.

    Args:
        found: ``[N]`` inliers over ``min_inliers``; below 1 counts as 1.
        errors: ``[N]`` in tile sides.

    Returns:
        ``(exponent, sigma)``, the exponent not negative.
    """
    log_found = np.log(np.maximum(1.0, found))
    spread = float(np.var(log_found))
    slope = float(np.cov(log_found, np.log(np.maximum(errors, 1e-6)), bias=True)[0, 1]) / spread if spread > 0 else 0.0
    exponent = max(0.0, -slope)
    return exponent, rayleigh_sigma(errors * np.exp(exponent * log_found))


def _provisional(base: dict[str, Any], evidence: Evidence, turns: int) -> dict[str, Any]:
    """A calibration under which every answer has a position."""
    local = {"min_inliers": evidence.min_inliers, "inlier_weight": evidence.inlier_weight}
    return base | {"local": local | {"turns": turns, "not_found_below": 0.0}}
