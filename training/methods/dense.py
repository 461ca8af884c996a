"""Dense matching, an addition of ours that rides on any method: every cell of the photo finds its cell of the tile.

The service counts the cells of a photo and a tile that are each other's nearest and agree on one turn, scale and shift;
this loss is what makes them so. For photo cells p of which the ground u(p) lies on the tile,

    L = - 1/2 Σ_p Σ_q w(u(p), q) [log softmax_q(<a_p, b_q> / T) + log softmax_p(<a_p, b_q> / T)] / Σ_p Σ_q w(u(p), q)

where w shares a point among the four cells whose centres surround it (bilinear): the negative log of the dual softmax
that XFeat and LoFTR train with, between cells rather than key points. It needs the ground of every pixel, which only
simulated photos come with.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from training.batch import Batch, Features
from training.errors import TrainingError
from training.methods.base import Method, ModelShape
from training.methods.unifygeo import dense as maps_of
from training.schema import STRICT, Positive


@dataclass(frozen=True, config=STRICT)
class DenseConfig:
    """The knobs; both defaults are ours."""

    weight: Positive = 1.0  # beside the host's loss
    temperature: Positive = 0.07  # of cosines; CLIP's start


class Dense(Method):
    """``L_host + weight · L`` on the views ``photo`` and ``tile``; the host keeps all of its own views.

    Raises:
        TrainingError: the model has no dense descriptors.
    """

    def __init__(self, config: DenseConfig, host: Method, shape: ModelShape) -> None:
        super().__init__()
        if shape.local_dim is None:
            raise TrainingError("dense matches dense descriptors: set model.local_dim, for example to 64.")
        self.config, self.host = config, host
        self.needs_stages, self.needs_embedding = host.needs_stages, host.needs_embedding
        self.turns_tiles = host.turns_tiles

    def views(self, batch: Batch, progress: float, generator: Generator) -> dict[str, Tensor]:
        """Return the host's."""
        return self.host.views(batch, progress, generator)

    def mined(self, photo: Tensor, progress: float) -> Tensor:
        """Return the host's."""
        return self.host.mined(photo, progress)

    def forward(self, features: dict[str, Features], batch: Batch) -> dict[str, Tensor]:
        """Return the host's losses, with ``dense`` among them and in ``loss``."""
        parts = self.host(features, batch)
        dense = dense_loss(maps_of(features["photo"]), maps_of(features["tile"]), batch, self.config.temperature)
        return {**parts, "loss": parts["loss"] + self.config.weight * dense, "dense": dense}


def dense_loss(photo: Tensor, tile: Tensor, batch: Batch, temperature: float) -> Tensor:
    """Return the loss of the module's docstring; 0 when no cell of any photo shows ground on its tile.

    Args:
        photo: ``[B, C, h, w]`` descriptors of unit length.
        tile: likewise, as many.
        batch: ``ground_m`` says what the photo's pixels show.
        temperature: of cosines.

    Raises:
        TrainingError: the data set does not tell what the photo's pixels show.
    """
    if batch.ground_m is None:
        raise TrainingError("dense needs the ground of every pixel, which only simulated data has: leave dense out.")
    height, width = tile.shape[2:]
    ground = F.adaptive_avg_pool2d(batch.ground_m.movedim(3, 1), (height, width))  # NaN if any pixel of the cell is
    share = (ground / batch.tile_side_m[:, None, None, None]).flatten(2).transpose(1, 2)
    logits = torch.einsum("ncp,ncq->npq", photo.flatten(2), tile.flatten(2)) / temperature
    surprise = -(logits.log_softmax(2) + logits.log_softmax(1)) / 2
    total, weights = photo.new_zeros(()), photo.new_zeros(())
    for cell, weight in surrounding(share, height, width):
        total = total + (weight * surprise.gather(2, cell[:, :, None])[:, :, 0]).sum()
        weights = weights + weight.sum()
    return total / weights.clamp(min=1e-6)


def surrounding(share: Tensor, height: int, width: int) -> list[tuple[Tensor, Tensor]]:
    """Return the four cells around each point, with bilinear weights.

    Args:
        share: ``[B, P, 2]`` right and down from the map's centre as a share of its side; NaN where it is not known.
        height: rows of the map.
        width: columns.

    Returns:
        Four times the cells ``[B, P]``, counted row by row, and their weights, 0 for what lies outside.
    """
    size = torch.tensor((width, height), device=share.device)
    known = (share.abs() < 0.5).all(2)  # NaN compares false
    place = torch.where(known[:, :, None], (share + 0.5) * size - 0.5, 0.0)
    first = place.floor()
    beyond = place - first
    corners = []
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        step = torch.tensor((right, down), device=share.device)
        column_row = first + step
        inside = known & ((column_row >= 0) & (column_row < size)).all(2)
        weight = torch.where(step.bool(), beyond, 1 - beyond).prod(2) * inside
        column, row = column_row.clamp(min=0).minimum(size - 1).long().unbind(2)
        corners.append((row * width + column, weight))
    return corners
