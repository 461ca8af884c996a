"""Run under torchrun by test_step.py: fill the gradients of half of each batch, and write down what they sum to."""

import sys
from pathlib import Path

import torch

from training.batch import Batch
from training.config import parse_config
from training.distributed import join_world, leave_world, same_everywhere, sum_gradients
from training.step import backward
from training.train import make_state


def share_of(work, world):
    """Gradient and losses, as this process has them in the end."""
    config = parse_config(work["config"])
    torch.manual_seed(world.rank)  # different weights, until the first process's are sent round
    state = make_state(config, 12, world)
    if world.leads:
        state.encoder.load_state_dict(work["encoder"])
    same_everywhere(state.encoder, world)
    state.encoder.train()
    half = len(work["batch"]["place"]) // 2
    share = Batch(**{k: v[world.rank * half :][:half] for k, v in work["batch"].items() if v is not None})
    losses, _ = backward(state, share, config.optim, world, torch.Generator().manual_seed(0), progress=0.3)
    sum_gradients(state.encoder.parameters(), world)
    weights = [*state.encoder.parameters(), *state.method.parameters()]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten().double() for p in weights])
    return {"gradient": flat, "losses": {k: float(v.detach()) for k, v in losses.items()}}


torch.set_num_threads(1)
world = join_world("cpu")
for path in sorted(Path(sys.argv[1]).glob("*.work.pt")):
    name = path.name.removesuffix(".work.pt")
    torch.save(share_of(torch.load(path, weights_only=True), world), path.with_name(f"{name}.rank{world.rank}.pt"))
leave_world(world)
