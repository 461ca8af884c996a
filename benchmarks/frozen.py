"""An encoder of which only the last stages learn, faster on CPUs than timm's modules are.

Its frozen stages can be run once for all pictures: training then begins with their maps. On small maps most of the
rest's time is depthwise convolutions going backward, which CPUs are slow at. ``Matrices`` computes the same as matrix
products: with bf16 a step takes 0.4 of what it takes otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from hard_places import Pairs, Questions
from torch import Tensor, nn

from training.models.encoder import Encoder

AT_ONCE = 16  # pictures: what goes from stage to stage stays in the processor's cache


@dataclass(frozen=True)
class Maps:
    """What an encoder's frozen stages make of pairs and questions, as bytes ``[…, C, h, w]``, as pictures are.

    ``low`` and ``step`` of each channel, ``[1, C, 1, 1]``, turn bytes into values; what is lost is a hundredth of a
    channel's spread.
    """

    pairs: Pairs
    questions: Questions
    low: Tensor
    step: Tensor

    def cut(self, encoder: Encoder) -> None:
        """Leave the frozen stages out: what goes into the encoder from now on are maps, not pictures."""
        encoder.backbone = Matrices(encoder.backbone, encoder.config.frozen_stages)
        encoder.mean, encoder.std = nn.Buffer(-self.low / self.step), nn.Buffer(1 / self.step)


def hasten(encoder: Encoder) -> None:
    """Make an encoder of pictures faster; it computes what it did."""
    encoder.backbone = Quick(encoder.backbone, encoder.config.frozen_stages)


def load_maps(encoder: Encoder, pairs: Pairs, questions: Questions, kept: Path) -> Maps:
    """Return the maps of pairs and questions; worked out at the first call, then read.

    Args:
        encoder: has the frozen stages, ``model.frozen_stages`` of an EfficientNet.
        pairs: of pictures.
        questions: of pictures.
        kept: the file that keeps the maps.
    """
    if not kept.exists():
        kinds = pairs.photo, pairs.tile, questions.photo, questions.tile
        found = [_maps(encoder, images.flatten(0, -4)) for images in kinds]
        low = torch.stack([maps.amin((0, 2, 3), keepdim=True) for maps in found]).amin(0)
        high = torch.stack([maps.amax((0, 2, 3), keepdim=True) for maps in found]).amax(0)
        step = (high - low).clamp(min=1e-6) / 255
        whole = [((maps - low) / step).round().to(torch.uint8) for maps in found]
        saved = [maps.unflatten(0, images.shape[:-3]) for maps, images in zip(whole, kinds, strict=True)], low, step
        torch.save(saved, kept.with_suffix(".partial"))
        kept.with_suffix(".partial").replace(kept)
    (photo, tile, asked, tiles), low, step = torch.load(kept, mmap=True, weights_only=True)
    return Maps(replace(pairs, photo=photo, tile=tile), replace(questions, photo=asked, tile=tiles), low, step)


@torch.inference_mode()
def _maps(encoder: Encoder, images: Tensor) -> Tensor:
    """Turn pictures, uint8 ``[N, 3, S, S]``, into maps, float32 ``[N, C, h, w]``."""
    stages = Quick(encoder.eval().backbone, encoder.config.frozen_stages)
    return torch.cat([stages.frozen_maps((s - encoder.mean) / encoder.std)[-1] for s in images.split(AT_ONCE)])


class Matrices(nn.Module):
    """The last stages and the head of an EfficientNet-lite, maps ``[N, C, s, s]`` in and out, by products.

    Batch statistics are constants (``Encoder.train``), so a norm is part of its convolution. A depthwise convolution of
    a map of ``P`` positions is a product with a matrix ``[P, Q]`` per channel.

    Args:
        backbone: timm's, of inverted residual blocks without squeeze and excitation.
        first: its first stage that is meant.
    """

    def __init__(self, backbone: Any, first: int) -> None:
        super().__init__()
        self.stages, self.head, self.norm = backbone.blocks[first:], backbone.conv_head, backbone.bn2

    def forward(self, maps: Tensor) -> Tensor:
        """Return the last map, as timm's modules would."""
        return self.maps(maps)[-1]

    def maps(self, maps: Tensor) -> list[Tensor]:
        """Return the map of each stage and of the head."""
        x, found = maps.flatten(2).transpose(0, 1).contiguous(), []
        for stage in self.stages:
            block: Any
            for block in stage:
                y = F.relu6(_convolve(x, block.conv_pw, block.bn1), inplace=True)
                y = F.relu6(_convolve(y, block.conv_dw, block.bn2), inplace=True)
                y = _convolve(y, block.conv_pwl, block.bn3)
                x = x + y if block.has_skip else y
            found.append(x)
        found.append(F.relu6(_convolve(x, self.head, self.norm), inplace=True))
        return [each.transpose(0, 1).unflatten(2, (_side(each), _side(each))) for each in found]


