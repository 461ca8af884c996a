"""Several processes as one: what ``torchrun`` started, and how features and gradients travel between them.

Every process encodes its share of the batch, all see all features, and each computes the whole loss: at 128 pairs the
matrix costs nothing, and progress signals, heads and uncertainties then see the same batch as a single process would.
The gradient of the loss with respect to a process's own features flows back into its own images; summing the weights'
gradients over processes gives exactly the gradient of one process with the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.errors import TrainingError


@dataclass(frozen=True)
class World:
    """This process among all: ``rank`` of ``size``, on ``device``."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """True for the one process that writes files and draws progress bars."""
        return self.rank == 0


def join_world(device: str) -> World:
    """Read ``torchrun``'s environment and join the others; alone without it.

    Args:
        device: ``auto`` (CUDA when it is there), ``cpu`` or ``cuda``.

    Raises:
        TrainingError: ``cuda`` was asked for and is missing, or there are more processes than GPUs.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("run.device=cuda, but torch sees no CUDA device. Check nvidia-smi, or set run.device=cpu.")
    cuda = device != "cpu" and torch.cuda.is_available()
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    place = int(os.environ.get("LOCAL_RANK", 0))
    if cuda and place >= torch.cuda.device_count():
        raise TrainingError(f"Process {place} has no GPU: start at most {torch.cuda.device_count()} per machine.")
    chosen = torch.device("cuda", place) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(chosen)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", rank=rank, world_size=size)
    return World(rank, size, chosen)


def leave_world(world: World) -> None:
    """Say goodbye to the other processes."""
    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def gather_rows(rows: Tensor, world: World) -> Tensor:
    """Gather rows ``[n, …]`` of every process (as many each), by rank: ``[size · n, …]``. No gradient."""
    if world.size == 1:
        return rows.detach()
    parts = [torch.empty_like(rows) for _ in range(world.size)]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


def sum_over_processes(tensor: Tensor, world: World) -> Tensor:
    """Sum over all processes, in place."""
    if world.size > 1:
        dist.all_reduce(tensor)
    return tensor


def sum_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Add up each parameter's gradient over all processes, in one message."""
    owners = [p for p in parameters if p.requires_grad]
    if world.size == 1 or not owners:
        return
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in owners])
    sum_over_processes(flat, world)
    for owner, total in zip(owners, torch.split(flat, [p.numel() for p in owners]), strict=True):
        owner.grad = total.view_as(owner).clone()


def same_everywhere(module: nn.Module, world: World) -> None:
    """Start all processes from the first one's weights."""
    if world.size > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)
