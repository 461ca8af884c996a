"""Weights that others published: state dicts of timm models, as the code around Sample4Geo saves them.

Such a file maps names to tensors and says nothing of the network or its input: those come from a config. The names are
timm's behind any prefix (``model.``, ``module.model.``); a prefix is a tower, and a file may hold one for each view.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.errors import TrainingError
from training.models.encoder import Encoder

#: Under which some trainers put the state dict, beside optimiser and epoch.
_INSIDE = ("state_dict", "model_state_dict", "model")


def load_published(encoder: Encoder, content: Mapping[str, Any], path: Path) -> None:
    """Fill the encoder's backbone; a projection or pooling of our own keeps its fresh weights.

    Args:
        encoder: of the backbone that the file is of.
        content: of the file, as torch reads it.
        path: of the file, for messages.

    Raises:
        TrainingError: the file holds no such backbone, or two that differ: an encoder has one for both views.
    """
    weights = _state_dict(content)
    wanted = {k: v for k, v in encoder.backbone.state_dict().items() if not k.endswith("num_batches_tracked")}
    first = next(iter(wanted))
    prefixes = [k.removesuffix(first) for k in weights if k == first or k.endswith(f".{first}")]
    if not prefixes:
        raise TrainingError(
            f"{path} holds no {encoder.config.backbone}: no tensor is named {first}, with or without a prefix. "
            "Give the config of the network that it is of, or check model.backbone."
        )
    towers = [_tower(weights, prefix, wanted, path) for prefix in prefixes]
    different = [k for k in wanted if any(not torch.equal(tower[k], towers[0][k]) for tower in towers[1:])]
    if different:
        raise TrainingError(
            f"{path} holds {len(towers)} towers ({', '.join(prefixes)}) that differ, first in {different[0]}: aerofix "
            "has one network for both views. Keep one tower's tensors in the file, for the view it is of."
        )
    encoder.backbone.load_state_dict(towers[0], strict=False)


def _state_dict(content: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in _INSIDE:
        inside = content.get(name)
        if isinstance(inside, Mapping):
            return inside
    return content


def _tower(weights: Mapping[str, Any], prefix: str, wanted: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    tower = {}
    for name, ours in wanted.items():
        theirs = weights.get(prefix + name)
        if not isinstance(theirs, Tensor) or theirs.shape != ours.shape:
            shape = list(theirs.shape) if isinstance(theirs, Tensor) else "missing"
            raise TrainingError(
                f"{path} is of another network: {prefix}{name} is {shape}, and {list(ours.shape)} here. "
                "Check model.backbone."
            )
        tower[name] = theirs
    return tower
