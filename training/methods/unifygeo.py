"""UnifyGeo (arXiv 2505.07622): one network finds the tile, re-ranks the best by dense descriptors, and locates in it.

Written from a description of the authors' evaluation and loss code; of the whole ``L`` only the parts are known. The
photo's dense map is collapsed to one vector ``g``, which is compared with every position of a tile's map ``A``:

    M_l(u) = <g, A_l(u)>                        cosines at scale l
    L      = L_ret + a L_mat + b L_heat + c L_rr

Our reconstruction, for drone photos instead of panoramas: how ``g`` is made (``collapse``), the scales as pooled copies
of one map, the weights a, b, c, and the body of ``L_rr``. The functions below the class need only descriptors, no
trained parameter beyond the exported network's, so that evaluation and service can apply them too.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.batch import Batch, Features
from training.errors import TrainingError
from training.methods.base import Method, ModelShape
from training.methods.losses import info_nce
from training.models.heads import HeatmapDecoder
from training.schema import STRICT, NotNegative, Positive

#: Temperature of the attention that collapses a photo's map: that of the matching loss, cosines both.
COLLAPSE_TEMPERATURE = 0.1
#: Cosines that re-ranking holds at once: 16 MB in float32.
_COSINES_AT_ONCE = 2**22


@dataclass(frozen=True, config=STRICT)
class UnifyGeoConfig:
    """The knobs of the loss."""

    name: Literal["unifygeo"] = "unifygeo"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of L_ret, the authors' value
    matching_weight: NotNegative = 1.0  # a; the paper's weights are not known to us, 1 favours no part
    heatmap_weight: NotNegative = 1.0  # b
    rerank_weight: NotNegative = 1.0  # c
    matching_temperature: Positive = 0.1  # the authors' value
    label_floor: Annotated[float, Field(ge=0, lt=0.5)] = (
        0.01  # labels below are no targets of L_mat; the authors' value
    )
    label_sigma_cells: Annotated[float, Field(ge=0.5, le=10)] = 1.0  # width of the soft label at every scale; ours
    scales: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 2, 4)  # coarsening of the map


class UnifyGeo(Method):
    """Retrieval, matching, heat map and re-ranking; see the module's docstring for the formula.

    Raises:
        TrainingError: the model has no dense descriptors.
    """

    def __init__(self, config: UnifyGeoConfig, shape: ModelShape) -> None:
        super().__init__()
        if shape.local_dim is None:
            raise TrainingError("unifygeo matches dense descriptors: set model.local_dim, for example to 64.")
        self.config = config
        # both start at CLIP's 1/0.07, as the authors' scales do
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.log_rerank_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.decoder = HeatmapDecoder(shape.local_dim, len(config.scales), logit_scale=1 / config.matching_temperature)

    def forward(self, features: dict[str, Features], batch: Batch) -> dict[str, Tensor]:
        """Return ``loss`` and its parts ``retrieval``, ``matching``, ``heatmap`` and ``rerank``.

        Pairs of which the offset is unknown, or whose photo looks at a point outside the tile, take no part in
        ``matching`` and ``heatmap``; a batch without any other pair gives 0 for both.
        """
        config, photo, tile = self.config, features["photo"], features["tile"]
        smoothing = config.label_smoothing
        retrieval = info_nce(photo.embedding, tile.embedding, self.log_scale.exp(), label_smoothing=smoothing)
        maps, cosines = self._scales(photo, tile)
        truth, known = true_position(batch)
        matching = torch.stack([self._matching_loss(cosine, truth, known) for cosine in cosines]).mean()
        heatmap = self.decoder(maps, cosines)
        label = soft_label(truth, heatmap.shape[1], heatmap.shape[2], config.label_sigma_cells)
        heat = soft_cross_entropy(heatmap, label, known)
        rerank = rerank_loss(photo, tile, self.log_rerank_scale.exp())
        parts = {"retrieval": retrieval, "matching": matching, "heatmap": heat, "rerank": rerank}
        loss = retrieval + config.matching_weight * matching + config.heatmap_weight * heat
        loss = loss + config.rerank_weight * rerank
        return {"loss": loss, **parts}

    def heatmap(self, photo: Features, tile: Features) -> Tensor:
        """Return logits ``[N, 2h, 2w]`` of where on tile i the ground point of photo i is."""
        logits: Tensor = self.decoder(*self._scales(photo, tile))
        return logits

    def _scales(self, photo: Features, tile: Features) -> tuple[list[Tensor], list[Tensor]]:
        """The tiles' maps ``[N, C, h_l, w_l]`` and their cosines ``[N, h_l, w_l]`` to the photos, as many as scales."""
        query, local = collapse(dense(photo)), dense(tile)
        maps = [coarsen(local, factor) for factor in self.config.scales]
        return maps, [torch.einsum("nc,nchw->nhw", query, level) for level in maps]

    def _matching_loss(self, cosine: Tensor, truth: Tensor, known: Tensor) -> Tensor:
        """``- Σ_u y(u) log softmax(M / T)(u) / Σ_u y(u)`` over the positions with a label above the floor."""
        config = self.config
        label = soft_label(truth, cosine.shape[1], cosine.shape[2], config.label_sigma_cells)
        label = label * (label > config.label_floor)
        return soft_cross_entropy(cosine / config.matching_temperature, label, known)


