"""Sample4Geo (Deuser et al., ICCV 2023): symmetric InfoNCE over place-unique batches with hard negatives.

The hard negatives come from the sampler (``training/data/sampling.py``): GPS neighbours first, then Dynamic Similarity
Sampling.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from training.batch import Batch, Features
from training.methods.base import Method, ModelShape
from training.methods.losses import info_nce
from training.schema import STRICT, Positive


@dataclass(frozen=True, config=STRICT)
class Sample4GeoConfig:
    """The knobs of the loss."""

    name: Literal["sample4geo"] = "sample4geo"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1  # the paper's value
    # k: smooth each pair by 1 - sigmoid(k · overlap) instead, the weighted InfoNCE of GTA-UAV, where k is 5
    overlap_k: Positive | None = None


class Sample4Geo(Method):
    """Symmetric InfoNCE with a learnable inverse temperature, started at 1/0.07 (the paper's value, after CLIP)."""

    def __init__(self, config: Sample4GeoConfig, shape: ModelShape) -> None:
        super().__init__()
        self.config = config
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, features: dict[str, Features], batch: Batch) -> dict[str, Tensor]:
        """Return ``loss`` (see ``info_nce``) and ``scale``, the inverse temperature."""
        query, reference = features["photo"].embedding, features["tile"].embedding
        scale, k = self.log_scale.exp(), self.config.overlap_k
        smoothing = self.config.label_smoothing if k is None else 1 - torch.sigmoid(k * batch.overlap)
        return {"loss": info_nce(query, reference, scale, label_smoothing=smoothing), "scale": scale}
