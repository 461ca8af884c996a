"""Does data loading keep up? Pairs a second of the loader, against pairs a second of a training step on them.

    python benchmarks/loader.py [--device cuda] [--backbone convnext_base] [--size 384] [--workers 0 2 8]

Files: a generated University-1652 (512 px JPEGs in a temporary folder). Simulated: the textures are noise. The step is
forward and backward of photos and tiles through the backbone, InfoNCE, and AdamW; it is measured alone, on a batch that
is there already. A ratio over 1 means that loading is faster than training.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import _needs  # noqa: F401 - before the others
import numpy as np
import timm
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from rich.console import Console
from rich.table import Table

from training.batch import Batch
from training.data.base import PairData
from training.data.datasets import open_dataset
from training.data.loader import load_batches
from training.data.sampling import epoch_batches
from training.data.simulator.simulated import SimulatedConfig
from training.data.university1652 import University1652Config
from training.methods.losses import info_nce

BUILDINGS, PHOTOS, TEXTURES, IMAGE_PX = 64, 8, 64, 512
SCALE = 1 / 0.07
VIEWS = ("drone", "satellite")


def write_university(root: Path) -> None:
    """Write a University-1652 of noise over soft patches, which JPEG compresses about as it does photos."""
    rng = np.random.default_rng(0)
    for part in ("train/drone", "train/satellite", *(f"test/{a}_{b}" for a in ("query", "gallery") for b in VIEWS)):
        for building in range(BUILDINGS if part.startswith("train") else 1):
            folder = root / part / f"{building:04d}"
            folder.mkdir(parents=True)
            for i in range(PHOTOS if part == "train/drone" else 1):
                picture(rng).save(folder / f"image-{i + 1:02d}.jpeg", quality=90)


def picture(rng: np.random.Generator) -> Image.Image:
    """Return an image of the data set's size."""
    soft = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((IMAGE_PX, IMAGE_PX))
    noisy = np.asarray(soft, np.int16) + rng.integers(-12, 13, (IMAGE_PX, IMAGE_PX, 1), dtype=np.int16)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def loading_rate(data: PairData, batch_pairs: int, batches: int, workers: int) -> float:
    """Return pairs a second, from the second batch on: starting the workers is no part of an epoch's length."""
    specs = plan(data, batch_pairs, batches)
    loaded = load_batches(data, specs, seed=0, workers=workers)
    next(loaded)
    began = time.perf_counter()
    pairs = sum(len(batch) for batch in loaded)
    return pairs / (time.perf_counter() - began)


def plan(data: PairData, batch_pairs: int, batches: int) -> list[tuple[int, list[int]]]:
    """Plan enough batches, over several epochs where one is too short."""
    made: list[list[int]] = []
    while len(made) < batches:
        made += epoch_batches(data.place, batch_pairs, torch.Generator().manual_seed(len(made)))
    return list(enumerate(made[:batches]))


def step_rate(batch: Batch, backbone: str, device: torch.device, steps: int) -> float:
    """Return pairs a second of training steps, the first of which does not count; bf16 on a GPU."""
    model = timm.create_model(backbone, pretrained=False, num_classes=0).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.cat((batch.photo, batch.tile)).to(device)
    scale = torch.tensor(SCALE, device=device)

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            query, reference = F.normalize(model(images).float(), dim=-1).chunk(2)
        optimizer.zero_grad()
        info_nce(query, reference, scale).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    step()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    return len(batch) * steps / (time.perf_counter() - began)


def table_of(data: dict[str, PairData], arguments: argparse.Namespace) -> Table:
    """Measure everything, in one run."""
    device = torch.device(arguments.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    title = f"{arguments.backbone}, {arguments.size} px, batches of {arguments.batch} pairs, step on {where}"
    table = Table("data", "workers", "loader, pairs/s", "step, pairs/s", "loader / step", title=title)
    for name, pairs in data.items():
        batch = next(load_batches(pairs, plan(pairs, arguments.batch, 1), seed=0))
        step = step_rate(batch, arguments.backbone, device, arguments.steps)
        for workers in arguments.workers:
            rate = loading_rate(pairs, arguments.batch, arguments.batches, workers)
            table.add_row(name, str(workers), f"{rate:.1f}", f"{step:.1f}", f"{rate / step:.2f}")
    return table


def data_sets(folder: Path, size: int) -> Iterable[tuple[str, PairData]]:
    """Return the pairs of files and of the simulator."""
    input_size = SimpleNamespace(image_size=size, resize="squash")
    write_university(folder / "university")
    yield "files", open_dataset(University1652Config(folder / "university"), input_size, seed=0).train()
    (folder / "textures").mkdir()
    rng = np.random.default_rng(1)
    for i in range(TEXTURES):
        picture(rng).save(folder / f"textures/{i:03d}.png")
    config = SimulatedConfig(folder / "textures", textures=("*.png",), held_out_share=0.0)
    yield "simulated", open_dataset(config, input_size, seed=0).train()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="of the step: cpu or cuda")
    parser.add_argument("--backbone", default="tf_efficientnet_lite2", help="any timm name")
    parser.add_argument("--size", type=int, default=192, help="side of the model's input, px")
    parser.add_argument("--batch", type=int, default=16, help="pairs in a batch")
    parser.add_argument("--batches", type=int, default=9, help="batches to load; the first does not count")
    parser.add_argument("--steps", type=int, default=3, help="training steps to measure")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="loading processes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Console().print(table_of(dict(data_sets(Path(folder), arguments.size)), arguments))


if __name__ == "__main__":
    main()
