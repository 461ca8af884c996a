"""What flows through training: a batch of pairs, the features of its images, the losses of a method."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """Return a tensor as float32, whatever autocast made of it, or as float64 where it already is."""
    return x if x.dtype == torch.float64 else x.float()


@dataclass(frozen=True)
class Batch:
    """``B`` pairs of different places: a drone photo and a map tile that shows its place.

    Attributes:
        photo: ``[B, 3, S, S]`` drone views, 0 to 1.
        tile: ``[B, 3, S, S]`` map tiles, 0 to 1.
        place: ``[B]`` int64 place of each pair, 0 to the number of places - 1; no two are equal.
        offset_m: ``[B, 2]`` right and down (east and south on a north-up tile) of the photo's ground point, from the
            tile's centre; NaN where it is not known.
        tile_side_m: ``[B]`` ground side of the tile; NaN where it is not known.
        overlap: ``[B]`` how much photo and tile show the same ground, 0 to 1; 1 where the data set grades nothing.
        ground_m: ``[B, G, G, 2]`` right and down, from the tile's centre, of what each of G by G parts of the photo
            shows, NaN where that is not known or has changed since; None when the data set does not tell.
    """

    photo: Tensor
    tile: Tensor
    place: Tensor
    offset_m: Tensor
    tile_side_m: Tensor
    overlap: Tensor
    ground_m: Tensor | None = None

    def __len__(self) -> int:
        return len(self.place)

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on a device."""
        known = [f.name for f in fields(self) if getattr(self, f.name) is not None]
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in known})


@dataclass(frozen=True)
class Features:
    """What the encoder says of ``N`` images.

    Attributes:
        embedding: ``[N, D]`` of unit length: what is exported and searched.
        stages: pooled features ``[N, C_i]`` of the backbone's stages, shallow to deep; empty unless the method asks.
        local: ``[N, C, h, w]`` of unit length over C: the dense descriptors; None when the model has none.
    """

    embedding: Tensor
    stages: tuple[Tensor, ...] = ()
    local: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        """Return all tensors, in a fixed order."""
        return [self.embedding, *self.stages, *([] if self.local is None else [self.local])]

    def with_tensors(self, tensors: list[Tensor]) -> Features:
        """Return the same fields with other tensors, in the order of ``tensors()``."""
        stages = tuple(tensors[1 : 1 + len(self.stages)])
        return Features(tensors[0], stages, None if self.local is None else tensors[-1])
