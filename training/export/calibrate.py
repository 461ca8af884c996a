"""How far the model's scores can be trusted: fitted on held-out places, stored in the ONNX file.

The service turns a search into two features, and so does this module:

* ``score``: cosine of the best tile;
* ``margin``: that score minus the best score among tiles whose centres lie more than ``NEAR_SIDES`` tile sides from the
  best tile's, and at least ``rival_floor``.

Two logistic curves over them give P(the answer is right) and P(the place is in the gallery); a Rayleigh scale gives the
error of right answers. All constants and the choice of features are our reconstruction of what a user needs (a
probability and a radius); no paper of the five methods has them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.simulator.pairs import PairSimulator, cut_tiles
from training.data.simulator.simulated import SimulatedConfig
from training.data.simulator.textures import Texture
from training.data.transforms import augment
from training.errors import TrainingError
from training.models.encoder import Encoder, as_input

#: An answer is right when it lies within half a tile side of the truth.
RIGHT_WITHIN_SIDES = 0.5
#: Tiles this close, in tile sides, are of one place. A little over 1: with half overlap the tile two steps on lies at 1
#: exactly, and rounding must not decide. ``service/localization/refine.py`` has the same number.
NEAR_SIDES = 1.1
#: ``accuracy_m`` holds the truth as often as this.
ACCURACY_SHARE = 0.68
#: The radius of that share over the scale of a Rayleigh distribution.
RADIUS_SIGMAS = math.sqrt(-2 * math.log(1 - ACCURACY_SHARE))
#: Photos of places outside the map, as a share of all: the odds that confidence assumes.
OUTSIDE_SHARE = 0.25
#: Of photos of other places, at most this share may be called located: half of what users are promised (one in a
#: hundred), because real photos of other places fool more than simulated ones.
FALSE_LOCATED_SHARE = 0.005
#: ``located`` needs more than 68 %, or there is no 68 % radius; and more again, because one of 80 real photos of other
#: places reaches 0.81.
LOCATED_CONFIDENCE_RANGE = (0.85, 0.95)
PHOTOS_PER_PLACE = 4
SCENE_TILE_SHARE = 0.5  # a scene is two tile sides wide: nine half-overlapping tiles
#: Softmax temperatures that are tried for the mean of neighbouring tiles, in cosine units.
TEMPERATURES = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)
FEWEST_TEXTURES = 20
FEWEST_RIGHT = 10

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """M searches of known truth, each in a gallery of G tiles of its own.

    Attributes:
        scores: ``[M, G]`` cosine of each tile; -inf where the search's gallery has no such tile.
        centres: ``[G, 2]`` tile centres in tile sides, on a plane where scenes lie far apart; ``[M, G, 2]`` when each
            search has other tiles.
        truth: ``[M, 2]`` ground point at the photo's centre, same units; NaN when its place is not in the gallery.
    """

    scores: Floats
    centres: Floats
    truth: Floats

    @property
    def inside(self) -> NDArray[np.bool_]:
        """``[M]`` the photo's place is in the gallery that was searched."""
        return ~np.isnan(self.truth[:, 0])

    def centre(self, best: NDArray[np.int64]) -> Floats:
        """Return ``[M, 2]`` centre of each search's tile ``best [M]``."""
        return np.broadcast_to(self.centres, (*self.scores.shape, 2))[np.arange(len(best)), best]

    def gaps(self, best: NDArray[np.int64]) -> Floats:
        """Return ``[M, G]`` distance of every tile's centre from that of ``best [M]``."""
        distances: Floats = np.linalg.norm(self.centres - self.centre(best)[:, None], axis=-1)
        return distances


def require_enough(textures: list[Texture]) -> None:
    """Refuse to fit curves on too few held-out places.

    Raises:
        TrainingError: they are too few.
    """
    if len(textures) < FEWEST_TEXTURES:
        raise TrainingError(
            f"{len(textures)} held-out textures are too few to calibrate on ({FEWEST_TEXTURES} needed): "
            "raise data.held_out_share, or export with --no-calibrate."
        )


