"""DPHR (arXiv 2510.27181): dual-level progressive hardness-aware reweighting, a plug-in for any host loss.

Two levels: RDA weighs each negative by how hard it is, PALW weighs the whole reweighted loss by how far training is.
The paper's text was not reachable in full. Known are the hardness ratio, that weights are linear in it over an
interval, the sum of both losses, and PALW in words. Reconstructed, with alternatives as knobs: the interval's bounds,
the body of the triplet loss, which negatives count, and the formula of PALW.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from training.batch import Batch, Features
from training.methods.base import Method
from training.methods.losses import (
    Distance,
    masked_mean,
    nearest_rivals,
    pairwise_distances,
    rivals,
    triplet_terms,
)
from training.methods.progress import ProgressSignal
from training.schema import STRICT, NotNegative, Ordered, Positive


@dataclass(frozen=True, config=STRICT)
class DPHRConfig:
    """The knobs. All defaults are ours; no reachable source gives the paper's.

    RDA alone is ``progressive=False``, PALW alone ``weights=(1, 1)``, a plain triplet loss ``lambda_max=0``.
    """

    mu: NotNegative = 1.0  # weight of DPHR beside the host's loss
    # as in the triplet code of LPN and MCCG; squared and cosine give h = d²/(d² + d'²), sharper around a tie
    distance: Distance = "euclidean"
    loss: Literal["hinge", "soft"] = "hinge"  # soft: log(1 + exp(γ (d_p - d_n))), no margin
    margin: NotNegative = 0.3  # of the hinge, in units of the distance; MCCG's default
    gamma: Positive = 10.0  # of the soft loss; the value of CVM-Net (Hu et al., 2018)
    # all: RDA is about many negatives; hardest: MCCG's mining, which leaves RDA little to weigh
    negatives: Literal["all", "topk", "hardest"] = "all"
    k: Annotated[int, Field(ge=1)] = 16  # of topk
    # weight at hardness 0 and 1; with a mean of 1 a tie weighs 1, and RDA does not change the loss's scale
    weights: Annotated[tuple[NotNegative, NotNegative], Ordered] = (0.5, 1.5)
    progressive: bool = True  # False: λ is lambda_max from the first step
    lambda_max: NotNegative = 1.0
    window: Annotated[int, Field(ge=1)] = 50  # steps whose mean loss is the progress signal
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.9  # smoothing of λ; 0.99 for long runs


class DPHR(Method):
    """``L = L_host + μ (L_tri + λ L_wtri)`` on the views ``photo`` and ``tile``; the host keeps all of its own views.

    Both triplet losses are means over both directions and over all triplets, not only the active ones, so that they
    fall as training matures. Negatives are the other places of the batch in the opposite view.
    """

    def __init__(self, config: DPHRConfig, host: Method) -> None:
        super().__init__()
        self.config = config
        self.host = host
        self.needs_stages, self.turns_tiles = host.needs_stages, host.turns_tiles
        start = 0.0 if config.progressive else config.lambda_max
        self.progress = ProgressSignal(start, config.lambda_max, window=config.window, beta=config.beta)

    def views(self, batch: Batch, progress: float, generator: Generator) -> dict[str, Tensor]:
        """Return the host's."""
        return self.host.views(batch, progress, generator)

    def mined(self, photo: Tensor, progress: float) -> Tensor:
        """Return the host's."""
        return self.host.mined(photo, progress)

    def forward(self, features: dict[str, Features], batch: Batch) -> dict[str, Tensor]:
        """Return ``loss``, ``host``, ``triplet``, ``weighted_triplet``, ``lambda``, and the host's as ``host/…``."""
        host = self.host(features, batch)
        triplet, weighted = self.triplets(features, batch)
        weight = self.progress(triplet)
        return {
            "loss": host["loss"] + self.config.mu * (triplet + weight * weighted),
            "host": host["loss"],
            "triplet": triplet,
            "weighted_triplet": weighted,
            "lambda": weight,
            **{f"host/{name}": value for name, value in host.items() if name != "loss"},
        }

    def triplets(self, features: dict[str, Features], batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the plain and the weighted triplet loss, each ``[]``: the mean of both directions."""
        distance = pairwise_distances(features["photo"].embedding, features["tile"].embedding, self.config.distance)
        rival = rivals(batch.place)
        there, back = self._one_way(distance, rival), self._one_way(distance.T, rival)
        return (there[0] + back[0]) / 2, (there[1] + back[1]) / 2

    def _one_way(self, distance: Tensor, rival: Tensor) -> tuple[Tensor, Tensor]:
        """Plain and weighted triplet loss of queries (rows) against references (columns)."""
        c = self.config
        if c.loss == "hinge":
            terms = triplet_terms(distance, c.margin)
        else:
            terms = F.softplus(c.gamma * (distance.diagonal()[:, None] - distance))
        if c.negatives != "all":
            rival = nearest_rivals(distance, rival, c.k if c.negatives == "topk" else 1)
        return masked_mean(terms, rival), masked_mean(negative_weights(distance, c.weights) * terms, rival)


def hardness(distance: Tensor) -> Tensor:
    """Return RDA's score ``h_ik = d_ii / (d_ii + d_ik)``, 0 to 1: 0.5 at a tie, more if the negative is nearer.

    Args:
        distance: ``[B, B]`` from queries to references; the diagonal holds the true pairs. Two zeros are a tie.
    """
    positive = distance.diagonal()[:, None]
    total = positive + distance
    return torch.where(total > 0, positive / total, 0.5)


def negative_weights(distance: Tensor, interval: tuple[float, float]) -> Tensor:
    """Return RDA's weights ``[B, B]``: linear in the hardness over the interval.

    They are constants to the gradient: else the loss could fall by shrinking its own weights (our choice).
    """
    low, high = interval
    return low + (high - low) * hardness(distance.detach())