def dense(features: Features) -> Tensor:
    """Return the dense descriptors ``[N, C, h, w]``.

    Raises:
        TrainingError: there are none.
    """
    if features.local is None:
        raise TrainingError("These features have no dense descriptors: use a model trained with model.local_dim.")
    return features.local


def collapse(local: Tensor) -> Tensor:
    """Return a unit vector ``[N, C]`` for each map ``[N, C, h, w]``: the mean of its positions, weighted by attention.

    Weights are the softmax of each position's cosine to the plain mean: what most of the photo agrees on counts more.
    Our reconstruction: the authors learn the collapse of a panorama's columns; without weights of its own this one
    needs nothing but the exported descriptors. GeM would drop the negative half of unit vectors.
    """
    flat = local.flatten(2)
    mean = F.normalize(flat.mean(2), dim=1)
    weight = (torch.einsum("nc,ncu->nu", mean, flat) / COLLAPSE_TEMPERATURE).softmax(1)
    return F.normalize(torch.einsum("nu,ncu->nc", weight, flat), dim=1)


def coarsen(local: Tensor, factor: int) -> Tensor:
    """Return descriptors of areas: means of ``factor`` × ``factor`` positions (at least one area), of unit length."""
    if factor == 1:
        return local
    height, width = (max(1, side // factor) for side in local.shape[2:])
    return F.normalize(F.adaptive_avg_pool2d(local, (height, width)), dim=1)


def true_position(batch: Batch) -> tuple[Tensor, Tensor]:
    """Tell where on the tile the photo's ground point is.

    Returns:
        ``[B, 2]`` right and down from the tile's centre as a share of its side, 0 where unknown or outside; and
        ``[B]`` bool, whether it is known and on the tile.
    """
    share = batch.offset_m / batch.tile_side_m[:, None]
    known = (share.abs() <= 0.5).all(1)  # NaN compares false
    return torch.where(known[:, None], share, 0.0), known


def soft_label(share: Tensor, height: int, width: int, sigma_cells: float) -> Tensor:
    """Draw Gaussians ``[B, height, width]`` of peak 1 around positions ``share [B, 2]`` (right, down; -0.5 to 0.5)."""
    column = torch.arange(width, device=share.device) + 0.5 - (share[:, :1] + 0.5) * width
    row = torch.arange(height, device=share.device) + 0.5 - (share[:, 1:] + 0.5) * height
    return torch.exp(-(row[:, :, None] ** 2 + column[:, None, :] ** 2) / (2 * sigma_cells**2))


def soft_cross_entropy(logits: Tensor, label: Tensor, known: Tensor) -> Tensor:
    """Return ``- Σ_u y(u) log softmax(x)(u) / Σ_u y(u)``, the mean over rows that are known; 0 when none is.

    Args:
        logits: ``[B, h, w]``.
        label: ``[B, h, w]``, not negative, of positive sum.
        known: ``[B]`` bool.
    """
    target = label.flatten(1) / label.flatten(1).sum(1, keepdim=True)
    loss = -(target * logits.flatten(1).log_softmax(1)).sum(1)
    return torch.where(known, loss, 0).sum() / known.sum().clamp(min=1)


def local_scores(query: Features, reference: Features, candidates: Tensor | None = None) -> Tensor:
    """Tell how well a photo fits the best position of a tile: ``s(q, r) = max_u <g(q), A(r)(u)>``, -1 to 1.

    Memory stays bounded, also for gradients: cosines of a few tiles are held at a time, and made again going backward.

    Args:
        query: of Q photos, with dense descriptors.
        reference: of R tiles, with dense descriptors.
        candidates: ``[Q, K]`` rows of ``reference`` to score for each query; None scores all.

    Returns:
        ``[Q, R]``, or ``[Q, K]`` for candidates.

    Raises:
        TrainingError: the features have no dense descriptors.
    """
    vectors, maps = collapse(dense(query)), dense(reference).flatten(2)
    if candidates is not None:
        rows = [torch.einsum("c,kcu->ku", g, maps[k]).amax(1) for g, k in zip(vectors, candidates, strict=True)]
        return torch.stack(rows)
    step = max(1, _COSINES_AT_ONCE // (len(vectors) * maps.shape[2]))
    parts = [checkpoint(_best_match, vectors, some, use_reentrant=False) for some in torch.split(maps, step)]
    return torch.cat(parts, dim=1)


def _best_match(vectors: Tensor, maps: Tensor) -> Tensor:
    return torch.einsum("qc,rcu->qru", vectors, maps).amax(2)


def rerank_loss(query: Features, reference: Features, scale: Tensor) -> Tensor:
    """Return symmetric InfoNCE over ``local_scores``; our reconstruction: the authors' code has only its scale."""
    scores = local_scores(query, reference)
    return info_nce(scores, torch.eye(len(scores), dtype=scores.dtype, device=scores.device), scale)  # S · I = S


def rerank(global_scores: Tensor, best_local_scores: Tensor) -> Tensor:
    """Order the best tiles anew, by the sum of both cosines, the authors' rule; equal sums keep their order.

    What is not among these candidates stays where it was: with five of them, R@5 cannot change.

    Args:
        global_scores: ``[Q, K]`` cosines of the embeddings, best first; the authors take K = 5.
        best_local_scores: ``[Q, K]`` of the same tiles, see ``local_scores``.

    Returns:
        ``[Q, K]`` column numbers, best first.
    """
    return torch.argsort(global_scores + best_local_scores, dim=1, descending=True, stable=True)


def matching_map(query: Features, reference: Features) -> Tensor:
    """Return cosines ``[N, h, w]`` of photo i to all positions of tile i: a heat map that needs no trained decoder."""
    return torch.einsum("nc,nchw->nhw", collapse(dense(query)), dense(reference))


def locate(heatmap: Tensor, tile_side_m: Tensor, *, soft_radius_cells: int = 0) -> Tensor:
    """Return the offset of the photo's ground point from the tile's centre, read off a heat map.

    Args:
        heatmap: ``[N, h, w]`` logits: ``UnifyGeo.heatmap``, or ``matching_map`` over the matching temperature.
        tile_side_m: ``[N]`` ground side of the tiles.
        soft_radius_cells: 0 takes the middle of the best cell (the authors' rule); r takes the mean over the square of
            2r + 1 cells around it, weighted by softmax, which is finer than a cell.

    Returns:
        ``[N, 2]`` metres right and down.
    """
    count, height, width = heatmap.shape
    heatmap = heatmap.double()  # places in half precision would be as coarse as the cells
    row, column = torch.arange(height, device=heatmap.device), torch.arange(width, device=heatmap.device)
    peak = heatmap.flatten(1).argmax(1)
    far_down = (row - (peak // width)[:, None]).abs() > soft_radius_cells
    far_right = (column - (peak % width)[:, None]).abs() > soft_radius_cells
    far = far_down[:, :, None] | far_right[:, None, :]
    weight = heatmap.masked_fill(far, -math.inf).flatten(1).softmax(1).view(count, height, width)
    right = (weight.sum(1) * (column + 0.5)).sum(1) / width - 0.5
    down = (weight.sum(2) * (row + 0.5)).sum(1) / height - 0.5
    return (torch.stack((right, down), dim=1) * tile_side_m[:, None]).to(tile_side_m.dtype)
