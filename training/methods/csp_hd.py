"""CSP-HD (2026): confidence-sensitive progressive hierarchical distillation.

A classifier of places sits on every stage of the backbone. The shallow ones teach the last (HCD) under a weight that
decays as training settles (PALW), and of photo and tile the surer one teaches the other (CSDA). No formula of the paper
is public, only its block diagram and abstract. This is our reconstruction after its evident model, MobileGeo
(arXiv 2510.22582): inverse self-distillation for HCD, uncertainty-aware alignment for CSDA. No head is exported.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from training.batch import Batch, Features, full_precision
from training.errors import TrainingError
from training.methods.base import Method, ModelShape
from training.methods.losses import (
    kl_with_temperature,
    masked_mean,
    pairwise_distances,
    rivals,
    triplet_terms,
)
from training.methods.progress import ProgressSignal
from training.methods.sample4geo import Sample4Geo, Sample4GeoConfig
from training.schema import STRICT, NotNegative, Ordered, Positive


@dataclass(frozen=True, config=STRICT)
class CSPHDConfig:
    """The knobs. Where not said otherwise, defaults are those of re-implementations of MobileGeo, or ours."""

    name: Literal["csp_hd"] = "csp_hd"
    metric: Sample4GeoConfig = dataclasses.field(default_factory=Sample4GeoConfig)  # InfoNCE on the embeddings
    triplet_weight: NotNegative = 0.0  # of a triplet loss beside InfoNCE; 1 in MobileGeo
    margin: NotNegative = 0.3  # of that triplet loss, in Euclidean distance
    hidden_dim: Annotated[int, Field(ge=1)] = 512  # width of each stage's bottleneck
    supervision_weight: NotNegative = 1.0  # of the sum of cross-entropies; 0.25 in re-implementations
    # weights of the teachers, shallow to deep: N numbers use the last N + 1 stages
    hcd_weights: Annotated[tuple[NotNegative, ...], Field(min_length=1)] = (0.1, 0.2, 0.3)
    hcd_temperature: Positive = 4.0
    # λ of HCD at the end and at the start of training; equal numbers switch PALW off
    lambda_range: Annotated[tuple[NotNegative, NotNegative], Ordered] = (0.2, 1.0)
    # the loss whose fall is progress. HCD's own begins near 0, as fresh heads agree in knowing nothing, and rises while
    # they learn, so that λ would stay high for good; DPHR's signal is the task's loss too, not the one that λ scales
    progress_from: Literal["supervision", "hcd"] = "supervision"
    window: Annotated[int, Field(ge=1)] = 50  # steps whose mean loss is the progress signal
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.99  # smoothing of λ
    csda_weight: NotNegative = 0.2
    csda_temperature: Positive = 4.0  # T_0; CSDA softens up to twice as much
    direction: Literal["confident", "fixed"] = "confident"  # who teaches: the surer view, or the tile as in MobileGeo
    clip_nats: Positive | None = 5.0  # cap of a row's KL, before T² multiplies it; None: no cap


class CSPHD(Method):
    """``L = L_metric + L_DS + λ L_HCD + γ L_CSDA``.

    * ``L_metric``: InfoNCE (and triplet) on the embeddings;
    * ``L_DS = Σ_i CE(z_i, place)`` over the stages' logits;
    * ``L_HCD = Σ_i w_i T² KL(sg[p_i] ‖ p_last)`` over the shallow stages;
    * ``L_CSDA``: see ``confidence_alignment``, on the last stage.

    ``L_DS`` and ``L_HCD`` are means over both views, which share the heads as they share the backbone.

    Raises:
        TrainingError: the backbone has too few stages.
    """

    needs_stages = True

    def __init__(self, config: CSPHDConfig, shape: ModelShape) -> None:
        super().__init__()
        self.config = config
        stages = len(config.hcd_weights) + 1
        if len(shape.stage_channels) < stages:
            raise TrainingError(
                f"method.hcd_weights needs a backbone of {stages} stages; this one has {len(shape.stage_channels)}. "
                "Choose another model.backbone, or give fewer weights (one less than there are stages)."
            )
        self.metric = Sample4Geo(config.metric, shape)
        self.heads = nn.ModuleList(
            stage_head(channels, config.hidden_dim, shape.places) for channels in shape.stage_channels[-stages:]
        )
        low, high = config.lambda_range
        self.progress = ProgressSignal(start=high, end=low, window=config.window, beta=config.beta)

    def forward(self, features: dict[str, Features], batch: Batch) -> dict[str, Tensor]:
        """Return ``loss``, ``metric``, ``supervision``, ``hcd``, ``lambda`` (the weight of ``hcd``) and ``csda``."""
        c = self.config
        photo, tile = self._logits(features["photo"]), self._logits(features["tile"])
        metric = self._metric(features, batch)
        supervision = sum(F.cross_entropy(full_precision(z), batch.place) for z in (*photo, *tile)) / 2
        hcd = (self._distill(photo) + self._distill(tile)) / 2
        weight = self.progress(supervision if c.progress_from == "supervision" else hcd)
        csda = confidence_alignment(photo[-1], tile[-1], c.csda_temperature, c.direction, c.clip_nats)
        return {
            "loss": metric + c.supervision_weight * supervision + weight * hcd + c.csda_weight * csda,
            "metric": metric,
            "supervision": supervision,
            "hcd": hcd,
            "lambda": weight,
            "csda": csda,
        }

    def _logits(self, features: Features) -> list[Tensor]:
        """``[B, places]`` of each stage that has a head, shallow to deep."""
        stages = features.stages[-len(self.heads) :]
        return [head(stage) for head, stage in zip(self.heads, stages, strict=True)]

    def _metric(self, features: dict[str, Features], batch: Batch) -> Tensor:
        loss: Tensor = self.metric(features, batch)["loss"]
        if self.config.triplet_weight == 0:
            return loss
        distance = pairwise_distances(features["photo"].embedding, features["tile"].embedding)
        there, back = (
            masked_mean(triplet_terms(d, self.config.margin), rivals(batch.place)) for d in (distance, distance.T)
        )
        return loss + self.config.triplet_weight * (there + back) / 2

    def _distill(self, logits: list[Tensor]) -> Tensor:
        """HCD of one view. Teachers are detached (our choice), or the last stage would drag the shallow heads along."""
        c = self.config
        *teachers, student = logits
        losses = [
            w * kl_with_temperature(teacher, student, c.hcd_temperature, clip_nats=c.clip_nats)
            for w, teacher in zip(c.hcd_weights, teachers, strict=True)
        ]
        return torch.stack(losses).sum()


def stage_head(channels: int, hidden_dim: int, places: int) -> nn.Sequential:
    """Make bottleneck and classifier of one stage: ``[N, channels]`` → ``[N, places]``.

    LayerNorm, not the usual BatchNorm: it keeps no statistics, so single pairs and mixed views are no special case.
    """
    bottleneck = (nn.Linear(channels, hidden_dim), nn.LayerNorm(hidden_dim), nn.GELU())
    return nn.Sequential(*bottleneck, nn.Linear(hidden_dim, places))


def normalized_entropy(logits: Tensor) -> Tensor:
    """Return entropies ``[N]`` of predictions ``[N, C]`` over log C: 0 (sure) to 1, whatever the number of classes."""
    log_p = F.log_softmax(full_precision(logits), dim=-1)
    return -(log_p.exp() * log_p).sum(-1) / math.log(max(2, logits.shape[-1]))


def confidence_alignment(
    photo: Tensor, tile: Tensor, temperature: float, direction: Literal["confident", "fixed"], clip_nats: float | None
) -> Tensor:
    """Return CSDA: ``T² KL(sg[p_a(T)] ‖ p_b(T))``, ``T = T_0 (1 + sigmoid(U_b - U_a))``, U the normalised entropy.

    a teaches b, and the less sure b is beside a, the softer. ``confident`` lets the surer view of each pair teach: the
    abstract says that the confidence in each perspective weighs the learning. ``fixed`` is MobileGeo's, where the tile
    always teaches; its U is the mean of the batch, ours is each pair's. T is a constant to the gradient (our choice).

    Args:
        photo: ``[B, C]`` logits.
        tile: ``[B, C]`` logits; row i shows the same place.
        temperature: T_0.
        direction: who teaches.
        clip_nats: see ``kl_with_temperature``.
    """
    doubt_photo, doubt_tile = normalized_entropy(photo.detach()), normalized_entropy(tile.detach())
    photo_teaches = (doubt_photo < doubt_tile) & (direction == "confident")
    gap = torch.where(photo_teaches, doubt_tile - doubt_photo, doubt_photo - doubt_tile)
    teacher = torch.where(photo_teaches[:, None], photo, tile)
    student = torch.where(photo_teaches[:, None], tile, photo)
    return kl_with_temperature(teacher, student, temperature * (1 + gap.sigmoid()), clip_nats=clip_nats)
