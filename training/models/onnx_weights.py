"""Start from an exported file: its weights, under the names that they have in the encoder.

The exporter folds batch normalisation into the convolution before it. Here the folded weights go into the convolution,
and the normalisation behind it only adds the folded bias; batch statistics stay as they are (``Encoder.train``), so the
network is the same and trains on. Proved on the spot: what the encoder answers afterwards is compared with the file.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from onnx import numpy_helper
from torch import Tensor, nn

from training.config import ModelConfig, parse_config
from training.errors import TrainingError
from training.export.onnx_file import MIN_COSINE, parity, read_onnx
from training.models.encoder import Encoder

#: Follow from the backbone's name, or count what nobody reads.
_NOT_STORED = ("mean", "std", "num_batches_tracked")


def start_from_onnx(encoder: Encoder, path: Path) -> None:
    """Take over the weights of a file that ``aerofix-train export`` wrote.

    Raises:
        TrainingError: the file is no such model, or holds another network or image size.
    """
    model = read_onnx(path)
    size = {entry.key: entry.value for entry in model.metadata_props}.get("aerofix.image_size")
    if size != str(encoder.config.image_size):
        raise TrainingError(f"{path} was made for images of {size} px: set model.image_size={size}.")
    found = {
        tensor.name.removeprefix("encoder."): torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in model.graph.initializer
    }
    weights = _unfolded(encoder, found)
    ours = encoder.state_dict()
    misfits = [
        name
        for name, value in ours.items()
        if not name.endswith(_NOT_STORED) and (name not in weights or weights[name].shape != value.shape)
    ]
    if misfits:
        raise TrainingError(f"{path} holds another network: {misfits[0]} does not fit. Check model.backbone.")
    encoder.load_state_dict(weights, strict=False)
    if not parity(encoder.eval(), path, encoder.config.image_size) >= MIN_COSINE:
        raise TrainingError(f"{path} answers otherwise than its weights do here: export it again with this version.")


def made_with(path: Path) -> ModelConfig:
    """Return the settings of the network in a file that ``aerofix-train export`` wrote.

    Raises:
        TrainingError: the file is no such model.
    """
    told = {entry.key: entry.value for entry in read_onnx(path).metadata_props}
    if "aerofix.training_config" not in told:
        raise TrainingError(f"{path} does not tell how it was made: give a file that aerofix-train export wrote.")
    return parse_config(json.loads(told["aerofix.training_config"])).model


def _unfolded(encoder: Encoder, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's weights among a file's tensors."""
    weights, convolution = {name: found[name] for name in encoder.state_dict() if name in found}, ""
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d):
            convolution = name
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            bias = found.get(f"{convolution}.weight_bias")
            if bias is not None:
                weights |= {f"{name}.{key}": value for key, value in _adding(bias, module).items()}
    return weights


def _adding(bias: Tensor, norm: nn.modules.batchnorm._BatchNorm) -> dict[str, Tensor]:
    """Settings with which a batch normalisation adds ``bias``, and nothing else."""
    ones, zeros = torch.ones_like(bias), torch.zeros_like(bias)
    if norm.affine:
        return {"weight": ones, "bias": bias, "running_mean": zeros, "running_var": ones - norm.eps}
    return {"running_mean": -bias, "running_var": ones - norm.eps}
