"""What a run is at a step, and the file that holds it: kill and resume give the same losses."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.config import Config, dump_config, parse_config
from training.errors import TrainingError
from training.methods.base import Method
from training.models.encoder import Encoder
from training.models.published import load_published

#: Parts of an encoder that a run may add to the one it starts from.
_NEW_HEADS = frozenset({"dense"})


@dataclass
class State:
    """Everything a checkpoint holds, live.

    Attributes:
        step: updates made.
        epoch: passes over the data begun, minus one.
        epoch_step: batches of this epoch that are done.
        neighbours: ``[places, k]`` most alike places, as the sampler got them for this epoch; None when it got none.
        best: highest R@1 of an evaluation, the mean over tasks; -1 before the first.
    """

    encoder: Encoder
    method: Method
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    neighbours: Tensor | None = None
    best: float = -1.0


#: Of a ``State``, what is saved as it is.
_PLAIN = ("step", "epoch", "epoch_step", "neighbours", "best")


def save_checkpoint(state: State, path: Path, config: Config) -> None:
    """Write a checkpoint beside the old one and swap: a kill leaves one or the other, never half of one."""
    content = {
        "config": dump_config(config),
        "encoder": state.encoder.state_dict(),
        "method": state.method.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        **{name: getattr(state, name) for name in _PLAIN},
    }
    _swap(content, path)


def save_model(state: State, path: Path, config: Config) -> None:
    """Write what ``load_encoder`` and ``load_method`` read, likewise; it cannot be resumed."""
    parts = {"encoder": state.encoder.state_dict(), "method": state.method.state_dict()}
    _swap({"config": dump_config(config), **parts, "step": state.step}, path)


def _swap(content: dict[str, Any], path: Path) -> None:
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)


def write_encoder(encoder: Encoder, path: Path, config: Config) -> None:
    """Write an encoder that no optimiser will go on with, to be exported or started from."""
    partial = path.with_suffix(".partial")
    torch.save({"config": dump_config(config), "encoder": encoder.state_dict()}, partial)
    partial.replace(path)


def resume(state: State, path: Path, config: Config) -> None:
    """Fill a fresh state from a checkpoint of the same run.

    Raises:
        TrainingError: the file is no checkpoint, or was made with other settings; the message names the sections.
    """
    content = read_checkpoint(path)
    theirs, ours = content["config"], dump_config(config)
    different = [k for k in ours if k not in ("name", "license", "run") and theirs.get(k) != ours[k]]
    different += ["run.seed"] if theirs["run"]["seed"] != ours["run"]["seed"] else []
    if different:
        raise TrainingError(
            f"{path} was made with other settings under {', '.join(different)}: choose another run.out."
        )
    for name in ("encoder", "method", "optimizer", "scaler"):
        getattr(state, name).load_state_dict(content[name])
    for name in _PLAIN:
        setattr(state, name, content[name])


def start_from(encoder: Encoder, path: Path) -> None:
    """Take over the encoder of another run, or published weights; heads that these lack keep their fresh weights.

    Raises:
        TrainingError: the file is neither, or of another network; the message names a part.
    """
    content = read_weights(path)
    if "config" not in content:
        load_published(encoder, content, path)
        return
    theirs, ours = content["encoder"], encoder.state_dict()
    misfits = [k for k, v in theirs.items() if k not in ours or ours[k].shape != v.shape]
    missing = [k for k in ours if k not in theirs and k.split(".")[0] not in _NEW_HEADS]
    if misfits or missing:
        raise TrainingError(
            f"{path} holds another network: {(misfits + missing)[0]} does not fit. Check model.backbone."
        )
    encoder.load_state_dict(theirs, strict=False)


def load_encoder(path: Path) -> tuple[Encoder, Config]:
    """Load the encoder of a checkpoint, in evaluation mode, and the config that made it.

    Raises:
        TrainingError: the file is no checkpoint of this version.
    """
    content = read_checkpoint(path)
    config = parse_config(content["config"])
    settings = parse_config(
        {**content["config"], "model": {**content["config"]["model"], "weights": "none", "start": None}}
    ).model
    encoder = Encoder(settings)
    encoder.load_state_dict(content["encoder"])
    return encoder.eval(), config


def with_local(encoder: Encoder, config: Config, path: Path) -> tuple[Encoder, Config]:
    """Join an encoder with the dense descriptors of another run, which share no weight with the embedding.

    Raises:
        TrainingError: the file is no checkpoint, or its descriptors are made from its backbone's stages.
    """
    other, theirs = load_encoder(path)
    if theirs.model.local_dim is None or theirs.model.local_from == "backbone":
        raise TrainingError(f"{path} has no descriptors of their own network: train them with model.local_from=xfeat.")
    wanted = {name: getattr(theirs.model, name) for name in ("local_dim", "local_stride", "local_from", "local_turns")}
    joined = Encoder(replace(config.model, **wanted, weights="none", start=None))
    ours = {name: value for name, value in encoder.state_dict().items() if not name.startswith("dense.")}
    descriptors = {name: value for name, value in other.state_dict().items() if name.startswith("dense.")}
    joined.load_state_dict(ours | descriptors)
    return joined.eval(), replace(config, model=replace(config.model, **wanted), dense=theirs.dense)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read the plain content of a checkpoint.

    Raises:
        TrainingError: the file cannot be read as one.
    """
    content = read_weights(path)
    if "config" not in content:
        raise TrainingError(f"{path} is no checkpoint of aerofix-train: give the checkpoint.pt of a run.")
    return content


def read_weights(path: Path) -> dict[str, Any]:
    """Read the plain content of a checkpoint, or of weights that others published.

    Raises:
        TrainingError: torch cannot read the file without running code of it, or it holds something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"There is no file {path}: give the checkpoint.pt of a run, or weights as .pth.") from error
    except pickle.UnpicklingError as error:
        # torch's own text would advise to load the file unsafely
        raise TrainingError(
            f"{path} is no readable checkpoint, or holds objects beside tensors, which would run code to be read: give "
            "the checkpoint.pt of a run, or weights that were saved by torch.save(model.state_dict(), FILE)."
        ) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise TrainingError(f"{path} is no readable checkpoint: give the checkpoint.pt of a run.") from error
    if not isinstance(content, dict):
        raise TrainingError(f"{path} is no checkpoint of aerofix-train: give the checkpoint.pt of a run.")
    return content
