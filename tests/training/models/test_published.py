"""Weights that others published: what the plain timm model answers with them, whatever the names in the file."""

import re

import pytest
import timm
import torch

from training.checkpoint import start_from
from training.config import ModelConfig, parse_config
from training.errors import TrainingError
from training.evaluation.embed import load_embedder
from training.models.encoder import Encoder

NETWORK = {
    "model": {
        "backbone": "test_convnext",
        "weights": "none",
        "aggregation": "avg",
        "embedding_dim": None,
        "image_size": 64,
        "frozen_stages": 0,
        "resize": "squash",
    }
}


@pytest.fixture(scope="module")
def plain():
    """The authors' model: timm without a classifier, pooled by timm; all weights moved, so that none is a default."""
    torch.manual_seed(3)
    model = timm.create_model("test_convnext", num_classes=0).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def named(weights, prefix):
    return {prefix + name: value for name, value in weights.items()}


LAYOUTS = {
    "plain": lambda w: w,
    "as the authors save it": lambda w: named(w, "model.") | {"logit_scale": torch.tensor(2.66)},
    "of several GPUs": lambda w: named(w, "module.model.") | {"module.logit_scale": torch.tensor(2.66)},
    "two equal towers": lambda w: named(w, "model1.") | named(w, "model2."),
    "inside": lambda w: {"epoch": 3, "state_dict": named(w, "backbone.")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_weights_answer_as_the_plain_timm_model(plain, layout, tmp_path):
    torch.save(LAYOUTS[layout](plain.state_dict()), tmp_path / "weights.pth")
    embedder = load_embedder(tmp_path / "weights.pth", parse_config(NETWORK))
    assert (embedder.image_size, embedder.resize) == (64, "squash")
    assert re.fullmatch("weights-[0-9a-f]{8}", embedder.model_id)  # the file is what tells one from the next
    pictures = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    settings = timm.data.resolve_model_data_config(plain)
    mean, std = (torch.tensor(settings[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        expected = torch.nn.functional.normalize(plain((pictures - mean) / std), dim=1)
    found = torch.from_numpy(embedder(pictures))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_run_starts_from_published_weights(plain, tmp_path):
    torch.save(named(plain.state_dict(), "model."), tmp_path / "weights.pth")
    grown = ModelConfig(**NETWORK["model"] | {"aggregation": "gem", "embedding_dim": 32})
    encoder = Encoder(grown)
    start_from(encoder, tmp_path / "weights.pth")
    theirs = plain.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in encoder.backbone.state_dict().items())


def test_towers_that_differ_are_refused(plain, tmp_path):
    other = {name: value + 1 for name, value in plain.state_dict().items()}
    torch.save(named(plain.state_dict(), "model1.") | named(other, "model2."), tmp_path / "two.pth")
    with pytest.raises(TrainingError, match=r"2 towers \(model1\., model2\.\) that differ"):
        load_embedder(tmp_path / "two.pth", parse_config(NETWORK))


def test_weights_of_another_network_name_what_does_not_fit(plain, tmp_path):
    torch.save({"logit_scale": torch.tensor(2.0)}, tmp_path / "none.pth")
    with pytest.raises(TrainingError, match="holds no test_convnext"):
        load_embedder(tmp_path / "none.pth", parse_config(NETWORK))
    weights = plain.state_dict() | {"head.norm.weight": torch.ones(7)}
    torch.save(weights, tmp_path / "other.pth")
    with pytest.raises(TrainingError, match=r"head\.norm\.weight is \[7\], and \[64\] here"):
        load_embedder(tmp_path / "other.pth", parse_config(NETWORK))


def test_published_weights_need_a_config_of_their_own_head(plain, tmp_path):
    torch.save(plain.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(TrainingError, match=r"--config configs/methods/sample4geo\.yaml"):
        load_embedder(tmp_path / "weights.pth")
    headed = {"model": NETWORK["model"] | {"embedding_dim": 32}}
    with pytest.raises(TrainingError, match=r"model\.embedding_dim=null"):
        load_embedder(tmp_path / "weights.pth", parse_config(headed))
