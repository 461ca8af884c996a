"""What sits on the backbone's maps: pooling, dense descriptors, and the heat-map decoder that only training needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from training.batch import full_precision

#: GeM starts between mean (1) and max pooling (∞); 3 is the value of its paper (Radenović et al., 2018).
GEM_P = 3.0
#: How sharply a spot is given to the nearest centre: softmax over 30 times the cosines, nearly all or nothing, so that
#: two networks in a row agree about it; NetVLAD starts in the same way. Our choice.
SHARPNESS = 30.0


class GeM(nn.Module):
    """Generalised-mean pooling with a learnt exponent: ``[N, C, h, w]`` → ``[N, C]``."""

    def __init__(self, p: float = GEM_P) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p))

    def forward(self, maps: Tensor) -> Tensor:
        """Pool each channel: the p-th root of the mean p-th power."""
        pooled: Tensor = maps.clamp(min=1e-6).pow(self.p).mean((2, 3)).pow(1 / self.p)
        return pooled


class VLAD(nn.Module):
    """Which kinds of spot a picture has, and how each kind looks there: ``[N, C, h, w]`` → ``[N, K · D]``.

    NetVLAD (Arandjelović et al., 2016): positions x of D channels and unit length are shared out among K unit centres
    c_k, and each centre keeps the sum of its residuals x - c_k, made of unit length by itself (intra-normalisation,
    Arandjelović and Zisserman, 2013). Where in the picture a spot lies makes no difference.

    Args:
        channels: C of the map.
        dim: D, what a position is reduced to; ``training/whitening`` finds how.
        centres: K.
    """

    def __init__(self, channels: int, dim: int, centres: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, dim, 1)
        self.centres = nn.Parameter(F.normalize(torch.randn(centres, dim), dim=1))
        self.out_channels = centres * dim

    def forward(self, maps: Tensor) -> Tensor:
        """Return residuals, centre by centre; of length 1 in all unless a centre got nothing."""
        spots = F.normalize(full_precision(self.reduce(maps)).flatten(2), dim=1)
        shares = (SHARPNESS * (self.centres @ spots)).softmax(1)
        residuals = shares @ spots.transpose(1, 2) - shares.sum(2, keepdim=True) * self.centres
        joined: Tensor = F.normalize(residuals, dim=2).flatten(1) / len(self.centres) ** 0.5
        return joined


class MapAttention(nn.Module):
    """Every position looks at all others: ``x + E softmax(QᵀK / √d) V``, the second-order attention of UnifyGeo.

    Q, K and V have half the channels (the paper's reduction). E starts at zero, so that a new block changes nothing.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, 3 * (channels // 2), 1)
        self.expand = nn.Conv2d(channels // 2, channels, 1)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)  # type: ignore[arg-type]  # a convolution without bias would have None

    def forward(self, maps: Tensor) -> Tensor:
        """Refine ``[N, C, h, w]``; the shape stays."""
        rows = self.reduce(maps).flatten(2).transpose(1, 2)[:, None]  # one attention head, as the ONNX exporter wants
        seen = F.scaled_dot_product_attention(*rows.chunk(3, dim=3))[:, 0].transpose(1, 2)
        attended: Tensor = maps + self.expand(torch.unflatten(seen, 2, maps.shape[2:]))
        return attended


class AttentionGeM(nn.Module):
    """UnifyGeo's aggregator: attention over the map, GeM, LayerNorm; ``[N, C, h, w]`` → ``[N, C]``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention, self.pool, self.norm = MapAttention(channels), GeM(), nn.LayerNorm(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Pool each channel of the attended map, then standardise over channels."""
        pooled: Tensor = self.norm(self.pool(self.attention(maps)))
        return pooled


class DenseHead(nn.Module):
    """Dense descriptors from several stages, deep meaning added to fine detail from the top down.

    A feature pyramid (Lin et al., 2017) with one output: 1×1 laterals, nearest up-sampling, one 3×3.

    Args:
        stage_channels: channels of the stages to join, shallow (the finest, which sets the output's size) to deep.
        local_dim: channels of the descriptors.
    """

    def __init__(self, stage_channels: Sequence[int], local_dim: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(channels, local_dim, 1) for channels in stage_channels)
        self.smooth = nn.Conv2d(local_dim, local_dim, 3, padding=1)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Turn maps ``[N, C_i, h_i, w_i]``, shallow to deep, into unit float32 ``[N, local_dim, h_0, w_0]``."""
        *finer, joined = [lateral(maps) for lateral, maps in zip(self.laterals, stages, strict=True)]
        for lateral in reversed(finer):
            joined = lateral + F.interpolate(joined, lateral.shape[2:], mode="nearest")
        return F.normalize(full_precision(self.smooth(joined)), dim=1)


class HeatmapDecoder(nn.Module):
    """Where in the tile the photo's ground point is, refined from coarse to fine; a part of the method, not exported.

    Each scale sees the tile's descriptors, their cosines to the photo's descriptor, and what the coarser scale made of
    its own. A last layer that starts at zero corrects the finest cosines, so a new decoder answers as plain matching.

    Args:
        local_dim: channels of the descriptors.
        scales: number of scales.
        width: channels inside; 32 is enough for maps of at most a hundred cells a side.
        logit_scale: what the cosines are multiplied with to become logits.
    """

    def __init__(self, local_dim: int, scales: int, *, width: int = 32, logit_scale: float = 10.0) -> None:
        super().__init__()
        self.logit_scale = logit_scale
        self.steps = nn.ModuleList(nn.Conv2d(local_dim + 1 + width, width, 3, padding=1) for _ in range(scales))
        self.correct = nn.Conv2d(width, 1, 3, padding=1)
        nn.init.zeros_(self.correct.weight)
        nn.init.zeros_(self.correct.bias)  # type: ignore[arg-type]

    def forward(self, tiles: Sequence[Tensor], cosines: Sequence[Tensor]) -> Tensor:
        """Return logits over twice the finest grid.

        Args:
            tiles: descriptors ``[N, C, h_l, w_l]`` of every scale, fine to coarse.
            cosines: ``[N, h_l, w_l]`` of the same scales.

        Returns:
            ``[N, 2 h_0, 2 w_0]``.
        """
        state = tiles[-1].new_zeros(len(tiles[-1]), self.correct.in_channels, 1, 1)
        for step, tile, cosine in zip(self.steps, reversed(tiles), reversed(cosines), strict=True):
            state = F.gelu(step(torch.cat((tile, cosine[:, None], _resize(state, tile.shape[2:])), dim=1)))
        size = [2 * side for side in cosines[0].shape[1:]]
        matched = self.logit_scale * _resize(cosines[0][:, None], size)
        corrected: Tensor = matched + self.correct(_resize(state, size))
        return corrected[:, 0]


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)
