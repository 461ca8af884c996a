import httpx
import numpy as np
import pytest
import timm
import torch

from training.config import ModelConfig
from training.errors import TrainingError
from training.models.encoder import Encoder
from training.models.heads import GeM


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


# --- features ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_convnext"])
@pytest.mark.parametrize("local_dim", [None, 16])
@torch.no_grad()
def test_features_hold_the_same_embedding(images, backbone, local_dim):
    encoder = Encoder(config(backbone=backbone, local_dim=local_dim)).eval()
    for stages in (False, True):
        torch.testing.assert_close(encoder.features(images, stages=stages).embedding, encoder(images))


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_convnext"])
@torch.no_grad()
def test_stage_features_are_the_means_of_the_stages_of_stride_4_to_32(images, backbone):
    """Watched from outside: hooks on the modules that timm names as stages."""
    encoder, seen = Encoder(config(backbone=backbone)).eval(), []
    for info in encoder.backbone.feature_info[-4:]:
        module = encoder.backbone.get_submodule(info["module"])
        module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    stages = encoder.features(images, stages=True).stages
    assert [64 // maps.shape[-1] for maps in seen] == [4, 8, 16, 32]
    assert tuple(stage.shape[1] for stage in stages) == encoder.stage_channels == (24, 32, 48, 64)
    for stage, maps in zip(stages, seen, strict=True):
        np.testing.assert_allclose(stage, maps.numpy().mean((2, 3)), atol=1e-5)


@torch.no_grad()
def test_features_hold_only_what_is_asked_for(encoder, images):
    features = encoder.features(images)
    assert features.stages == ()
    assert features.local is None
    assert encoder.local_dim is None
    assert encoder.dense is None


@pytest.mark.parametrize("stride", [8, 16, 32])
@torch.no_grad()
def test_dense_descriptors_are_unit_vectors_on_the_grid_of_their_stride(images, stride):
    encoder = Encoder(config(local_dim=16, local_stride=stride)).eval()
    local = encoder.features(images).local
    assert local.shape == (4, 16, 64 // stride, 64 // stride)
    assert local.dtype == torch.float32
    torch.testing.assert_close(local.norm(dim=1), torch.ones(4, 64 // stride, 64 // stride))


def test_frozen_stages_get_no_gradient_from_any_head(images):
    encoder = Encoder(config(local_dim=16, frozen_stages=3)).train()
    features = encoder.features(images, stages=True)
    assert [stage.requires_grad for stage in features.stages] == [False, False, True, True]  # strides 4, 8 are frozen
    heads = [features.embedding[:, 0], features.local[:, 0], *features.stages[2:]]
    sum(head.square().sum() for head in heads).backward()
    assert all(p.grad is None for p in encoder.backbone.blocks[:3].parameters())
    assert all(p.grad is not None for p in [*encoder.backbone.blocks[3:].parameters(), *encoder.dense.parameters()])


@torch.no_grad()
def test_the_attention_aggregator_starts_as_gem_and_layer_norm(images):
    encoder = Encoder(config(aggregation="attention_gem")).eval()
    pooled = encoder.pool.pool(encoder.last_map(images))
    centred = pooled - pooled.mean(1, keepdim=True)
    standard = centred / torch.sqrt(centred.square().mean(1, keepdim=True) + 1e-5)  # 1e-5: torch's default
    expected = standard @ encoder.project.weight.T + encoder.project.bias
    torch.testing.assert_close(encoder(images), expected / expected.norm(dim=1, keepdim=True))


@torch.no_grad()
def test_gem_vlad_projects_the_pooled_map_and_the_spots_of_stride_16(images):
    encoder = Encoder(config(aggregation="gem_vlad", vlad_dim=6, vlad_centres=5, local_dim=8)).eval()
    assert isinstance(encoder.pool, GeM)
    x = (images.permute(0, 3, 1, 2).float() - encoder.mean) / encoder.std
    seen = []
    hook = encoder.backbone.blocks[-2].register_forward_hook(lambda _, __, out: seen.append(out))
    last = encoder.backbone(x)
    hook.remove()
    (spots,) = (m for m in seen if m.shape[2:] == (4, 4))  # 64 px at stride 16
    both = torch.cat((encoder.pool(last), encoder.vlad(spots)), 1)
    expected = torch.nn.functional.normalize(encoder.project(both), dim=1)
    for answer in (encoder(images), encoder.features(images).embedding):
        torch.testing.assert_close(answer, expected, atol=1e-5, rtol=0)
    with pytest.raises(TrainingError, match="of two maps"):
        encoder.embed(last)


def test_a_backbone_without_such_stages_names_the_fix(images):
    encoder = Encoder(config(backbone="test_vit", frozen_stages=0, image_size=160))
    assert encoder.stage_channels == ()
    with pytest.raises(TrainingError, match=r"Features of stages: test_vit has no maps .* convolutional"):
        encoder.features(images, stages=True)
    with pytest.raises(TrainingError, match=r"model\.local_dim: test_vit has no maps"):
        Encoder(config(backbone="test_vit", frozen_stages=0, image_size=160, local_dim=16))


# --- as published -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["test_convnext", "test_efficientnet", "test_vit"])
@torch.no_grad()
def test_avg_embeds_as_the_plain_timm_model_does(backbone):
    """The published models: timm's own pooling and norm, no head, unit length. Values keep their sign."""
    torch.manual_seed(1)
    size = 160 if backbone == "test_vit" else 64
    encoder = Encoder(config(backbone=backbone, aggregation="avg", embedding_dim=None, frozen_stages=0)).eval()
    for weight in encoder.parameters():  # a fresh norm would leave the order of norm and mean unseen
        weight.add_(0.2 * torch.randn_like(weight))
    plain = timm.create_model(backbone, num_classes=0).eval()
    plain.load_state_dict(encoder.backbone.state_dict())
    settings = timm.data.resolve_model_data_config(plain)
    images = torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x = images.permute(0, 3, 1, 2).float() / 255
    x = (x - torch.tensor(settings["mean"]).view(3, 1, 1)) / torch.tensor(settings["std"]).view(3, 1, 1)
    expected = torch.nn.functional.normalize(plain(x), dim=1)
    assert (expected < 0).any()
    torch.testing.assert_close(encoder(images), expected, atol=1e-5, rtol=1e-4)
    if backbone != "test_vit":
        torch.testing.assert_close(encoder.features(images, stages=True).embedding, expected, atol=1e-5, rtol=1e-4)


def test_weights_of_a_file_need_no_hub(tmp_path):
    torch.manual_seed(2)
    source = timm.create_model("test_convnext")  # with its classifier, as published
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    encoder = Encoder(config(backbone="test_convnext", weights=tmp_path / "weights.pth", frozen_stages=0))
    theirs = source.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in encoder.backbone.state_dict().items())
    with pytest.raises(TrainingError, match=r"There is no file .*none\.pth"):
        Encoder(config(backbone="test_convnext", weights=tmp_path / "none.pth"))


@pytest.mark.parametrize("classes", [0, 7, 1000])
def test_a_file_of_weights_may_have_any_classifier(classes, tmp_path):
    torch.manual_seed(2)
    source = timm.create_model("test_efficientnet", num_classes=classes)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "weights.pth")
    encoder = Encoder(config(weights=tmp_path / "weights.pth"))
    theirs = source.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in encoder.backbone.state_dict().items())


def weights_of(backbone):
    return timm.create_model(backbone, num_classes=0).state_dict()


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: {"a": torch.zeros(3)}, "Missing key"),
        (lambda: weights_of("test_efficientnet"), "Missing key"),
        (lambda: {k: v for k, v in weights_of("test_convnext").items() if "stages.3" not in k}, "Missing key"),
        (lambda: {f"model.{k}": v for k, v in weights_of("test_convnext").items()}, "model.start"),
        (lambda: {"config": {}, "encoder": weights_of("test_convnext")}, "model.start"),
        (lambda: [1, 2], "model.start"),
    ],
    ids=["strange", "of another network", "incomplete", "with a prefix", "a checkpoint", "no tensors"],
)
def test_a_file_of_weights_is_taken_whole_or_refused(made, told, tmp_path):
    """Nothing is left to chance in silence."""
    torch.save(made(), tmp_path / "weights.pth")
    with pytest.raises(TrainingError, match=rf"weights\.pth does not hold timm's weights of test_convnext.*{told}"):
        Encoder(config(backbone="test_convnext", weights=tmp_path / "weights.pth", frozen_stages=0))


def test_a_run_that_starts_from_other_weights_asks_no_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(httpx, "head", lambda *a, **k: pytest.fail("asked"))
    Encoder(config(backbone="convnext_atto.d2_in1k", weights="timm", start=tmp_path / "weights.pth"))


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch):
    asked = []

    def unreachable(url, **options):
        asked.append((url, options["timeout"]))
        raise httpx.ConnectError("no route")

    monkeypatch.setattr(httpx, "head", unreachable)
    monkeypatch.setattr("training.models.backbone.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: pytest.fail("timm would try for a minute"))
    with pytest.raises(TrainingError, match=r"does not answer \(ConnectError\).*model\.weights=FILE"):
        Encoder(config(backbone="convnext_tiny.fb_in22k_ft_in1k", weights="timm", frozen_stages=0))
    assert len(asked) == 1
    assert asked[0][1] <= 10
