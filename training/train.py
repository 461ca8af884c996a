"""The training loop: one device, resumable, every step a function of the seed and its number.

A run folder holds ``config.yaml``, ``log.csv`` (step, loss, R@1 of the batch, learning rate, pairs/s) and
``checkpoint.pt``. Run the same command again and it goes on from the checkpoint, with the same losses as if it had
never stopped.
"""

from __future__ import annotations

import csv
import math
import pickle
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from training.config import Config, dump_config, parse_config
from training.data.pairs import PairSimulator
from training.data.textures import load_textures
from training.errors import TrainingError
from training.methods.base import ModelShape
from training.methods.sample4geo import Sample4Geo, Sample4GeoConfig
from training.models.encoder import Encoder


@dataclass
class State:
    """Everything a checkpoint holds, live."""

    encoder: Encoder
    method: InfoNCE
    optimizer: torch.optim.AdamW
    step: int = 0


def fit(config: Config, *, quiet: bool = False) -> Path:
    """Train, or go on training, and return the path of the last checkpoint.

    Raises:
        TrainingError: the data or device is missing, the checkpoint is of another config, or the loss became NaN (the
            batch is then saved beside the checkpoint).
    """
    device = pick_device(config.run.device)
    torch.manual_seed(config.run.seed)
    textures, held_out = load_textures(config.data)
    pairs = PairSimulator(textures, config.data, config.model.image_size, seed=config.run.seed)
    state = make_state(config, device)
    out = config.run.out
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        _resume(state, checkpoint, config)
    (out / "config.yaml").write_text(yaml.safe_dump(dump_config(config), sort_keys=False))
    _cut_log(out / "log.csv", state.step)
    with _progress(quiet) as progress, (out / "log.csv").open("a", newline="") as log:
        task = progress.add_task(
            f"{len(textures)} textures, {len(held_out)} held out",
            total=config.optim.steps,
            completed=state.step,
            note="",
        )
        writer = csv.writer(log)
        while state.step < config.optim.steps:
            began = time.perf_counter()
            batch = pairs.batch(config.optim.batch_pairs, step_generator(config.run.seed, state.step))
            loss, recall = train_step(state, batch.photo.to(device), batch.tile.to(device), config)
            if not math.isfinite(loss):
                torch.save(batch, out / "nan_batch.pt")
                raise TrainingError(
                    f"The loss became {loss} at step {state.step}; the batch is in {out / 'nan_batch.pt'}."
                )
            rate = len(batch.place) / (time.perf_counter() - began)
            lr = state.optimizer.param_groups[0]["lr"]
            writer.writerow([state.step, f"{loss:.6f}", f"{recall:.3f}", f"{lr:.2e}", f"{rate:.1f}"])
            log.flush()
            progress.update(task, completed=state.step, note=f"loss {loss:.3f}  R@1 {recall:.2f}  {rate:.1f} pairs/s")
            if state.step % config.run.checkpoint_every == 0 or state.step == config.optim.steps:
                save_checkpoint(state, checkpoint, config)
    return checkpoint


def make_state(config: Config, device: torch.device) -> State:
    """A fresh encoder, method and optimiser on a device."""
    encoder = Encoder(config.model).to(device).to(memory_format=torch.channels_last)  # a third faster on CPUs
    method = make_method(config).to(device)
    weights = [p for p in encoder.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": config.optim.weight_decay},
        {"params": list(method.parameters()), "weight_decay": 0.0},
    ]
    return State(encoder, method, torch.optim.AdamW(groups, lr=config.optim.lr))


def train_step(state: State, photo: Tensor, tile: Tensor, config: Config) -> tuple[float, float]:
    """One update on a batch of pairs ``[B, 3, S, S]`` (0 to 1); returns the loss and the batch's photo → tile R@1."""
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(state.step, config)
    state.encoder.train()
    images = torch.cat((photo, tile)).mul(255).permute(0, 2, 3, 1)
    query, reference = state.encoder(images).chunk(2)
    loss: Tensor = state.method(query, reference)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(state.encoder.parameters(), config.optim.clip_norm)
    state.optimizer.step()
    state.step += 1
    hits = (query @ reference.T).argmax(1) == torch.arange(len(query), device=query.device)
    return loss.item(), hits.float().mean().item()


def learning_rate(step: int, config: Config) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    optim = config.optim
    if step < optim.warmup_steps:
        return optim.lr * (step + 1) / optim.warmup_steps
    done = (step - optim.warmup_steps) / max(1, optim.steps - optim.warmup_steps)
    return optim.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def step_generator(seed: int, step: int) -> torch.Generator:
    """The randomness of one step: a function of seed and step alone, so that resuming needs no saved RNG state."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def pick_device(name: str) -> torch.device:
    """``auto`` takes the GPU when there is one.

    Raises:
        TrainingError: ``cuda`` was asked for and is missing.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("run.device=cuda, but torch sees no CUDA device. Check nvidia-smi, or set run.device=cpu.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def save_checkpoint(state: State, path: Path, config: Config) -> None:
    """Write a checkpoint beside the old one and swap: a kill leaves one or the other, never half of one."""
    content = {
        "config": dump_config(config),
        "step": state.step,
        "encoder": state.encoder.state_dict(),
        "method": state.method.state_dict(),
        "optimizer": state.optimizer.state_dict(),
    }
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)


def load_encoder(path: Path) -> tuple[Encoder, Config]:
    """The encoder of a checkpoint, in evaluation mode, and the config that made it."""
    content = _read_checkpoint(path)
    config = parse_config(content["config"])
    settings = parse_config({**content["config"], "model": {**content["config"]["model"], "weights": "none"}}).model
    encoder = Encoder(settings)
    encoder.load_state_dict(content["encoder"])
    return encoder.eval(), config


def _resume(state: State, path: Path, config: Config) -> None:
    content = _read_checkpoint(path)
    theirs, ours = content["config"], dump_config(config)
    different = [k for k in ("method", "model", "data", "optim") if theirs[k] != ours[k]]
    different += ["run.seed"] if theirs["run"]["seed"] != ours["run"]["seed"] else []
    if different:
        raise TrainingError(
            f"{path} was made with other settings under {', '.join(different)}: choose another run.out."
        )
    state.encoder.load_state_dict(content["encoder"])
    state.method.load_state_dict(content["method"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.step = content["step"]


def _cut_log(path: Path, step: int) -> None:
    """Drop the rows after the checkpoint's step: they are about to be written again."""
    rows = path.read_text().splitlines(keepends=True) if path.exists() else []
    path.write_text("".join(row for row in rows if row.endswith("\n") and int(row.split(",")[0]) <= step))


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        # torch's own text would advise to load the file unsafely
        raise TrainingError(f"{path} is no readable checkpoint: give the checkpoint.pt of a run.") from error
    if not isinstance(content, dict) or not {"config", "step", "encoder", "method", "optimizer"} <= content.keys():
        raise TrainingError(f"{path} is no readable checkpoint: give the checkpoint.pt of a run.")
    return content


def _progress(quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        disable=quiet,
    )
