"""How sure an answer is, and how far off it may be.

Two numbers describe a search: the best ``score`` (cosine) and its ``margin`` over the best *rival*, a candidate of
another place: one whose centre lies more than ``neighbours.NEAR_SIDES`` tile sides away. A rival counts with at least
``rival_floor``. The model file carries logistic functions of both, fitted on held-out photos. Where candidates were
matched, their *evidence* (``LocalCalibration.evidence``) can take the place of the score.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.encoder.calibration import ACCURACY_PROBABILITY, Calibration
from service.geo import haversine_m
from service.ground.records import Hit
from service.localization.neighbours import same_place

Status = Literal["located", "ambiguous", "not_found"]


@dataclass(frozen=True)
class Verdict:
    """What the candidates say together.

    Attributes:
        status: ``located`` when the place is sure enough; else ``not_found`` when the photo is probably of a place
            outside the gallery, ``ambiguous`` when not.
        confidence: P(the best place is the right one).
        candidate_confidences: the same for each candidate's own place, in the order of the hits.
        rival: the best candidate of another place, None when there is none.
    """

    status: Status
    confidence: float
    candidate_confidences: list[float]
    rival: Hit | None


def judge(hits: list[Hit], calibration: Calibration, evidence: Sequence[float] | None = None) -> Verdict:
    """Turn scores into probabilities and a status.

    A candidate that shares the best one's place shares its confidence; another's is the same function of its own score
    and of its own margin, over the best candidate far from *it*. No candidates at all is ``not_found``.

    Args:
        hits: best first; enough of them that a rival of another place is among them when the gallery has one.
        calibration: of the model that made the embeddings.
        evidence: what is judged of each hit; default: its score.
    """
    if not hits:
        return Verdict("not_found", 0.0, [], None)
    near = same_place(hits)
    scores = [hit.score for hit in hits] if evidence is None else evidence
    rivals = [_first_far(row) for row in near]
    margins = [_margin(score, scores, rival, calibration) for score, rival in zip(scores, rivals, strict=True)]
    confidence = calibration.place(scores[0], margins[0])
    if confidence >= calibration.located_min_confidence:
        status: Status = "located"
    elif calibration.in_gallery(scores[0], margins[0]) < calibration.not_found_below:
        status = "not_found"
    else:
        status = "ambiguous"
    confidences = [
        confidence if shares else calibration.place(score, margin)
        for score, margin, shares in zip(scores, margins, near[0], strict=True)
    ]
    rival = None if rivals[0] is None else hits[rivals[0]]
    return Verdict(status, confidence, confidences, rival)


def is_proven(support: float | None, min_inliers: int) -> bool:
    """Say whether as many matches agree on a place as unrelated ground does not reach; None: it was not matched."""
    return (support or 0.0) >= min_inliers


def with_proof(verdict: Verdict, support: float | None, min_inliers: int) -> Verdict:
    """Judge a photo that was matched: a place that no more matches agree on than chance gives is not sure.

    However alike two places look as a whole: strangers of one kind of country do.

    Args:
        verdict: from evidence.
        support: of the best candidate's matches.
        min_inliers: what unrelated ground does not reach.
    """
    proven = is_proven(support, min_inliers)
    return verdict if proven or verdict.status != "located" else replace(verdict, status="ambiguous")


def accuracy_m(verdict: Verdict, position: tuple[float, float], best: Hit, calibration: Calibration) -> float:
    """Return the radius round ``position`` that holds the truth with 68 % probability.

    A right answer errs by a Rayleigh distance of scale σ = ``sigma_tiles`` × tile side (a Gaussian in the plane), a
    wrong one is nowhere near, so P(error < r) = p · (1 − exp(−r² / 2σ²)). Solved for 68 %:

        r = σ · sqrt(−2 · ln(1 − 0.68 / p))

    At p ≤ 0.68 no radius round one place holds 68 %. The answer is then ambiguous, and the radius is that of the circle
    round the position which holds the best and the rival place, each with the 68 % Rayleigh radius of a right answer.
    """
    side_m = best.tile.footprint.side_m
    sigma_m = calibration.sigma_tiles * side_m
    if verdict.confidence > ACCURACY_PROBABILITY:
        return radius_m(sigma_m, verdict.confidence)
    places = [best] if verdict.rival is None else [best, verdict.rival]
    farthest_m = max(float(haversine_m(*position, *hit.tile.footprint.centre)) for hit in places)
    return farthest_m + radius_m(sigma_m, verdict.confidence)


def radius_m(sigma_m: float, confidence: float) -> float:
    """Give the 68 % radius of a place whose error is Rayleigh of scale ``sigma_m`` if it is right; see ``accuracy_m``.

    Of one that is right with 68 % or less there is none: then it is that of a right one.
    """
    wrong = ACCURACY_PROBABILITY / confidence if confidence > ACCURACY_PROBABILITY else ACCURACY_PROBABILITY
    return sigma_m * math.sqrt(-2 * math.log1p(-wrong))


def _first_far(near: NDArray[np.bool_]) -> int | None:
    """The best hit that is not ``near``."""
    far = np.flatnonzero(~near)
    return int(far[0]) if len(far) else None


def _margin(score: float, scores: Sequence[float], rival: int | None, calibration: Calibration) -> float:
    return score - (calibration.rival_floor if rival is None else max(scores[rival], calibration.rival_floor))
