"""The training loop: CPU, one GPU, or several under ``torchrun``; resumable; every step a function of seed and number.

Run the same command again and it goes on from the checkpoint, with the losses of a run that never stopped. What the run
folder holds: ``training/run_folder.py``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Generator, Tensor

from training.batch import Batch
from training.checkpoint import State, resume, save_checkpoint, save_model, start_from
from training.config import Config, OptimConfig
from training.data.base import PairData
from training.data.datasets import open_dataset
from training.data.images import FilePairs
from training.data.loader import load_batches
from training.data.sampling import epoch_batches, gps_neighbours, shard, similarity_neighbours
from training.distributed import World, join_world, leave_world, same_everywhere, sum_over_processes
from training.errors import TrainingError
from training.evaluation.validate import Validation
from training.methods import make_method
from training.methods.base import ModelShape
from training.models.encoder import Encoder, as_input
from training.models.onnx_weights import start_from_onnx
from training.precision import autocast
from training.run_folder import RunFolder
from training.step import train_step

#: Scale of the loss that fp16 begins with: Sample4Geo's and SinGeo's. torch's 2¹⁶ loses the first steps to overflow.
FIRST_LOSS_SCALE = 2.0**10


def fit(config: Config, *, quiet: bool = False) -> Path:
    """Train, or go on training, and return the path of the last checkpoint.

    Raises:
        TrainingError: the data or device is missing, the checkpoint is of another config, or the loss became NaN (the
            batch is then saved beside the checkpoint).
    """
    world = join_world(config.run.device)
    try:
        return _fit(config, world, quiet=quiet)
    finally:
        leave_world(world)


def _fit(config: Config, world: World, *, quiet: bool) -> Path:
    torch.manual_seed(config.run.seed)
    dataset = open_dataset(config.data, config.model, seed=config.run.seed)
    pairs = dataset.train()
    state = make_state(config, pairs.places, world)
    if state.method.turns_tiles and isinstance(pairs, FilePairs):
        pairs.leave_tiles_upright()
    checkpoint = config.run.out / "checkpoint.pt"
    if checkpoint.exists():
        resume(state, checkpoint, config)
    steps = total_steps(config.optim, len(pairs.place))
    warmup = warmup_steps(config.optim, len(pairs.place))
    validation = Validation(dataset, config, steps, evaluate_every(config, len(pairs.place)))
    with ExitStack() as stack:
        folder = stack.enter_context(RunFolder(config, world, state.step)) if world.leads else None
        progress = stack.enter_context(_progress(quiet or folder is None))
        task = progress.add_task(config.name, total=steps, completed=state.step, note=f"{len(pairs.place)} pairs")
        began = time.perf_counter()
        for batch in batches(state, pairs, config, world, steps):
            lr = learning_rate(state.step, config.optim, steps, warmup)
            dice = Generator().manual_seed(seed_of(config, world) + state.step)
            report = train_step(state, batch, config.optim, world, dice, progress=state.step / steps, lr=lr)
            if not math.isfinite(report["loss"]):
                _stop(batch, report["loss"], state.step, config.run.out, world)
            rate = len(batch) * world.size / (time.perf_counter() - began)
            found = f"R@1 {report['recall_at_1']:.2f}  " if "recall_at_1" in report else ""
            note = f"loss {report['loss']:.3f}  {found}{rate:.1f} pairs/s"
            progress.update(task, completed=state.step, note=note)
            found_out = validation.measure(state.encoder, world) if validation.due(state.step) else None
            if folder is not None:
                folder.log(state.step, {**report, "lr": lr, "pairs_per_s": rate})
                if found_out is not None:
                    folder.measured(state.step, found_out)
                    _keep_the_best(state, found_out, config)
                if state.step % config.run.checkpoint_every == 0 or state.step == steps:
                    save_checkpoint(state, checkpoint, config)
            began = time.perf_counter()
    return checkpoint


def _keep_the_best(state: State, found: dict[str, float], config: Config) -> None:
    """Write ``best.pt`` when R@1, the mean over tasks, is the highest so far."""
    score = float(np.mean([value for name, value in found.items() if name.endswith("/recall@1")]))
    if score > state.best:
        state.best = score
        save_model(state, config.run.out / "best.pt", config)


def make_state(config: Config, places: int, world: World) -> State:
    """Make encoder, method and optimiser anew, the same in all processes."""
    encoder = Encoder(config.model)
    if config.model.start is not None:
        start = start_from_onnx if config.model.start.suffix == ".onnx" else start_from
        start(encoder, config.model.start)
    if config.optim.checkpointing:
        encoder.forget_activations()
    encoder = encoder.to(world.device).to(memory_format=torch.channels_last)  # a third faster on CPUs
    shape = ModelShape(
        encoder.embedding_dim, encoder.stage_channels, config.model.local_dim, places, config.model.image_size
    )
    method = make_method(config.method, config.dphr, config.dense, shape).to(world.device)
    same_everywhere(encoder, world)
    same_everywhere(method, world)
    groups = [
        {"params": [p for p in encoder.parameters() if p.requires_grad], "weight_decay": config.optim.weight_decay},
        {"params": list(method.parameters()), "weight_decay": 0.0},
    ]
    fp16 = config.optim.precision == "fp16"
    scaler = torch.amp.GradScaler(world.device.type, init_scale=FIRST_LOSS_SCALE, enabled=fp16)
    return State(encoder, method, torch.optim.AdamW(groups, lr=config.optim.lr), scaler)


def total_steps(optim: OptimConfig, pairs: int) -> int:
    """Return ``optim.steps``, or ``optim.epochs`` times the full batches that the pairs make."""
    return optim.steps or max(1, round((optim.epochs or 1) * (pairs // optim.batch_pairs)))


def warmup_steps(optim: OptimConfig, pairs: int) -> int:
    """Return ``optim.warmup_steps``, or ``optim.warmup_epochs`` times the full batches that the pairs make."""
    if optim.warmup_epochs is None:
        return optim.warmup_steps
    return round(optim.warmup_epochs * (pairs // optim.batch_pairs))


def evaluate_every(config: Config, pairs: int) -> int | None:
    """Return ``run.evaluate_every``, or ``run.evaluate_epochs`` times the full batches that the pairs make."""
    if config.run.evaluate_epochs is None:
        return config.run.evaluate_every
    return max(1, round(config.run.evaluate_epochs * (pairs // config.optim.batch_pairs)))


def learning_rate(step: int, optim: OptimConfig, steps: int, warmup: int) -> float:
    """Warm up linearly over ``warmup`` steps, then go half a cosine down to zero."""
    if step < warmup:
        return optim.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return optim.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def batches(state: State, pairs: PairData, config: Config, world: World, steps: int) -> Iterator[Batch]:
    """Yield this process's share of each batch from the state's step to the last; keeps the state's epoch right."""
    while state.step < steps:
        if state.epoch_step == 0:
            state.neighbours = _neighbours(state, pairs, config, world, steps)
        dice = Generator().manual_seed(seed_of(config) + state.epoch)
        plan = epoch_batches(
            pairs.place,
            config.optim.batch_pairs,
            dice,
            sampling=config.sampling,
            neighbours=state.neighbours,
            also_shows=pairs.also_shows,
        )
        todo = plan[state.epoch_step :][: steps - state.step]
        specs = [(state.step + i, shard(indices, world.rank, world.size)) for i, indices in enumerate(todo)]
        for batch in load_batches(pairs, specs, workers=config.run.workers, seed=seed_of(config, world)):
            state.epoch_step += 1
            yield batch.to(world.device)
        state.epoch, state.epoch_step = state.epoch + 1, 0


