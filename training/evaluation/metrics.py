"""What a ranking is worth: recall, average precision, and metres.

Queries without a positive count as failures: they add nothing to the sums and stay in the denominators, as in the
evaluator of University-1652 (Zheng et al., ACM MM 2020), which SUES-200, LPN and MCCG share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.data.base import EARTH_RADIUS_M, Images, Task
from training.errors import TrainingError
from training.evaluation.search import Floats, Ints, Ranking

RECALL_AT = (1, 5, 10)
SDM_AT = (1, 3, 5, 10)
DISTANCE_AT = (1, 3, 5)
WITHIN_M = (1, 5, 10, 25, 50)


@dataclass(frozen=True)
class Sdm:
    """How fast the spatial distance metric falls with distance.

    Attributes:
        unit: of the distance; ``degrees`` is the plain distance of the (lat, lon) numbers.
        scale: s, per unit.
    """

    unit: Literal["degrees", "metres"]
    scale: float


#: SDM as the authors of DenseUAV (Dai et al., IEEE TIP 2024) and of GTA-UAV (Ji et al., AAAI 2025) compute it.
SDM: Mapping[str, Sdm] = {"denseuav": Sdm("degrees", 5000.0), "gta_uav": Sdm("metres", 0.001)}


def metrics(ranking: Ranking, task: Task, *, full_gallery: int, sdm: Mapping[str, Sdm] = SDM) -> dict[str, float]:
    """Measure everything that the data allows, by name.

    Args:
        ranking: of the task's queries in the task's gallery, 10 or more rows each if there are so many.
        task: what was asked; positions are used when both sides have them.
        full_gallery: size of the gallery before any filter; R@1 % counts from it.
        sdm: the variants of SDM to compute, by name.

    Returns:
        Shares from 0 to 1: ``recall@1``, ``recall@5``, ``recall@10``, ``recall@1%``, ``ap`` (trapezoid), ``ap_plain``,
        ``hit_rate`` (with semi-positives only), and with positions ``within_{1,5,10,25,50}m`` and ``sdm_{name}@{k}``.
        Metres: ``error_median_m``, ``error_mean_m``, ``dis_m@{k}``.

    Raises:
        TrainingError: a position is not finite.
    """
    first = ranking.first
    result = {f"recall@{k}": float((first < k).mean()) for k in RECALL_AT}
    result["recall@1%"] = float((first < one_percent(full_gallery)).mean())
    precisions = np.array([average_precision(ranks) for ranks in ranking.ranks])
    result["ap"], result["ap_plain"] = (float(v) for v in precisions.mean(0))
    if ranking.hit is not None:
        result["hit_rate"] = float(ranking.hit.mean())
    asked, held = _positions(task.queries), _positions(task.gallery)
    if asked is not None and held is not None:
        result |= position_metrics(asked, held[ranking.top], sdm)
    return result


def one_percent(full_gallery: int) -> int:
    """Return K of "R@1 %": the authors read their curve at index round(0.01 G) from 0, one further than it sounds."""
    return round(0.01 * full_gallery) + 1


def average_precision(ranks: Ints) -> tuple[float, float]:
    """Return AP of a query from its positives' 0-based ranks, ascending: (trapezoid, plain); 0 without a positive.

    Trapezoid is the data-set authors' AP (after the Oxford Buildings evaluation, Philbin et al., CVPR 2007): the mean
    over positives of the precision at it and just before it. With one positive at rank r = 2, 3, … (from 1) it is
    1/(2r), where plain AP is 1/r.
    """
    if not len(ranks):
        return 0.0, 0.0
    found = np.arange(1, len(ranks) + 1)
    at = found / (ranks + 1)
    before = np.where(ranks == 0, 1.0, (found - 1) / np.maximum(ranks, 1))
    return float((at + before).mean() / 2), float(at.mean())


def position_metrics(asked: Floats, answers: Floats, sdm: Mapping[str, Sdm] = SDM) -> dict[str, float]:
    """Measure how far the answers lie from the truth.

    Args:
        asked: ``[Q, 2]`` lat, lon of the queries.
        answers: ``[Q, K, 2]`` lat, lon of the answers, best first.
        sdm: variants of SDM, by name.
    """
    metres = distance_m(asked[:, None], answers)
    degrees = np.linalg.norm(asked[:, None] - answers, axis=-1)
    error = metres[:, 0]
    result = {f"within_{limit}m": float((error <= limit).mean()) for limit in WITHIN_M}
    result |= {"error_median_m": float(np.median(error)), "error_mean_m": float(error.mean())}
    for name, variant in sdm.items():
        distance = degrees if variant.unit == "degrees" else metres
        result |= {f"sdm_{name}@{k}": spatial_distance(distance[:, :k], variant.scale) for k in SDM_AT}
    # Dis@K as in the GTA-UAV evaluator: the mean distance of the first K answers
    return result | {f"dis_m@{k}": float(metres[:, :k].mean()) for k in DISTANCE_AT}


def spatial_distance(distance: Floats, scale: float) -> float:
    """Return SDM@K, the mean over queries: Σ (K-i+1) exp(-s dᵢ) / Σ (K-i+1), i = 1 … K (DenseUAV, Dai et al.).

    Args:
        distance: ``[Q, K]`` of the first K answers; a gallery of fewer than K images lowers K.
        scale: s, per unit of the distance.
    """
    weight = np.arange(distance.shape[1], 0, -1)
    return float((np.exp(-scale * distance) @ weight / weight.sum()).mean())


def distance_m(a: Floats, b: Floats) -> Floats:
    """Return great-circle distances of places ``[..., 2]`` (lat, lon), within 0.6 % of the geodesic; by haversine."""
    phi_a, phi_b = np.radians(a[..., 0]), np.radians(b[..., 0])
    half_lat, half_lon = (phi_b - phi_a) / 2, np.radians(b[..., 1] - a[..., 1]) / 2
    square = np.sin(half_lat) ** 2 + np.cos(phi_a) * np.cos(phi_b) * np.sin(half_lon) ** 2
    metres: Floats = 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.minimum(square, 1.0)))
    return metres


def _positions(images: Images) -> NDArray[np.float64] | None:
    if images.position is None:
        return None
    wrong = np.flatnonzero(~np.isfinite(images.position).all(1))
    if len(wrong):
        raise TrainingError(f"{images.name[wrong[0]]} has no finite position: complete the data set's coordinates.")
    return images.position
