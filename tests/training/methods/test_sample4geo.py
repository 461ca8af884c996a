import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.functional import normalize

from training.batch import Batch, Features
from training.methods.base import ModelShape
from training.methods.losses import info_nce
from training.methods.sample4geo import Sample4Geo, Sample4GeoConfig

SHAPE = ModelShape(embedding_dim=4, stage_channels=(4,), local_dim=None, places=6, image_size=32)


def make_batch(n=6, overlap=None):
    nothing = torch.zeros(n, 3, 1, 1)
    unknown = torch.full((n,), torch.nan)
    overlap = torch.ones(n) if overlap is None else torch.tensor(overlap)
    return Batch(nothing, nothing, torch.arange(n), unknown[:, None].expand(n, 2), unknown, overlap)


def make_features(n=6, seed=0):
    numbers = torch.randn(2, n, 4, generator=torch.Generator().manual_seed(seed))
    photo, tile = normalize(numbers, dim=-1)
    return {"photo": Features(photo), "tile": Features(tile)}


def test_it_is_info_nce_with_a_learnt_temperature():
    method, features = Sample4Geo(Sample4GeoConfig(), SHAPE), make_features()
    parts = method(features, make_batch())
    scale = torch.tensor(1 / 0.07)
    expected = info_nce(features["photo"].embedding, features["tile"].embedding, scale, label_smoothing=0.1)
    assert parts["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert parts["scale"].item() == pytest.approx(1 / 0.07)
    parts["loss"].backward()
    assert method.log_scale.grad.abs() > 1e-3


def test_overlap_is_ignored_unless_asked_for():
    method, features = Sample4Geo(Sample4GeoConfig(), SHAPE), make_features()
    assert method(features, make_batch())["loss"] == method(features, make_batch(overlap=[0.1] * 6))["loss"]


def test_a_small_overlap_softens_the_target_of_its_pair():
    overlap = [1.0, 0.8, 0.5, 0.3, 0.2, 0.0]
    features = make_features()
    loss = Sample4Geo(Sample4GeoConfig(overlap_k=5.0), SHAPE)(features, make_batch(overlap=overlap))["loss"]
    smoothing = torch.tensor([1 - 1 / (1 + math.exp(-5 * o)) for o in overlap])
    assert smoothing[0] == pytest.approx(0.0067, abs=1e-4)
    assert smoothing[-1] == 0.5
    photo, tile = features["photo"].embedding, features["tile"].embedding
    expected = info_nce(photo, tile, torch.tensor(1 / 0.07), label_smoothing=smoothing)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("wrong", [{"label_smoothing": 1.0}, {"overlap_k": 0.0}, {"smoothing": 0.1}])
def test_wrong_knobs_are_refused(wrong):
    with pytest.raises(ValidationError):
        Sample4GeoConfig(**wrong)


@pytest.mark.parametrize("config", [Sample4GeoConfig(), Sample4GeoConfig(overlap_k=5.0)])
def test_free_embeddings_are_told_apart(config):
    torch.manual_seed(0)
    method, free = Sample4Geo(config, SHAPE), nn.Parameter(torch.randn(2, 6, 4))
    optimizer = torch.optim.Adam([free, *method.parameters()], lr=0.05)

    def embed():
        return normalize(free, dim=-1)

    right = torch.arange(6)
    assert not torch.equal((embed()[0] @ embed()[1].T).argmax(1), right)
    for _ in range(100):
        photo, tile = embed()
        optimizer.zero_grad()
        method({"photo": Features(photo), "tile": Features(tile)}, make_batch())["loss"].backward()
        optimizer.step()
    scores = embed()[0] @ embed()[1].T
    assert torch.equal(scores.argmax(1), right)
    assert torch.equal(scores.argmax(0), right)
