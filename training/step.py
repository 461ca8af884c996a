"""One update of the weights, with the negatives of the whole batch in the memory of a part of it.

Gradient caching (Gao et al., 2021): encode the images in chunks without a graph, compute the loss on all features, keep
its gradient with respect to the features, then encode chunk by chunk again, now with a graph, and send each chunk's
gradient through it. The result is the gradient of the whole batch; only a chunk's activations are ever in memory.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor

from training.batch import Batch, Features, full_precision
from training.checkpoint import State
from training.config import OptimConfig
from training.distributed import World, gather_rows, sum_gradients
from training.models.encoder import as_input
from training.precision import autocast


def train_step(
    state: State, batch: Batch, optim: OptimConfig, world: World, generator: Generator, *, progress: float, lr: float
) -> dict[str, float]:
    """Descend once.

    Args:
        state: is changed: weights, optimiser, the method's memory, ``step``.
        batch: this process's share of the pairs.
        optim: precision, chunk size, clipping.
        world: the processes that work on the batch together.
        generator: the randomness of the method's views and of the network (drop path).
        progress: share of training that is done, 0 to 1.
        lr: learning rate of this step.

    Returns:
        The losses by name, and ``recall_at_1`` of photo → tile within the batch if the method needs embeddings. A loss
        that is not finite changes no weight.
    """
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.encoder.train()
    state.method.train()
    state.optimizer.zero_grad(set_to_none=True)
    losses, features = backward(state, batch, optim, world, generator, progress=progress)
    report = {name: float(value.detach()) for name, value in losses.items()}
    if state.method.needs_embedding:
        report["recall_at_1"] = _recall_at_1(features)
    if losses["loss"].isfinite():
        sum_gradients(state.encoder.parameters(), world)
        _move(state, optim)
    state.step += 1
    return report


def backward(
    state: State, batch: Batch, optim: OptimConfig, world: World, generator: Generator, *, progress: float
) -> tuple[dict[str, Tensor], dict[str, Features]]:
    """Fill the gradients of one batch; returns the losses and the features of all processes' images, by view."""
    views = state.method.views(batch, progress, generator)
    groups = _by_shape(views)
    parts = [torch.split(torch.cat([views[name] for name in group]), optim.chunk_images or 2**31) for group in groups]
    cached = any(len(chunks) > 1 for chunks in parts)
    seeds = [[int(torch.randint(2**31, (), generator=generator)) for _ in chunks] for chunks in parts]

    def encode(group: int, i: int) -> Features:
        with torch.random.fork_rng(devices=[world.device] if world.device.type == "cuda" else []):
            torch.manual_seed(seeds[group][i])  # the second pass must drop the same paths as the first
            with autocast(optim.precision, world.device):
                stages, embedding = state.method.needs_stages, state.method.needs_embedding
                return state.encoder.features(as_input(parts[group][i]), stages=stages, embedding=embedding)

    with torch.set_grad_enabled(not cached):
        encoded = [[encode(group, i) for i in range(len(chunks))] for group, chunks in enumerate(parts)]
    by_view = {}
    for names, features in zip(groups, encoded, strict=True):
        rows = [torch.cat(same) for same in zip(*(f.tensors() for f in features), strict=True)]
        each = zip(*(row.detach().chunk(len(names)) for row in rows), strict=True)
        for name, tensors in zip(names, each, strict=True):
            by_view[name] = features[0].with_tensors([_leaf(gather_rows(t, world)) for t in tensors])
    losses = state.method(by_view, _everywhere(batch, world))
    state.scaler.scale(losses["loss"]).backward()
    for group, names in enumerate(groups):
        gradients = _own_gradients([by_view[name] for name in names], len(batch), world)
        sizes = [len(chunk) for chunk in parts[group]]
        for n, own in enumerate(zip(*(torch.split(g, sizes) for g in gradients), strict=True)):
            outputs = (encode(group, n) if cached else encoded[group][n]).tensors()
            moving = [i for i, output in enumerate(outputs) if output.requires_grad]  # those of frozen stages stay
            torch.autograd.backward([outputs[i] for i in moving], [own[i] for i in moving])
    return losses, by_view


def _by_shape(views: dict[str, Tensor]) -> list[list[str]]:
    """Names of views that can be encoded together: panoramas are wider than tiles."""
    groups: dict[torch.Size, list[str]] = {}
    for name, view in views.items():
        groups.setdefault(view.shape, []).append(name)
    return list(groups.values())


def _leaf(tensor: Tensor) -> Tensor:
    return full_precision(tensor).requires_grad_()


def _own_gradients(views: list[Features], rows: int, world: World) -> list[Tensor]:
    """The loss's gradient by this process's images, views one after another: the order of encoding."""
    mine = slice(world.rank * rows, (world.rank + 1) * rows)
    of_view = [
        [(torch.zeros_like(t) if t.grad is None else t.grad)[mine] for t in features.tensors()] for features in views
    ]
    return [torch.cat(parts) for parts in zip(*of_view, strict=True)]


def _everywhere(batch: Batch, world: World) -> Batch:
    """The pairs of all processes, but for the pixels, which stay this process's."""
    names = ["place", "offset_m", "tile_side_m", "overlap", *([] if batch.ground_m is None else ["ground_m"])]
    return replace(batch, **{name: gather_rows(getattr(batch, name), world) for name in names})


def _move(state: State, optim: OptimConfig) -> None:
    weights = [p for p in (*state.encoder.parameters(), *state.method.parameters()) if p.grad is not None]
    state.scaler.unscale_(state.optimizer)
    if optim.clip_value is not None:
        torch.nn.utils.clip_grad_value_(weights, optim.clip_value)
    if optim.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(weights, optim.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()


@torch.no_grad()
def _recall_at_1(features: dict[str, Features]) -> float:
    scores = features["photo"].embedding @ features["tile"].embedding.T
    right = scores.argmax(1) == torch.arange(len(scores), device=scores.device)
    return float(right.float().mean())
