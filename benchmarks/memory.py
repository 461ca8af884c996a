"""What training keeps of an image until its gradient is there: bytes that autograd saves, counted, not timed.

    python benchmarks/memory.py [--config sample4geo] [--precision fp32 bf16]

The count is the same on any device (what kernels need on top is not in it, a tenth or so on a GPU). Weights, their
gradients and AdamW's two moments are 16 bytes a parameter besides.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import _needs  # noqa: F401 - before the others
import torch
from rich.console import Console
from rich.table import Table

from training.catalogue import find_config
from training.config import load_config
from training.models.encoder import Encoder
from training.precision import Precision, autocast

MIB = 2**20


def saved_bytes(encoder: Encoder, images: int, precision: Precision) -> int:
    """Count bytes that the graph of some images holds, each storage once, float32 weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    side = encoder.config.image_size
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        autocast(precision, torch.device("cpu")),
    ):
        encoder(torch.rand(images, side, side, 3) * 255)
    return sum(storage.nbytes() for storage in kept.values())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", nargs="+", default=["sample4geo"])
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    arguments = parser.parse_args()
    table = Table("config", "network", "precision", "checkpointing", "MiB an image", "GiB of 16 bytes a parameter")
    for name in arguments.config:
        model = load_config(find_config(name)).model
        for precision in arguments.precision:
            for checkpointing in (False, True):
                encoder = Encoder(replace(model, weights="none")).train()
                if checkpointing:
                    encoder.forget_activations()
                one, two = (saved_bytes(encoder, images, precision) for images in (1, 2))  # half-precision weights go
                parameters, size = sum(p.numel() for p in encoder.parameters()), two - one
                network = f"{model.backbone}, {model.image_size} px"
                cells = (
                    precision,
                    "yes" if checkpointing else "no",
                    f"{size / MIB:.0f}",
                    f"{parameters * 16 / 2**30:.1f}",
                )
                table.add_row(name, network, *cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
