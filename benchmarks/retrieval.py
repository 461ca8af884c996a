"""Finding the place before re-ranking: how often is the right tile among the k best by embedding, on real photos?

    python benchmarks/retrieval.py --data FOLDER [--models BEFORE.onnx AFTER.onnx …]

FOLDER as for ``benchmarks/real.py``. Every photo is asked as it was flown and turned by 90°, 180° and 270°, against
half-overlapping tiles of 86 m; a tile is right when the photo's centre lies within half a tile side of its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from survey import survey_task
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from service.encoder.session import Encoder

SHIPPED = Path(__file__).parents[1] / "models" / "aerofix-lite2.onnx"
RANKS = (1, 5, 10, 32, 128)
BATCH = 4


def embed(encoder: Encoder, images: Tensor) -> NDArray[np.float32]:
    """Unit vectors ``[n, D]`` of pictures ``[n, 3, S, S]``, 0 to 1."""
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    batches = (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))
    return np.concatenate([encoder.encode(np.ascontiguousarray(batch)).embedding for batch in batches])


def best_ranks(model: Path, data: Path) -> list[int]:
    """For each photo in each turn: how many wrong tiles come before the first right one."""
    encoder = Encoder(model, "cpu")
    task = survey_task(data, encoder.contract.image_size)
    photos, tiles = (images.load(range(len(images))) for images in (task.queries, task.gallery))
    gallery = embed(encoder, tiles)
    ranks = []
    for turns in range(4):
        scores = embed(encoder, photos.rot90(turns, (2, 3))) @ gallery.T
        ranks += [int((row > row[right].max()).sum()) for row, right in zip(scores, task.positives, strict=True)]
    return ranks


def main() -> None:
    """Print one row for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, nargs="+", default=[SHIPPED])
    options = parser.parse_args()
    table = Table(title=f"right tile among the k best, {options.data.name}")
    for column in ("model", "questions", *(f"R@{k}" for k in RANKS)):
        table.add_column(column)
    for model in options.models:
        ranks = np.array(best_ranks(model, options.data))
        table.add_row(model.stem, str(len(ranks)), *(f"{(ranks < k).mean():.3f}" for k in RANKS))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
