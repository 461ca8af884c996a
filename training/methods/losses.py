"""Losses that several methods share. All are computed in float32 or better, whatever autocast says."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from training.batch import full_precision

Distance = Literal["euclidean", "squared", "cosine"]


def info_nce(query: Tensor, reference: Tensor, scale: Tensor, *, label_smoothing: float | Tensor = 0.0) -> Tensor:
    """Return the symmetric InfoNCE over a batch of pairs of different places.

    ``s_ij = scale · <q_i, r_j>``; ``L = 1/2 [CE(s, diag) + CE(sᵀ, diag)]`` (Sample4Geo §3.2; Oord et al., 2018). Pair i
    asks for ``1 - ε_i + ε_i / B`` at its own row and ``ε_i / B`` at each other one.

    Args:
        query: ``[B, D]`` unit embeddings.
        reference: ``[B, D]`` unit embeddings; row i shows the same place as query i.
        scale: ``[]`` inverse temperature.
        label_smoothing: ε, 0 to 1: one for all pairs, or ``[B]``.
    """
    scores = scale * _inner_products(query, reference)
    smoothing = torch.as_tensor(label_smoothing, dtype=scores.dtype, device=scores.device).reshape(-1, 1)
    own = torch.eye(len(query), dtype=scores.dtype, device=scores.device)
    target = (1 - smoothing) * own + smoothing / len(query)
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def pairwise_distances(query: Tensor, reference: Tensor, kind: Distance = "euclidean") -> Tensor:
    """Return distances ``[Q, R]`` of rows; where a distance is 0, its gradient is 0, never NaN.

    Args:
        query: ``[Q, D]``.
        reference: ``[R, D]``.
        kind: ``euclidean``, its square, or ``cosine`` (1 - cosine; half the square for unit rows).
    """
    query, reference = full_precision(query), full_precision(reference)
    if kind == "cosine":
        return (1 - _inner_products(F.normalize(query, dim=-1), F.normalize(reference, dim=-1))).clamp(min=0)
    distance = torch.cdist(query, reference)  # its gradient at 0 is 0
    return distance if kind == "euclidean" else distance.square()


def rivals(place: Tensor) -> Tensor:
    """Return ``[B, B]``, true where row and column are of different places: what may serve as a negative.

    Args:
        place: ``[B]`` place of each pair.
    """
    return place[:, None] != place


def nearest_rivals(distance: Tensor, rival: Tensor, k: int) -> Tensor:
    """Return ``[B, B]``, true at the ``k`` rivals of each row that are nearest; at all where there are fewer.

    Args:
        distance: ``[B, B]``.
        rival: ``[B, B]``, see ``rivals``.
        k: at least 1.
    """
    candidates = distance.detach().masked_fill(~rival, torch.inf)
    nearest = candidates.topk(min(k, len(rival)), largest=False).indices
    return torch.zeros_like(rival).scatter(1, nearest, True) & rival


def triplet_terms(distance: Tensor, margin: float) -> Tensor:
    """Return every triplet's hinge: ``[i, k]`` is ``[d_ii - d_ik + m]₊`` (Schroff et al., 2015), query i, reference k.

    Args:
        distance: ``[B, B]`` from queries to references; the diagonal holds the true pairs.
        margin: m, in the units of the distance.
    """
    return F.relu(distance.diagonal()[:, None] - distance + margin)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the values where the mask is true; 0 where it is true nowhere."""
    return values.where(mask, 0).sum() / mask.sum().clamp(min=1)


def kl_with_temperature(
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: float | Tensor,
    *,
    detach_teacher: bool = True,
    clip_nats: float | None = None,
) -> Tensor:
    """Distil: the batch mean of ``T² · KL(softmax(teacher / T) ‖ softmax(student / T))`` (Hinton et al., 2015).

    Args:
        teacher_logits: ``[N, C]``.
        student_logits: ``[N, C]``.
        temperature: T > 0: one for all rows, or ``[N]``.
        detach_teacher: let no gradient reach the teacher.
        clip_nats: rows of a larger KL count as this much and their gradient shrinks by the same factor, so that T²
            cannot blow up one row, and the row still learns; None does not clip.
    """
    teacher, student = full_precision(teacher_logits), full_precision(student_logits)
    teacher = teacher.detach() if detach_teacher else teacher
    t = torch.as_tensor(temperature, dtype=student.dtype, device=student.device).reshape(-1, 1)
    log_teacher, log_student = F.log_softmax(teacher / t, dim=-1), F.log_softmax(student / t, dim=-1)
    kl = F.kl_div(log_student, log_teacher, log_target=True, reduction="none").sum(-1)
    if clip_nats is not None:
        kl = kl * (clip_nats / kl.detach().clamp(min=clip_nats))
    return (t.square().flatten() * kl).mean()


def _inner_products(query: Tensor, reference: Tensor) -> Tensor:
    """``[Q, R]``; autocast would keep three digits of them, and the scale then multiplies the error."""
    with torch.autocast(query.device.type, enabled=False):
        return full_precision(query) @ full_precision(reference).T
