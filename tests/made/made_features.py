"""Embeddings, dense descriptors and pairs as UnifyGeo gets them."""

import math

import torch
import torch.nn.functional as F  # noqa: N812

from training.batch import Batch, Features
from training.methods.base import ModelShape

SHAPE = ModelShape(embedding_dim=5, stage_channels=(), local_dim=4, places=6, image_size=64)
NAN = math.nan


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, dtype=torch.float64, generator=seeded(seed)), dim=1)


def features(n, seed, side=4):
    return Features(unit(n, 5, seed=seed), local=unit(n, 4, side, side, seed=seed + 100))


def batch_of(offset_m, tile_side_m=80.0):
    offset = torch.tensor(offset_m, dtype=torch.float64)
    n, side = len(offset), torch.tensor(tile_side_m, dtype=torch.float64)
    empty = torch.zeros(n, 3, 1, 1)
    return Batch(empty, empty, torch.arange(n), offset, side.expand(n), torch.ones(n))
