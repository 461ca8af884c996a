import numpy as np
import pytest
import timm
import torch

from training.config import ModelConfig
from training.errors import TrainingError
from training.models.encoder import Encoder, GeM


def config(**settings):
    tiny = {"backbone": "test_efficientnet", "weights": "none", "embedding_dim": 32, "image_size": 64}
    return ModelConfig(**(tiny | {"frozen_stages": 2} | settings))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder(config())


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8))


@torch.no_grad()
def test_embeddings_are_unit_vectors(encoder, images):
    embeddings = encoder.eval()(images)
    assert embeddings.shape == (4, 32)
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4))
    assert (embeddings[0] - embeddings[1]).abs().max() > 1e-6


@torch.no_grad()
def test_bytes_and_floats_embed_alike(encoder, images):
    torch.testing.assert_close(encoder(images), encoder(images.float()))


@torch.no_grad()
def test_normalisation_is_inside(encoder, images):
    """By hand: ImageNet's mean and deviation on 0..1, then backbone, pooling, projection, unit length."""
    encoder.eval()
    settings = timm.data.resolve_model_data_config(encoder.backbone)
    x = images.permute(0, 3, 1, 2).double() / 255
    for channel in range(3):
        x[:, channel] = (x[:, channel] - settings["mean"][channel]) / settings["std"][channel]
    pooled = encoder.pool(encoder.backbone(x.float()))
    expected = pooled @ encoder.project.weight.T + encoder.project.bias
    expected = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(encoder(images), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_an_embedding_does_not_depend_on_its_batch(encoder, images):
    for mode in (True, False):
        encoder.train(mode)
        torch.testing.assert_close(encoder(images)[:1], encoder(images[:1]), atol=1e-5, rtol=0)


@torch.no_grad()
def test_without_projection_the_features_are_the_embedding(images):
    encoder = Encoder(config(embedding_dim=None))
    assert encoder.embedding_dim == 256
    assert encoder(images).shape == (4, 256)


@pytest.mark.parametrize("p", [1.0, 3.0, 7.5])
@torch.no_grad()
def test_gem_is_the_generalised_mean(p):
    maps = torch.rand(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    expected = (maps.double().numpy() ** p).mean((2, 3)) ** (1 / p)
    np.testing.assert_allclose(GeM(p)(maps), expected, rtol=1e-5)
    if p == 1.0:
        torch.testing.assert_close(GeM(p)(maps), maps.mean((2, 3)))


@torch.no_grad()
def test_gem_of_large_p_is_the_maximum():
    """Between max · n^(-1/p) and max, for n values: p = 60 is as far as float32 goes here."""
    maps = 0.5 + torch.rand(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    pooled, most = GeM(60.0)(maps), maps.amax((2, 3))
    assert (pooled <= most * 1.00001).all()
    assert (pooled >= most * 12 ** (-1 / 60)).all()


def test_frozen_stages_get_no_gradient(encoder, images):
    encoder.train()(images).square()[:, 0].sum().backward()
    backbone = encoder.backbone
    frozen = [*backbone.conv_stem.parameters(), *backbone.bn1.parameters(), *backbone.blocks[:2].parameters()]
    assert frozen
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    trained = [*backbone.blocks[2:].parameters(), *encoder.project.parameters(), encoder.pool.p]
    assert all(p.grad is not None and p.requires_grad for p in trained)


def test_nothing_is_frozen_when_not_asked():
    assert all(p.requires_grad for p in Encoder(config(frozen_stages=0)).parameters())


def test_batch_statistics_do_not_move(encoder, images):
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    optimizer = torch.optim.SGD((p for p in encoder.parameters() if p.requires_grad), lr=1.0)
    encoder.train()(images).square()[:, 0].sum().backward()
    optimizer.step()
    after = encoder.state_dict()
    statistics = [k for k in before if "running" in k or "num_batches" in k]
    assert len(statistics) > 10
    assert all(torch.equal(before[k], after[k]) for k in statistics)
    assert not torch.equal(before["project.weight"], after["project.weight"])


def test_packaged_weights_are_of_lite2_only():
    with pytest.raises(TrainingError, match="knows only tf_efficientnet_lite2, not test_efficientnet"):
        Encoder(config(weights="package"))


def test_packaged_weights_see_like_the_originals():
    """A filled-in Lite2 has statistics of real data: no batch norm is left at mean 0, variance 1."""
    backbone = Encoder(config(backbone="tf_efficientnet_lite2", weights="package")).backbone
    norms = [m for m in backbone.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert len(norms) > 40
    for norm in norms:
        assert norm.running_mean.abs().max() > 1e-3
        assert (norm.running_var - 1).abs().max() > 1e-3
        assert (norm.running_var >= 0).all()


def test_an_unknown_backbone_names_the_fix():
    with pytest.raises(TrainingError, match=r"timm cannot make no_such_net.*model\.weights="):
        Encoder(config(backbone="no_such_net"))


def test_a_backbone_without_stages_cannot_be_frozen(monkeypatch):
    def without_stages(*args, **kwargs):
        model = torch.nn.Conv2d(3, 8, 4, 4)
        model.num_features = 8
        return model

    monkeypatch.setattr(timm, "create_model", without_stages)
    with pytest.raises(TrainingError, match="frozen_stages=0"):
        Encoder(config())
