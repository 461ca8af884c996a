"""The confidence calibration that travels inside the model file (``aerofix.calibration``)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, replace
from typing import Any

# accuracy_m is a 68 % radius; a `located` answer must be right more often than that for the radius to exist.
ACCURACY_PROBABILITY = 0.68

MIN_INLIERS = 25
"""This counts where the model file has no better number. Between unrelated smooth random maps of 24² and 32² cells at
most 15 matches agree; between maps of the same ground half a side apart, at least 93 (``benchmarks/refine.py``)."""

INLIER_WEIGHT = 1.0
"""This counts where the model file has no better number: e times the support is worth this much cosine. Geometry comes
first: with other dates and slanting views, strangers have cosines that are higher by 0.2, and right places twice the
support."""

CHANCE_SHARE = 0.25
"""Below this share of ``min_inliers`` one support is as good as another."""

_SECTIONS = ("place", "in_gallery", "local")  # the fields that are no numbers


@dataclass(frozen=True)
class Logistic:
    """P = 1 / (1 + exp(−(bias + score·s + margin·m))), fitted on held-out photos (Platt 1999).

    Attributes:
        fitted_on: answers that it was fitted on; None: not said. However clear a case, n answers do not tell it from
            one that goes wrong once in n + 2 times (Laplace's rule of succession): P stays that far from 0 and 1.
    """

    bias: float
    score: float
    margin: float
    fitted_on: int | None = None

    def __call__(self, score: float, margin: float) -> float:
        """Probability in [0, 1] for a cosine ``score`` and its ``margin`` over the best rival."""
        z = self.bias + self.score * score + self.margin * margin
        probability = 0.5 * (1.0 + math.tanh(0.5 * z))  # the logistic function, without overflow for large |z|
        unseen = 0.0 if self.fitted_on is None else 1.0 / (self.fitted_on + 2)
        return min(max(probability, unseen), 1.0 - unseen)


@dataclass(frozen=True)
class LocalCalibration:
    """What matches of local descriptors are worth: the optional section ``local``.

    Attributes:
        min_inliers: what unrelated maps do not reach; a position needs as many.
        inlier_weight: see ``evidence``.
        sigma_scale: a position from matches errs by so many times what their spread says (``refine.Fix.sigma_m``).
        sigma_floor_tiles: Rayleigh scale of what all photos of a flight err by alike: distortions of lens and map.
        turns: 4 when descriptors know only turns of up to 50° or so: a photo of unknown heading is then matched as it
            is and turned by 90°, 180° and 270°. 1 when they know any.
        judge: how *evidence* turns into probabilities, and the error of positions from matches: the calibration, with
            what the section overrides. None without a section: then cosines are judged, as for any other model.
    """

    min_inliers: int = MIN_INLIERS
    inlier_weight: float = INLIER_WEIGHT
    sigma_scale: float = 1.0
    sigma_floor_tiles: float = 0.0
    turns: int = 1
    judge: Calibration | None = None

    def evidence(self, score: float, support: float | None) -> float:
        """Return cosine and matches in one number: ``score + inlier_weight · ln((support + c) / (min_inliers + c))``.

        Support counts inliers by their spread (``service/localization/evidence.py``). c, a quarter of ``min_inliers``,
        keeps what lies below chance comparable; candidates that nobody matched have no support.
        """
        chance = CHANCE_SHARE * self.min_inliers
        return score + self.inlier_weight * math.log(((support or 0.0) + chance) / (self.min_inliers + chance))


@dataclass(frozen=True)
class Calibration:
    """How scores of this model turn into probabilities, metres and a status.

    Attributes:
        place: P(the best place is the right one).
        in_gallery: P(the photo shows a place that the gallery covers).
        rival_floor: cosine that a rival has at least; keeps the margin meaningful in a gallery without rivals.
        sigma_tiles: Rayleigh scale of the position error of right answers, in tile sides.
        located_min_confidence: from this P(place) on the status is ``located``; above 0.68.
        not_found_below: under this P(in gallery) an answer that is not located is ``not_found``.
        refine_temperature: softmax temperature of the weights of neighbouring tiles, in cosine units.
        local: for models with local descriptors.
    """

    place: Logistic
    in_gallery: Logistic
    rival_floor: float
    sigma_tiles: float
    located_min_confidence: float
    not_found_below: float
    refine_temperature: float
    local: LocalCalibration = LocalCalibration()

    @classmethod
    def parse(cls, text: str) -> Calibration:
        """Read the JSON of the model metadata.

        Raises:
            ValueError: naming the entry that is missing or out of range.
        """
        raw = json.loads(text)
        if not isinstance(raw, dict) or raw.get("version") != 1:
            raise ValueError("it must be a JSON object with version 1")
        calibration = cls._of(raw)
        section = raw.get("local")
        if section is None:
            return calibration
        if not isinstance(section, dict):
            raise ValueError("local must be an object")
        try:
            return replace(calibration, local=_local(section, cls._of(raw | section)))
        except ValueError as error:
            raise ValueError(f"local: {error}") from error

    @classmethod
    def _of(cls, raw: dict[str, Any]) -> Calibration:
        numbers = {field.name: _finite(raw, field.name) for field in fields(cls) if field.name not in _SECTIONS}
        place, in_gallery = _logistic(raw, "place"), _logistic(raw, "in_gallery")
        calibration = cls(place=place, in_gallery=in_gallery, local=LocalCalibration(), **numbers)
        if not ACCURACY_PROBABILITY < calibration.located_min_confidence <= 1:
            raise ValueError(f"located_min_confidence must lie in ({ACCURACY_PROBABILITY}, 1]")
        if not 0 <= calibration.not_found_below <= 1:
            raise ValueError("not_found_below must lie in [0, 1]")
        if calibration.sigma_tiles <= 0 or calibration.refine_temperature <= 0:
            raise ValueError("sigma_tiles and refine_temperature must be positive")
        return calibration


def _local(section: dict[str, Any], judge: Calibration) -> LocalCalibration:
    min_inliers, inlier_weight = _finite(section, "min_inliers"), _finite(section, "inlier_weight")
    if not (min_inliers >= 3 and min_inliers == int(min_inliers)):
        raise ValueError("min_inliers must be a whole number of at least 3: any two matches agree")
    optional = {"sigma_scale": 1.0, "sigma_floor_tiles": 0.0, "turns": 1} | section
    sigma_scale, sigma_floor = _finite(optional, "sigma_scale"), _finite(optional, "sigma_floor_tiles")
    if min(inlier_weight, sigma_floor) < 0:
        raise ValueError("inlier_weight and sigma_floor_tiles must not be negative")
    if sigma_scale <= 0:
        raise ValueError("sigma_scale must be positive")
    turns = _finite(optional, "turns")
    if turns not in {1, 4}:
        raise ValueError("turns must be 1 or 4")
    return LocalCalibration(int(min_inliers), inlier_weight, sigma_scale, sigma_floor, int(turns), judge)


def _logistic(raw: dict[str, Any], name: str) -> Logistic:
    part = raw.get(name)
    if not isinstance(part, dict):
        raise ValueError(f"{name} must be an object with bias, score and margin")
    fitted_on = None
    if "fitted_on" in part:
        answers = _finite(part, "fitted_on", f"{name}.")
        if answers < 0 or answers != int(answers):
            raise ValueError(f"{name}.fitted_on must be a whole number, not negative")
        fitted_on = int(answers)
    bias, score, margin = (_finite(part, key, f"{name}.") for key in ("bias", "score", "margin"))
    return Logistic(bias, score, margin, fitted_on)


def _finite(raw: dict[str, Any], key: str, prefix: str = "") -> float:
    value = raw.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{prefix}{key} must be a finite number")
    return float(value)
