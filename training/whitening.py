"""Discriminative whitening: an embedding from pairs alone, in one solution instead of thousands of steps.

A trained backbone says more than its projection passes on: which kinds of spot a picture has (``VLAD``), and channels
of its pooled map that vary between places and not between photo and tile. With features x of photos and tiles of the
same places, S_w the mean of (x_photo - x_tile)(x_photo - x_tile)ᵀ over pairs and S the covariance of tiles after
S_w^(-1/2),

    embedding = unit( U_Dᵀ S_w^(-1/2) (x - mean) ),  U_D the D first eigenvectors of S

(Mikolajczyk and Matas, 2007, as Radenović et al., 2018, use it for retrieval). Directions in which the years, the sun
or the camera move a place shrink, those in which places differ stay. Before it, pooled channels get a like spread and
the aggregated spots are whitened to fewer dimensions (ours: there are fewer pairs than would bear them all).

The backbone stays as it is. Features are kept in the folder of the run, batch by batch: started again, it goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.checkpoint import read_checkpoint, start_from, write_encoder
from training.config import Config, WhitenConfig, parse_config
from training.data.base import PairData
from training.data.datasets import open_dataset
from training.data.loader import load_batches
from training.errors import TrainingError
from training.models.encoder import Encoder, as_input
from training.models.heads import VLAD
from training.models.onnx_weights import made_with, start_from_onnx

Floats = NDArray[np.float64]

#: Batches whose spots the centres are found in, spots of each, and rounds of k-means: enough to settle 32 centres.
SPOT_BATCHES, SPOTS_PER_BATCH, ROUNDS = 10, 3000, 20
#: Added to each variance of the spots' principal directions, as a share of the middle one's: the last are noise.
FLOOR_SHARE = 0.1
#: Pairs of which less than this share of the ground is still the same are no pairs.
SAME_SHARE = 0.3


@dataclass(frozen=True)
class Pairs:
    """Features of M photos and of the tiles that show the same places, ``[M, P]`` each."""

    photo: Floats
    tile: Floats


def whiten(config: Config) -> tuple[Path, list[str]]:
    """Make a ``gem_vlad`` embedding on the backbone of ``model.start``; returns the checkpoint and a report.

    Raises:
        TrainingError: the config asks for another aggregation or has no section ``whiten``, there is nothing to start
            from, the data is missing, or there are fewer pairs than dimensions.
    """
    if config.whiten is None or config.model.aggregation != "gem_vlad" or config.model.start is None:
        raise TrainingError("whiten needs a section whiten, model.aggregation=gem_vlad and model.start=FILE.")
    if config.model.embedding_dim is None:
        raise TrainingError("whiten chooses model.embedding_dim directions: set it, for example to 512.")
    torch.manual_seed(config.run.seed)
    pairs = open_dataset(config.data, config.model, seed=config.run.seed).train()
    encoder = _on_old_backbone(config)
    folder = config.run.out
    folder.mkdir(parents=True, exist_ok=True)
    _find_spots(encoder, pairs, config, folder / "spots.pt")
    features = _features(encoder, pairs, config, folder)
    report = [f"{len(features.photo)} pairs of {pairs.places} places"]
    channels = features.photo.shape[1] - (0 if encoder.vlad is None else encoder.vlad.out_channels)
    weight, bias = solve(features, channels, config.model.embedding_dim, config.whiten)
    with torch.no_grad():
        encoder.project.weight.copy_(torch.from_numpy(weight))  # type: ignore[operator]  # a linear layer: see above
        encoder.project.bias.copy_(torch.from_numpy(bias))  # type: ignore[operator]
    checkpoint = folder / "checkpoint.pt"
    write_encoder(encoder, checkpoint, config)
    return checkpoint, report


def solve(pairs: Pairs, channels: int, dim: int, settings: WhitenConfig) -> tuple[Floats, Floats]:
    """Solve for the projection ``[D, P]`` and its bias ``[D]`` of the module's docstring.

    Args:
        pairs: features.
        channels: how many of the P features come first and are pooled channels; the others are aggregated spots.
        dim: D.
        settings: how many dimensions the spots keep, and how much S_w is shrunk towards a sphere.

    Raises:
        TrainingError: there are fewer pairs than dimensions.
    """
    kept = min(settings.spot_dims, pairs.tile.shape[1] - channels)
    if len(pairs.tile) <= max(dim, kept):
        raise TrainingError(f"{len(pairs.tile)} pairs do not tell {max(dim, kept)} directions apart: take more.")
    both = np.concatenate((pairs.tile, pairs.photo))
    mean = pairs.tile.mean(0)
    first = np.zeros((both.shape[1], channels + kept))
    spread = both[:, :channels].std(0)
    first[np.arange(channels), np.arange(channels)] = 1 / (spread + spread.mean())  # channels that hardly move stay so
    first[channels:, channels:] = principal(both[:, channels:], kept)
    gap = (pairs.photo - pairs.tile) @ first
    within = gap.T @ gap / len(gap)
    within += settings.shrink * np.trace(within) / len(within) * np.eye(len(within))
    sizes, axes = np.linalg.eigh(within)
    sphere = first @ (axes / np.sqrt(sizes)) @ axes.T
    whitened = (pairs.tile - mean) @ sphere
    _, directions = np.linalg.eigh(whitened.T @ whitened)
    weight = (sphere @ directions[:, ::-1][:, :dim]).T
    scale = np.sqrt((((pairs.tile - mean) @ weight.T) ** 2).sum(1).mean())  # so that vectors are about of length 1
    return weight / scale, -(weight @ mean) / scale


def principal(rows: Floats, dims: int) -> Floats:
    """Return ``[P, dims]``: principal directions of rows ``[N, P]``, each over the root of its variance and a floor."""
    centred = rows - rows.mean(0)
    variances, axes = np.linalg.eigh(centred.T @ centred / len(rows))
    variances, axes = variances[::-1][:dims], axes[:, ::-1][:, :dims]
    scaled: Floats = axes / np.sqrt(variances + FLOOR_SHARE * variances[dims // 2])
    return scaled


def centres_of(spots: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Cluster unit rows ``[N, D]`` by spherical k-means: unit centres ``[count, D]``. A centre that gets none stays."""
    centres = spots[rng.permutation(len(spots))[:count]]
    for _ in range(ROUNDS):
        nearest = (spots @ centres.T).argmax(1)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, spots)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centres)
    return centres