class Quick(nn.Module):
    """An EfficientNet-lite in two parts: frozen stages, which see few pictures at once, and ``Matrices``.

    Args:
        backbone: timm's, see ``Matrices``.
        frozen: number of stages in the first part.
    """

    def __init__(self, backbone: Any, frozen: int) -> None:
        super().__init__()
        first = [nn.Sequential(backbone.conv_stem, backbone.bn1), *backbone.blocks[:frozen]]
        self.frozen = nn.ModuleList(first).to(memory_format=torch.channels_last)  # a third faster on CPUs
        self.rest, self.ends = Matrices(backbone, frozen), backbone.stage_ends

    def forward(self, images: Tensor) -> Tensor:
        """Return the last map."""
        return self.rest(self.frozen_maps(images)[-1])  # type: ignore[no-any-return]  # a module returns anything

    def forward_intermediates(self, images: Tensor, indices: int) -> tuple[Tensor, list[Tensor]]:
        """Return the last map, and those of the last ``indices`` strides, as timm does."""
        maps = self.frozen_maps(images)
        *learning, last = self.rest.maps(maps[-1])
        maps += learning
        return last, [maps[end] for end in self.ends[-indices:]]

    def forward_head(self, last: Tensor) -> Tensor:
        """Return the map as it is: timm's head neither pools nor classifies here."""
        return last

    @torch.no_grad()
    def frozen_maps(self, images: Tensor) -> list[Tensor]:
        """Return the map of the stem and of each frozen stage."""
        parts = []
        for x in images.contiguous(memory_format=torch.channels_last).split(AT_ONCE):
            parts.append([x := stage(x) for stage in self.frozen])
        return [torch.cat(same).contiguous() for same in zip(*parts, strict=True)]


def _convolve(x: Tensor, conv: Any, norm: Any) -> Tensor:
    """Apply a convolution and its norm to ``[C, N, P]``; returns ``[D, N, Q]``."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift, weight = norm.bias - norm.running_mean * scale, conv.weight.flatten(1) * scale[:, None]
    if conv.groups == 1:
        return torch.addmm(shift[:, None], weight, x.flatten(1)).unflatten(1, x.shape[1:])
    taps = _taps(_side(x), conv.kernel_size[0], conv.stride[0])
    return torch.baddbmm(shift[:, None, None], x, (weight @ taps.to(weight)).unflatten(1, (x.shape[2], -1)))


@cache
def _taps(side: int, kernel: int, stride: int) -> Tensor:
    """Tell which tap of a kernel joins which positions: 0 or 1, ``[kernel², positions in · positions out]``.

    Padded as TensorFlow does, as much as the output needs, the odd row or column at the end.
    """
    out = -(-side // stride)
    before = max((out - 1) * stride + kernel - side, 0) // 2
    at = torch.arange(side)[:, None] - torch.arange(out) * stride + before  # the tap, in one direction
    one = (at == torch.arange(kernel)[:, None, None]).float()  # [kernel, side, out]
    return torch.einsum("aiu,bjv->abijuv", one, one).reshape(kernel**2, -1)


def _side(x: Tensor) -> int:
    return round(x.shape[2] ** 0.5)
