"""What a method is: an objective over a batch of paired embeddings, with what it learns beside the encoder."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from training.config import Config
from training.methods.losses import info_nce


class Method(Protocol):
    """An objective. Its parameters are trained with the encoder's and saved in checkpoints, never exported."""

    def __call__(self, query: Tensor, reference: Tensor) -> Tensor:
        """Loss ``[]`` of ``[B, D]`` unit embeddings of photos and of the tiles of the same places."""
        ...


class InfoNCE(nn.Module):
    """Symmetric InfoNCE with a learnable inverse temperature, started at 1/0.07 (CLIP's value, kept by Sample4Geo)."""

    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        """See ``info_nce``."""
        return info_nce(query, reference, self.log_scale.exp(), label_smoothing=self.label_smoothing)


def make_method(config: Config) -> InfoNCE:
    """The method that the config names."""
    return InfoNCE(config.optim.label_smoothing)
