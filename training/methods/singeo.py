"""SinGeo (arXiv 2603.09377): one model for any heading and field of view, by copies of both views that grow harder.

For photo g, tile s and their transformed copies g*, s*, with L = ``info_nce``:

    L_cross = L(g, s) + w1 L(g*, s) + w2 L(g, s*) + w3 L(g*, s*)
    L_disc  = L(g*, g) + L(s*, s)
    loss    = L_cross + γ L_disc

What the authors' code does (facts; ours is written anew). The tile is turned by ±90° or stays, and stays with a
probability that falls from 1 to 0.25 (street panoramas) or 0.3 (University-1652); the anchor tile s is upright. g* is
the panorama shifted at random and cut to a field of view that shrinks from 360° to 70°: ``photo_view: pan``. On
University-1652, where the task is street ↔ satellite, it is another photo of the place (its mirror image where there is
one only), uncut, which we do not offer. Weights are w1 = w2 = w3 = 0.25 with panoramas and w1 = w2 = 0.5, w3 = 1 on
University-1652. Hard negatives are mined at the current field of view, every 4 epochs; on University-1652 batches are
random.

For drones (our reconstruction, the default) g* is the photo itself, its heading read as a turn in the picture and its
field of view as a crop. Data sets of drones have no panoramas, and their photos of one place differ in viewpoint.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor, nn

from training.batch import Batch, Features
from training.errors import TrainingError
from training.methods.base import Method, ModelShape
from training.methods.losses import info_nce
from training.schema import STRICT, NotNegative, Positive, Probability, Share

Schedule = Literal["f1", "f2", "f3"]
_FieldOfView = Annotated[float, Field(gt=0, le=360)]
#: Widths of cut panoramas are multiples of this: the last stage's stride.
_STRIDE_PX = 32
_Angle = Annotated[float, Field(ge=0, le=180)]
#: The largest square that stays inside a unit square at every angle.
_INSCRIBED = math.sqrt(0.5)


@dataclass(frozen=True, config=STRICT)
class SinGeoConfig:
    """The knobs of the loss and of the curriculum; pairs are its values at the start and at the end of training."""

    name: Literal["singeo"] = "singeo"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1  # the paper's value
    # w1, w2, w3: the authors' for University-1652; (0.25, 0.25, 0.25) for panoramas
    weights: tuple[NotNegative, NotNegative, NotNegative] = (0.5, 0.5, 1.0)
    disc_weight: NotNegative = 0.5  # γ: the authors' value for both
    schedule: Schedule = "f1"  # straight, as in the paper's main results; f2 hardens early, f3 late
    curvature: Positive = 5.0  # c of f2 and f3: the authors' value
    # turn: a drone's photo turns and is cropped; pan: a panorama is shifted and cut, as the authors do
    photo_view: Literal["turn", "pan"] = "turn"
    fov_deg: tuple[_FieldOfView, _FieldOfView] = (360.0, 70.0)  # of a panorama's cut: the authors' values
    crop_area: tuple[Share, Share] = (1.0, 0.2)  # of g*: 70° of 360° left at the end, read as area
    centre_jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.1  # how far a crop moves at most, shares of the side; ours
    photo_rotation_deg: _Angle = 180.0  # g* turns by up to this, either way, from the start: the heading is unknown
    # discrete: by 90° either way, as in the paper's main results; continuous: any angle up to a growing bound
    tile_rotation: Literal["discrete", "continuous"] = "discrete"
    # of a discrete turn: the authors' for University-1652; (0, 0.75) for panoramas
    tile_turn_probability: tuple[Probability, Probability] = (0.0, 0.7)
    tile_rotation_deg: tuple[_Angle, _Angle] = (0.0, 180.0)  # bound of a continuous turn; ours
    # Black corners would tell the angle. reflect: they show the picture mirrored at its edge, and only the seam tells;
    # inscribed: there are none, views are cut to the square that fits inside at every angle, half of the area
    corners: Literal["reflect", "inscribed"] = "reflect"


class SinGeo(Method):
    """InfoNCE across and within views, at one learnable inverse temperature that starts at 1/0.07.

    ``L`` is symmetric, as in Sample4Geo, which the paper builds on; its own text writes one direction.
    """

    turns_tiles = True  # a turn of the data's own would leave the curriculum nothing to add

    def __init__(self, config: SinGeoConfig, shape: ModelShape) -> None:
        super().__init__()
        self.config = config
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def views(self, batch: Batch, progress: float, generator: Generator) -> dict[str, Tensor]:
        """Return ``photo``, ``tile`` and transformed copies ``photo*``, ``tile*``, harder as training goes on."""
        hardness = pace(self.config.schedule, progress, self.config.curvature)
        return {
            "photo": batch.photo,
            "tile": batch.tile,
            "photo*": self._changed(batch.photo, hardness, generator),
            "tile*": self._turned_tile(batch.tile, hardness, generator),
        }

    def forward(self, features: dict[str, Features], batch: Batch) -> dict[str, Tensor]:
        """Return ``loss`` and its parts ``cross`` and ``disc``; see the module's docstring."""

        def contrast(a: str, b: str) -> Tensor:
            smoothing = self.config.label_smoothing
            return info_nce(features[a].embedding, features[b].embedding, scale, label_smoothing=smoothing)

        scale, (w1, w2, w3) = self.log_scale.exp(), self.config.weights
        cross = contrast("photo", "tile") + w1 * contrast("photo*", "tile")
        cross = cross + w2 * contrast("photo", "tile*") + w3 * contrast("photo*", "tile*")
        disc = contrast("photo*", "photo") + contrast("tile*", "tile")
        return {"loss": cross + self.config.disc_weight * disc, "cross": cross, "disc": disc}

    def mined(self, photo: Tensor, progress: float) -> Tensor:
        """Return photos at the current field of view: their middle, cut as ``photo*`` is cut now."""
        hardness = pace(self.config.schedule, progress, self.config.curvature)
        if self.config.photo_view == "pan":
            return self._cut(photo, hardness)
        return turn_and_crop(photo, torch.zeros(len(photo)), side=self._crop_side(hardness))

    def _changed(self, photo: Tensor, hardness: float, generator: Generator) -> Tensor:
        """g*, by the kind of photo."""
        if self.config.photo_view == "turn":
            return self._turned_crop(photo, hardness, generator)
        shifts = torch.randint(photo.shape[3], (len(photo),), generator=generator).tolist()
        shifted = torch.stack([image.roll(shift, 2) for image, shift in zip(photo, shifts, strict=True)])
        return self._cut(shifted, hardness)

    def _cut(self, panorama: Tensor, hardness: float) -> Tensor:
        """The left part of panoramas ``[N, 3, S, W]`` that is the current field of view: ``[N, 3, S, w]``."""
        whole = panorama.shape[3]
        wanted = whole * _between(self.config.fov_deg, hardness) / 360
        return panorama[..., : min(whole, max(_STRIDE_PX, _STRIDE_PX * round(wanted / _STRIDE_PX)))]

    def _crop_side(self, hardness: float) -> float:
        side = math.sqrt(_between(self.config.crop_area, hardness))
        return min(side, _INSCRIBED) if self.config.corners == "inscribed" else side

    def _turned_crop(self, photo: Tensor, hardness: float, generator: Generator) -> Tensor:
        """g*: turned by any angle, cropped to an area share that shrinks from 1.0 to 0.2, near the centre."""
        config, n = self.config, len(photo)
        side = self._crop_side(hardness)
        angle = (2 * torch.rand(n, generator=generator) - 1) * config.photo_rotation_deg
        room = min(config.centre_jitter, (1 - side) / 2)
        centre = (2 * torch.rand(n, 2, generator=generator) - 1) * room
        return turn_and_crop(photo, angle, side=side, centre=centre)

    def _turned_tile(self, tile: Tensor, hardness: float, generator: Generator) -> Tensor:
        """s*: turns of ±90° with growing probability, or any angle up to a growing bound."""
        config, n = self.config, len(tile)
        if config.tile_rotation == "discrete":
            turned = torch.rand(n, generator=generator) < _between(config.tile_turn_probability, hardness)
            quarters = (2 * torch.randint(2, (n,), generator=generator) - 1) * turned
            return turn_and_crop(tile, 90.0 * quarters)
        angle = (2 * torch.rand(n, generator=generator) - 1) * _between(config.tile_rotation_deg, hardness)
        return turn_and_crop(tile, angle, side=1.0 if config.corners == "reflect" else _INSCRIBED)