def fit_spots(vlad: VLAD, spots: Floats, rng: np.random.Generator) -> None:
    """Give a VLAD the reduction and the centres that spots ``[N, C]`` of its map call for: whitened, then k-means."""
    dim, mean = vlad.reduce.out_channels, spots.mean(0)
    variances, axes = np.linalg.eigh(np.cov(spots.T))
    reduce = (axes[:, ::-1][:, :dim] / np.sqrt(np.maximum(variances[::-1][:dim], 1e-12))).T
    reduced = (spots - mean) @ reduce.T
    reduced /= np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-12)
    with torch.no_grad():
        vlad.reduce.weight.copy_(torch.from_numpy(reduce)[:, :, None, None])
        vlad.reduce.bias.copy_(torch.from_numpy(-reduce @ mean))  # type: ignore[union-attr]  # it has one
        vlad.centres.copy_(torch.from_numpy(centres_of(reduced, len(vlad.centres), rng)))


def _on_old_backbone(config: Config) -> Encoder:
    """The encoder to be, with everything but its projection from ``model.start``."""
    start = config.model.start
    assert start is not None  # noqa: S101  # whiten() asked
    had = made_with(start) if start.suffix == ".onnx" else parse_config(read_checkpoint(start)["config"]).model
    embedding = {name: getattr(had, name) for name in ("aggregation", "embedding_dim", "vlad_dim", "vlad_centres")}
    before = Encoder(replace(config.model, **embedding, weights="none"))
    (start_from_onnx if start.suffix == ".onnx" else start_from)(before, start)
    encoder = Encoder(replace(config.model, weights="none"))
    theirs = {k: v for k, v in before.state_dict().items() if not k.startswith(("project.", "vlad."))}
    encoder.load_state_dict(theirs, strict=False)
    return encoder.eval().to(memory_format=torch.channels_last)


def _plan(pairs: PairData, config: Config) -> list[tuple[int, list[int]]]:
    """What each batch holds: all pairs in random order, again and again, until there are enough."""
    assert config.whiten is not None  # noqa: S101  # whiten() asked
    rng, size = np.random.default_rng(config.run.seed), config.optim.batch_pairs
    rounds = -(-config.whiten.pairs // len(pairs.place))
    order = np.concatenate([rng.permutation(len(pairs.place)) for _ in range(rounds)])[: config.whiten.pairs]
    return [(i, order[i * size : (i + 1) * size].tolist()) for i in range(-(-len(order) // size))]


@torch.no_grad()
def _find_spots(encoder: Encoder, pairs: PairData, config: Config, kept: Path) -> None:
    """Fit the VLAD on spots of the first batches, or read what an earlier start fitted."""
    assert encoder.vlad is not None  # noqa: S101  # of gem_vlad
    if kept.exists():
        encoder.vlad.load_state_dict(torch.load(kept, weights_only=True))
        return
    rng, found = np.random.default_rng(config.run.seed), []
    for batch in load_batches(pairs, _plan(pairs, config)[:SPOT_BATCHES], seed=config.run.seed):
        spots = encoder.spots(as_input(batch.tile)).flatten(2).transpose(1, 2).flatten(0, 1)
        found.append(spots[torch.from_numpy(rng.permutation(len(spots))[:SPOTS_PER_BATCH])].double().numpy())
    fit_spots(encoder.vlad, np.concatenate(found), rng)
    torch.save(encoder.vlad.state_dict(), kept)


@torch.no_grad()
def _features(encoder: Encoder, pairs: PairData, config: Config, folder: Path) -> Pairs:
    """Of all pairs that still show the same ground; computed, or read where an earlier start computed them."""

    def kept() -> Iterator[NDArray[np.float32]]:
        for number, rows in _plan(pairs, config):
            file = folder / f"features{number}.npy"
            if not file.exists():
                (batch,) = load_batches(pairs, [(number, rows)], seed=config.run.seed)
                both = np.stack([encoder.pooled(as_input(x)).numpy() for x in (batch.photo, batch.tile)])
                partial = file.with_suffix(".partial")
                with partial.open("wb") as out:
                    np.save(out, both[:, (batch.overlap >= SAME_SHARE).numpy()])
                partial.replace(file)
            yield np.load(file)

    photo, tile = np.concatenate(list(kept()), axis=1).astype(np.float64)
    return Pairs(photo, tile)
