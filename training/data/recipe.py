"""Sample4Geo's augmentation of pairs of image files, as its public University-1652 recipe has it.

Photo and tile are mirrored together (p 0.5), the tile is turned by a multiple of 90°, and each of the two gets JPEG
artefacts (quality 90 to 100, p 0.5), other colours (±0.15 each, p 0.5), blur or sharpening (p 0.3) and holes (p 0.3).
For VIGOR, tile and panorama turn together by 90°, 180° or 270° (p 0.75). The recipe works on images of the original
size where ours are resized already, which costs less and makes JPEG artefacts slightly coarser.

Strengths of blur, sharpening and holes: defaults of the image library that the recipe uses (albumentations), blur
without its anisotropy and noise.
"""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import torch
import torchvision.transforms.functional as tv
from PIL import Image, ImageFilter
from torch import Generator, Tensor

#: ``tile``: turn the tile, always (the heading of the photo is not known); ``both``: turn the tile and roll the
#: panorama by the same angle, p 0.75 (north stays in the panorama's middle); ``none``: the method turns tiles itself.
Turns = Literal["tile", "both", "none"]

COLOUR = 0.15
BLUR_SIGMA_PX = (0.2, 1.0)
#: Sharpening adds 9·(0.2 to 0.5) times the difference from the mean of 3 × 3 pixels; torchvision's kernel has 1/13.
SHARPNESS = (1 + 13 * 0.2, 1 + 13 * 0.5)
GRID_CELL_SHARE, GRID_HOLE_SHARE = 0.1, 0.4
HOLES, HOLE_SHARE = (10, 25), (0.1, 0.2)


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as ``[3, H, W]``, 0 to 1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def augment_pair(
    photo: Image.Image, tile: Image.Image, offset_m: Tensor, generator: Generator, *, turns: Turns
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Augment a photo and a square tile; where the photo's ground point lies in the tile follows every turn.

    Args:
        photo: ``S`` px high, any width.
        tile: ``S`` by ``S`` px.
        offset_m: ``[2]`` right and down of the photo's ground point from the tile's centre; may be NaN.
        generator: the source of all randomness, on the CPU.
        turns: see ``Turns``.

    Returns:
        photo ``[3, S, W]`` and tile ``[3, S, S]``, 0 to 1, and the offset ``[2]`` in the new tile.
    """
    right, down = offset_m
    if _chance(0.5, generator):
        photo, tile = (image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in (photo, tile))
        right = -right
    quarters = _quarters(turns, generator)
    tile = tile.rotate(90 * quarters)
    for _ in range(quarters):
        right, down = down, -right
    if turns == "both":  # east of a tile that turned once is up, and has to be in the panorama's middle
        photo = Image.fromarray(np.roll(np.array(photo), -round(photo.width * quarters / 4), axis=1))
    first, second = (_holes(to_tensor(_appearance(image, generator)), generator) for image in (photo, tile))
    return (first, second), torch.stack((right, down))


def _quarters(turns: Turns, generator: Generator) -> int:
    """Quarter circles that a tile is turned by, counter-clockwise."""
    if turns == "both":
        return _whole(1, 3, generator) if _chance(0.75, generator) else 0
    return _whole(0, 3, generator) if turns == "tile" else 0


def _appearance(image: Image.Image, generator: Generator) -> Image.Image:
    if _chance(0.5, generator):
        image = jpeg(image, _whole(90, 100, generator))
    if _chance(0.5, generator):
        image = jitter(image, generator)
    if _chance(0.3, generator):
        if _chance(0.5, generator):
            image = image.filter(ImageFilter.GaussianBlur(_between(*BLUR_SIGMA_PX, generator)))
        else:
            image = tv.adjust_sharpness(image, _between(*SHARPNESS, generator))
    return image


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Return the image as a JPEG file of this quality shows it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def jitter(image: Image.Image, generator: Generator) -> Image.Image:
    """Change brightness, contrast, saturation and hue, each by up to ±0.15, in random order."""
    changes = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]
    for i in torch.randperm(len(changes), generator=generator).tolist():
        amount = _between(-COLOUR, COLOUR, generator)
        image = changes[i](image, amount if changes[i] is tv.adjust_hue else 1 + amount)
    return image


def _holes(image: Tensor, generator: Generator) -> Tensor:
    if not _chance(0.3, generator):
        return image
    return grid_holes(image, generator) if _chance(0.5, generator) else coarse_holes(image, generator)


def grid_holes(image: Tensor, generator: Generator) -> Tensor:
    """Cut black squares on a grid of ten rows, each 0.4 of a cell wide, shifted at random: ``[3, H, W]``."""
    cell = max(2, round(image.shape[1] * GRID_CELL_SHARE))
    row, col = (
        (torch.arange(side) + _whole(0, cell - 1, generator)) % cell < cell * GRID_HOLE_SHARE
        for side in image.shape[1:]
    )
    return image.masked_fill(row[:, None] & col[None, :], 0.0)


def coarse_holes(image: Tensor, generator: Generator) -> Tensor:
    """Cut 10 to 25 black rectangles, each 0.1 to 0.2 of the image's height and width: ``[3, H, W]``."""
    height, width = image.shape[1:]
    image = image.clone()
    for _ in range(_whole(*HOLES, generator)):
        high, wide = (max(1, round(side * _between(*HOLE_SHARE, generator))) for side in (height, width))
        top, left = _whole(0, height - high, generator), _whole(0, width - wide, generator)
        image[:, top : top + high, left : left + wide] = 0.0
    return image


def _between(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _whole(low: int, high: int, generator: Generator) -> int:
    """A whole number from ``low`` to ``high``, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _chance(probability: float, generator: Generator) -> bool:
    return float(torch.rand((), generator=generator)) < probability
