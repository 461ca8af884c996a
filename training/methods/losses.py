"""Losses that several methods share."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def info_nce(query: Tensor, reference: Tensor, scale: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Symmetric InfoNCE over a batch of pairs of different places.

    ``s_ij = scale · <q_i, r_j>``; ``L = 1/2 [CE(s, diag) + CE(sᵀ, diag)]`` (Sample4Geo §3.2; Oord et al., 2018).

    Args:
        query: ``[B, D]`` unit embeddings.
        reference: ``[B, D]`` unit embeddings; row i shows the same place as query i.
        scale: ``[]`` inverse temperature.
        label_smoothing: share of the target spread over all rows, 0 to 1.
    """
    scores = scale * query @ reference.T
    target = torch.arange(len(query), device=query.device)
    forward = F.cross_entropy(scores, target, label_smoothing=label_smoothing)
    backward = F.cross_entropy(scores.T, target, label_smoothing=label_smoothing)
    return (forward + backward) / 2