def _neighbours(state: State, pairs: PairData, config: Config, world: World, steps: int) -> Tensor | None:
    """The places most alike for this epoch: by GPS, by the encoder's own eyes (DSS), or none."""
    sampling = config.sampling
    begun = state.epoch - sampling.first_epochs  # epochs since the first ones ended
    if begun < 0 and sampling.first == "gps":
        if pairs.position is None:
            raise TrainingError("sampling.first=gps, but this data set has no positions: set sampling.first=random.")
        return torch.from_numpy(gps_neighbours(pairs.position, sampling.neighbours))
    if begun < 0 or sampling.then == "random":
        return None
    if begun % sampling.refresh_epochs:
        return state.neighbours
    photos, tiles = _look_at_places(state, pairs, config, world, progress=state.step / steps)
    return torch.from_numpy(similarity_neighbours(photos.numpy(), tiles.numpy(), sampling.neighbours))


@torch.no_grad()
def _look_at_places(
    state: State, pairs: PairData, config: Config, world: World, *, progress: float
) -> tuple[Tensor, Tensor]:
    """Embeddings ``[places, D]`` of one photo and one tile of each place; every process does its share."""
    _, first = np.unique(pairs.place, return_index=True)
    encoder = state.encoder.eval()
    seen = torch.zeros(2, pairs.places, encoder.embedding_dim, device=world.device)
    mine = [int(i) for i in first[world.rank :: world.size].tolist()]
    size = config.optim.batch_pairs
    specs = list(enumerate(mine[i : i + size] for i in range(0, len(mine), size)))
    for batch in load_batches(pairs, specs, workers=config.run.workers, seed=seed_of(config), clean=True):
        for side, images in enumerate((state.method.mined(batch.photo, progress), batch.tile)):
            with autocast(config.optim.precision, world.device):
                seen[side, batch.place.to(world.device)] = encoder(as_input(images.to(world.device)))
    photos, tiles = sum_over_processes(seen, world).cpu()
    return photos, tiles


def seed_of(config: Config, world: World | None = None) -> int:
    """Return a seed so far from other runs' and processes' that adding a step or an epoch never meets theirs."""
    return (config.run.seed * 1009 + (0 if world is None else world.rank + 1)) * 1_000_003


def _stop(batch: Batch, loss: float, step: int, out: Path, world: World) -> None:
    path = out / f"nan_batch_{world.rank}.pt"
    torch.save(vars(batch), path)
    raise TrainingError(f"The loss became {loss} at step {step}; the batch is in {path}. Try a lower optim.lr.")


def _progress(quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        disable=quiet,
    )