def pace(schedule: Schedule, progress: float, curvature: float) -> float:
    """Tell how hard the views are, 0 to 1, when a share ``progress`` of training is done.

    ``f1(x) = x``, ``f2(x) = (1 - e^{-cx}) / (1 - e^{-c})``, ``f3(x) = (e^{cx} - 1) / (e^c - 1)`` (SinGeo's curriculum).
    The paper steps once an epoch, we with every batch.
    """
    if schedule == "f1":
        return progress
    rate = -curvature if schedule == "f2" else curvature
    return math.expm1(rate * progress) / math.expm1(rate)


def turn_and_crop(images: Tensor, angle_deg: Tensor, *, side: float = 1.0, centre: Tensor | None = None) -> Tensor:
    """Turn square pictures about the middle of a crop, and scale the crop to their size.

    What lies beyond a picture is the picture mirrored at its edge.

    Args:
        images: ``[N, C, S, S]``.
        angle_deg: ``[N]`` counter-clockwise turn of the content, as in ``torch.rot90``.
        side: side of the crop over the picture's.
        centre: ``[N, 2]`` right and down of the crop's middle, shares of the picture's side; None crops the middle.

    Raises:
        TrainingError: the pictures are not square.
    """
    if images.shape[2] != images.shape[3]:
        raise TrainingError(
            f"Pictures of {images.shape[3]} by {images.shape[2]} px cannot be turned about their centre, as these are "
            "panoramas: train with --config singeo_panorama (method.photo_view=pan); judge without --robustness and "
            "--consistency."
        )
    angle = torch.deg2rad(angle_deg.to(images))
    cos, sin = angle.cos() * side, angle.sin() * side
    middle = torch.zeros(len(images), 2).to(images) if centre is None else 2 * centre.to(images)
    theta = torch.stack((cos, -sin, middle[:, 0], sin, cos, middle[:, 1]), dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _between(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * share