def held_out_answers(encoder: Encoder, textures: list[Texture], data: SimulatedConfig, *, seed: int) -> Answers:
    """Search simulated photos of held-out textures in galleries of 5 to all of the scenes, a quarter without their own.

    Raises:
        TrainingError: there are too few held-out textures.
    """
    require_enough(textures)
    simulator = PairSimulator(textures, data, encoder.config.image_size, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    steps = torch.tensor([-0.5, 0.0, 0.5]) * data.tile_side_m
    grid = torch.cartesian_prod(steps, steps)  # nine tile centres, east and north in metres
    tiles, photos, truth, owner = [], [], [], []
    for start in range(0, len(textures), 16):
        index = torch.arange(start, min(start + 16, len(textures)))
        scene = simulator.scenes(index, SCENE_TILE_SHARE, generator)
        cut = torch.stack(
            [cut_tiles(scene, g.expand(len(index), 2), data.tile_side_m, encoder.config.image_size) for g in grid]
        )
        tiles.append(_embed(encoder, augment(cut.transpose(0, 1).flatten(0, 1), generator, strength=0.3)))
        for _ in range(PHOTOS_PER_PLACE):
            target = (torch.rand(len(index), 2, generator=generator) - 0.5) * data.tile_side_m
            views = simulator.photos(scene, target, generator)
            photos.append(_embed(encoder, augment(views.image, generator)))
            truth.append(views.centre[:, :2].numpy() / data.tile_side_m)
            owner.append(index.numpy())
    origins = np.stack((np.arange(len(textures)) * 1e4, np.zeros(len(textures))), axis=1)  # scenes far apart
    centres = (origins[:, None] + grid.numpy()[None] / data.tile_side_m).reshape(-1, 2)
    who = np.concatenate(owner)
    where = np.concatenate(truth) + origins[who]
    scores = np.concatenate(photos) @ np.concatenate(tiles).T
    rng = np.random.default_rng(seed)
    known = ~np.isnan(where[:, 0])
    searched, away = _galleries(textures, who[known], rng)
    where = np.where(away[:, None], np.nan, where[known])
    return Answers(np.where(np.repeat(searched, len(grid), axis=1), scores[known], -np.inf), centres, where)


def _galleries(
    textures: list[Texture], owner: NDArray[Any], rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Scenes that each search sees ``[M, scenes]``, and whether its own was left out ``[M]``.

    Half of the galleries are drawn from the photo's own folder first: a real map is all of one kind of country.
    """
    groups = np.array([t.group for t in textures])
    searched = np.zeros((len(owner), len(textures)), dtype=bool)
    away = rng.random(len(owner)) < OUTSIDE_SHARE
    for row, own in enumerate(owner):
        size = int(np.exp(rng.uniform(np.log(5), np.log(len(textures)))))
        kin = (groups == groups[own]) if rng.random() < 0.5 else np.zeros(len(textures), dtype=bool)
        order = np.argsort(rng.random(len(textures)) - kin)
        searched[row, order[:size]] = True
        searched[row, own] = not away[row]
    return searched, away


def _embed(encoder: Encoder, images: torch.Tensor) -> Floats:
    with torch.no_grad():
        parts = [encoder(as_input(x)) for x in torch.split(images, 64)]
    return torch.cat(parts).double().numpy()


def features(answers: Answers, rival_floor: float) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return ``(score [M], margin [M], best tile [M])`` of searches, as the module's docstring defines them."""
    best = answers.scores.argmax(1)
    score = answers.scores.max(1)
    return score, score - np.maximum(_rival_scores(answers, best), rival_floor), best


def _rival_scores(answers: Answers, best: NDArray[np.int64]) -> Floats:
    rivals: Floats = np.where(answers.gaps(best) > NEAR_SIDES, answers.scores, -np.inf).max(1)
    return rivals


def refined_errors(answers: Answers, best: NDArray[np.int64], temperature: float) -> Floats:
    """Measure ``[M]`` tile sides from the truth to the softmax-weighted centre of the tiles near the best one."""
    logits = np.where(answers.gaps(best) <= NEAR_SIDES, answers.scores, -np.inf) / temperature
    weights = np.exp(logits - logits.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    position = np.einsum("mg,gd->md" if answers.centres.ndim == 2 else "mg,mgd->md", weights, answers.centres)
    errors: Floats = np.linalg.norm(position - answers.truth, axis=1)
    return errors


def calibrate(
    answers: Answers, errors: Floats | None = None, weights: Floats | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Fit everything that ``aerofix.calibration`` holds; returns it with a report, a line each.

    Args:
        answers: what was found.
        errors: ``[M]`` distance in tile sides from the truth to the position that was answered, where another way than
            the mean of neighbouring tiles made it; then there is no ``refine_temperature`` to fit.
        weights: ``[M]`` how many answers each counts for in the curves; None: one.

    Raises:
        TrainingError: hardly any answer is right, so that there is no error of right answers to measure.
    """
    rival_floor = float(np.median(_rival_scores(answers, answers.scores.argmax(1))))
    score, margin, best = features(answers, rival_floor)
    inside, fitted = answers.inside, dict[str, Any](version=1)
    nearby = inside & (np.linalg.norm(answers.centre(best) - answers.truth, axis=1) < 1)
    if nearby.sum() < FEWEST_RIGHT:
        raise TrainingError(
            f"Only {int(nearby.sum())} of {int(inside.sum())} held-out photos were found, too few to calibrate on "
            f"({FEWEST_RIGHT} needed): train longer, or export with --no-calibrate."
        )
    if errors is None:
        temperature = min(TEMPERATURES, key=lambda t: float(np.median(refined_errors(answers, best, t)[nearby])))
        fitted["refine_temperature"] = temperature
        errors = refined_errors(answers, best, temperature)
    right = inside & (errors < RIGHT_WITHIN_SIDES)
    place, in_gallery = (fit_logistic(score, margin, target, weights) for target in (right, inside))
    confidence = probability(place, score, margin)
    low, high = LOCATED_CONFIDENCE_RANGE
    located_min = float(np.clip(np.quantile(confidence[~inside], 1 - FALSE_LOCATED_SHARE), low, high))
    fitted |= {
        "place": place,
        "in_gallery": in_gallery,
        "rival_floor": rival_floor,
        "sigma_tiles": rayleigh_sigma(errors[right]),
        "located_min_confidence": located_min,
        "not_found_below": 0.5,
    }
    located = confidence >= located_min
    report = [
        f"held-out photos: {len(score)}, of these {int((~inside).sum())} of places outside the searched gallery",
        f"right place, inside: {right[inside].mean():.3f}; located, inside: {located[inside].mean():.3f}",
        f"located though outside: {located[~inside].mean():.3f}; "
        + (f"right when located: {right[located].mean():.3f}" if located.any() else "none was located"),
        f"error of right answers: median {np.median(errors[right]):.3f}, "
        f"68 % {np.quantile(errors[right], 0.68):.3f} tile sides",
        f"expected calibration error of confidence: {calibration_error(confidence, right):.3f} (on the fitted photos)",
    ]
    return fitted, report


def rayleigh_sigma(errors: Floats) -> float:
    """Return the scale of the Rayleigh distribution with ``ACCURACY_SHARE`` below that quantile of the errors."""
    return float(np.quantile(errors, ACCURACY_SHARE)) / RADIUS_SIGMAS


def untrained_calibration() -> dict[str, Any]:
    """Return what a file without calibration says: all answers are coin tosses, so nothing is ever called located."""
    flat = {"bias": 0.0, "score": 0.0, "margin": 0.0}
    return {
        "version": 1,
        "place": flat,
        "in_gallery": flat,
        "rival_floor": 0.0,
        "sigma_tiles": 0.5,
        "located_min_confidence": 0.95,
        "not_found_below": 0.5,
        "refine_temperature": 0.05,
    }


def fit_logistic(
    score: Floats, margin: Floats, target: NDArray[np.bool_], weights: Floats | None = None, *, ridge: float = 1e-2
) -> dict[str, float]:
    """Fit the likeliest logistic curve over (1, score, margin) by Newton's method, slopes lightly held to zero."""
    counts = np.ones_like(score) if weights is None else weights
    x = np.stack((np.ones_like(score), score, margin), axis=1)
    slopes, penalty = np.zeros(3), np.diag([0.0, ridge, ridge])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ slopes, -30, 30)))
        gradient = x.T @ (counts * (p - target)) + penalty @ slopes
        curvature = (x * (counts * p * (1 - p))[:, None]).T @ x + penalty + 1e-9 * np.eye(3)
        step = np.linalg.solve(curvature, gradient)
        slopes = slopes - step * min(1.0, 5.0 / max(1e-12, float(np.abs(step).max())))
    curve = dict(zip(("bias", "score", "margin"), (float(w) for w in slopes), strict=True))
    return curve | {"fitted_on": len(score)}


def probability(curve: dict[str, float], score: Floats, margin: Floats) -> Floats:
    """Return the curve's value at each (score, margin), as far from 0 and 1 as the answers it was fitted on allow."""
    z = curve["bias"] + curve["score"] * score + curve["margin"] * margin
    unseen = 1 / (curve["fitted_on"] + 2) if "fitted_on" in curve else 0.0
    p: Floats = np.clip(1 / (1 + np.exp(-np.clip(z, -30, 30))), unseen, 1 - unseen)
    return p


def calibration_error(confidence: Floats, right: NDArray[np.bool_], bins: int = 10) -> float:
    """Return the expected calibration error: mean gap of confidence and share of right answers, in equal-width bins."""
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[which == b].mean() - right[which == b].mean()) * (which == b).mean() for b in set(which)]
    return float(sum(gaps))
