"""Does the model look at the same ground when the photo is turned or cropped? SinGeo's consistency scores.

The paper compares Grad-CAM maps of one place under several headings (orientation consistency, OC) and fields of view
(FC) by normalised SSIM; how it normalises and which angles it takes is not known to us. Our reconstruction:

* Grad-CAM (Selvaraju et al., 2017) on the backbone's last map, of the cosine to the embedding of the paired picture of
  the other view: what makes the model think that they match. (The embedding's norm, the other candidate, is always 1.)
* Each map is turned and cropped back, so that both show the same ground, and stretched to 0 … 1 over it.
* The score is the mean over transforms and pictures of (1 + SSIM) / 2: 1 for equal maps, 0.5 for unrelated ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from training.checkpoint import load_encoder
from training.data.base import Task
from training.errors import TrainingError
from training.methods.singeo import turn_and_crop
from training.models.encoder import Encoder, as_input

#: SSIM's constants for values of 0 to 1 (Wang et al., 2004, section III.C).
_C1, _C2 = 0.01**2, 0.03**2
_WINDOW, _SIGMA = 11, 1.5


@dataclass(frozen=True)
class Consistency:
    """How alike the maps of attention are, 0 to 1.

    Attributes:
        orientation: OC, over rotations.
        coverage: FC, over crops.
    """

    orientation: float
    coverage: float


def consistency(
    encoder: Encoder,
    images: Tensor,
    paired: Tensor,
    *,
    angles_deg: Sequence[float] = tuple(range(30, 360, 30)),
    crop_area: Sequence[float] = (0.7, 0.5, 0.3, 0.2),
    batch: int = 32,
) -> Consistency:
    """Measure OC and FC of pictures whose places the paired pictures show too.

    Photos against tiles give the paper's scores of the ground view, tiles against photos those of the satellite view.

    Args:
        encoder: the model, on the device of the pictures; it is in evaluation mode meanwhile.
        images: ``[N, 3, S, S]``, 0 to 1: what is turned and cropped; S is at least 16.
        paired: ``[N, 3, S, S]``, 0 to 1: the other view of the same places.
        angles_deg: turns to compare with the picture as it is.
        crop_area: area shares of the central crops to compare with the whole picture.
        batch: pictures to hold at a time.
    """
    training = encoder.training
    encoder.eval()
    turned: list[Tensor] = []
    cropped: list[Tensor] = []
    for some, others in zip(torch.split(images, batch), torch.split(paired, batch), strict=True):
        with torch.no_grad():
            target = encoder(as_input(others))
        whole = grad_cam(encoder, some, target)
        for angle in angles_deg:
            angles = torch.full((len(some),), float(angle))
            cam = grad_cam(encoder, turn_and_crop(some, angles), target)
            turned.append(_similarity(*(_inner(m) for m in (whole, _turn(cam, -angles)))))
        for area in crop_area:
            side = math.sqrt(area)
            cam = grad_cam(encoder, turn_and_crop(some, torch.zeros(len(some)), side=side), target)
            cropped.append(_similarity(_turn(whole, torch.zeros(len(some)), side), cam))
    encoder.train(training)
    return Consistency(torch.cat(turned).mean().item(), torch.cat(cropped).mean().item())


def grad_cam(encoder: Encoder, images: Tensor, target: Tensor) -> Tensor:
    """Tell what in each picture raises its cosine to a target.

    ``ReLU(Σ_c α_c F_c)``, α_c the mean gradient of the cosine over channel c of the last map F.

    Args:
        encoder: the model.
        images: ``[N, 3, S, S]``, 0 to 1.
        target: ``[N, D]`` unit embeddings.

    Returns:
        ``[N, S, S]``, not negative, scaled up from the last map's grid.
    """
    with torch.no_grad():
        maps = encoder.last_map(as_input(images))
    maps = maps.detach().requires_grad_()
    with torch.enable_grad():
        cosine = (encoder.embed(maps) * target).sum()
    (gradient,) = torch.autograd.grad(cosine, maps)
    cam = (gradient.mean((2, 3), keepdim=True) * maps.detach()).sum(1, keepdim=True).relu()
    return F.interpolate(cam, images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Return mean structural similarity ``[N]`` of pictures ``[N, H, W]``, 0 to 1, sides ≥ 11 (Wang et al., 2004).

    Gaussian windows of 11 × 11 and σ = 1.5 px that lie inside the picture, as in the paper.
    """
    x = torch.arange(_WINDOW, dtype=first.dtype, device=first.device) - _WINDOW // 2
    kernel = torch.exp(-(x**2) / (2 * _SIGMA**2))
    window = torch.outer(kernel, kernel)[None, None] / kernel.sum() ** 2

    def mean(picture: Tensor) -> Tensor:
        return F.conv2d(picture[:, None], window)[:, 0]

    a, b = mean(first), mean(second)
    variance_a, variance_b = mean(first**2) - a**2, mean(second**2) - b**2
    covariance = mean(first * second) - a * b
    similarity = (2 * a * b + _C1) * (2 * covariance + _C2)
    return (similarity / ((a**2 + b**2 + _C1) * (variance_a + variance_b + _C2))).mean((1, 2))


def _similarity(first: Tensor, second: Tensor) -> Tensor:
    return (1 + ssim(_stretched(first), _stretched(second))) / 2


def _stretched(maps: Tensor) -> Tensor:
    """Each map to 0 … 1; a flat one to 0."""
    low = maps.amin((1, 2), keepdim=True)
    span = maps.amax((1, 2), keepdim=True) - low
    return (maps - low) / span.clamp(min=torch.finfo(maps.dtype).tiny)


def _turn(maps: Tensor, angle_deg: Tensor, side: float = 1.0) -> Tensor:
    return turn_and_crop(maps[:, None], angle_deg, side=side)[:, 0]


def _inner(maps: Tensor) -> Tensor:
    """The central square that a picture shows at every angle."""
    margin = math.ceil(maps.shape[-1] * (1 - math.sqrt(0.5)) / 2)
    return maps[:, margin:-margin, margin:-margin]


def load_for_gradients(checkpoint: Path) -> Encoder:
    """Load the encoder of a run; a model file has no gradients to look at.

    Raises:
        TrainingError: the file is no checkpoint.
    """
    if checkpoint.suffix == ".onnx":
        raise TrainingError("Consistency needs gradients: give the checkpoint.pt of a run, not an .onnx file.")
    return load_encoder(checkpoint)[0]


def consistency_of(encoder: Encoder, task: Task, *, pairs: int = 64) -> Callable[[], Consistency]:
    """Check that a task's queries have positives, and return what measures OC and FC of them, paired with the first.

    Args:
        encoder: the model, on the CPU.
        task: queries and gallery at the model's size.
        pairs: queries to look at, evenly drawn.

    Raises:
        TrainingError: no query has a positive.
    """
    rows = [row for row, own in enumerate(task.positives) if len(own)]
    if not rows:
        raise TrainingError(f"No query of {task.name} has a positive to be paired with.")
    chosen = [rows[i * len(rows) // min(pairs, len(rows))] for i in range(min(pairs, len(rows)))]
    tiles = [int(task.positives[row][0]) for row in chosen]
    return lambda: consistency(encoder, task.queries.load(chosen), task.gallery.load(tiles))
