"""Where in the right tile the photo's ground point is: the heat map that UnifyGeo's decoder was trained for, in metres.

The authors' protocol: the error is measured on the true tile, whatever retrieval would have answered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.checkpoint import load_encoder, read_checkpoint
from training.data.base import EARTH_RADIUS_M, Task
from training.errors import TrainingError
from training.evaluation.embed import TorchEmbedder
from training.methods.base import ModelShape
from training.methods.unifygeo import UnifyGeo, UnifyGeoConfig, locate

#: Errors up to these count as found: the authors' thresholds up to what a tile of a drone's data set resolves.
WITHIN_M = (1, 5, 10)


def metric_localization(checkpoint: Path, task: Task, *, batch: int = 64) -> Callable[[], dict[str, float]]:
    """Check that it can be measured how far off the decoder's answers are, and return what measures it.

    Args:
        checkpoint: of a UnifyGeo run; a model file has no decoder.
        task: photos against tiles, with positions of both and the tiles' sides.
        batch: photos looked at together.

    Returns:
        A function that gives ``queries`` (those with a right tile), ``error_median_m``, ``error_mean_m``,
        ``within_{1,5,10}m``, and ``centre_median_m``, the median error of always answering the tile's centre.

    Raises:
        TrainingError: the run was of another method, or the data set does not know what is needed.
    """
    if task.tile_side_m is None or task.queries.position is None or task.gallery.position is None:
        raise TrainingError(f"{task.name} knows no positions or no sides of its tiles: take vigor or simulated.")
    embedder, method = _locator(checkpoint)
    asked = [row for row, own in enumerate(task.positives) if len(own)]
    if not asked:
        raise TrainingError(f"No query of {task.name} has a right tile to be located in.")
    tiles = np.array([task.positives[row][0] for row in asked])
    truth = _right_and_down(task.queries.position[asked], task.gallery.position[tiles])
    side_m = torch.from_numpy(task.tile_side_m[tiles])

    def measure() -> dict[str, float]:
        found = []
        for start in range(0, len(asked), batch):
            some = slice(start, start + batch)
            heatmap = _heatmap(embedder, method, task, asked[some], tiles[some].tolist())
            found.append(locate(heatmap.cpu(), side_m[some]))
        return _errors(torch.cat(found).numpy(), truth)

    return measure


def _errors(found: NDArray[np.float64], truth: NDArray[np.float64]) -> dict[str, float]:
    error, centre = np.linalg.norm(found - truth, axis=1), np.linalg.norm(truth, axis=1)
    return {
        "queries": float(len(truth)),
        "error_median_m": float(np.median(error)),
        "error_mean_m": float(error.mean()),
        **{f"within_{limit}m": float((error <= limit).mean()) for limit in WITHIN_M},
        "centre_median_m": float(np.median(centre)),
    }


@torch.inference_mode()
def _heatmap(
    embedder: TorchEmbedder, method: UnifyGeo, task: Task, rows: Sequence[int], tiles: Sequence[int]
) -> Tensor:
    return method.heatmap(embedder.features(task.queries.load(rows)), embedder.features(task.gallery.load(tiles)))


def _locator(checkpoint: Path) -> tuple[TorchEmbedder, UnifyGeo]:
    """Encoder and decoder of a run."""
    if checkpoint.suffix == ".onnx":
        raise TrainingError("A model file has no decoder to locate with: give the checkpoint.pt of a unifygeo run.")
    encoder, config = load_encoder(checkpoint)
    if not isinstance(config.method, UnifyGeoConfig):
        raise TrainingError(f"{checkpoint} is of {config.method_name}, which locates nothing: train with unifygeo.")
    shape = ModelShape(
        encoder.embedding_dim, encoder.stage_channels, encoder.local_dim, places=1, image_size=config.model.image_size
    )
    method = UnifyGeo(config.method, shape)
    riders = sum(settings is not None for settings in (config.dphr, config.dense))
    prefix = "host." * riders
    weights = read_checkpoint(checkpoint)["method"]
    method.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = config.model
    embedder = TorchEmbedder(encoder.to(device), config.name, model.image_size, model.resize, config.optim.precision)
    return embedder, method.eval().to(device)


def _right_and_down(asked: NDArray[np.float64], held: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[N, 2]`` metres east and south from places ``held`` to places ``asked`` (lat, lon), on the local plane."""
    gap = np.radians(asked - held) * EARTH_RADIUS_M
    return np.stack((gap[:, 1] * np.cos(np.radians(held[:, 0])), -gap[:, 0]), axis=1)
