import onnx
import pytest
import torch

from training.config import Config, ModelConfig
from training.errors import TrainingError
from training.export.calibrate import untrained_calibration
from training.export.onnx_file import write_onnx
from training.models.encoder import Encoder
from training.models.onnx_weights import made_with, start_from_onnx

SIZE = 64
TINY = {"weights": "none", "embedding_dim": 32, "image_size": SIZE, "frozen_stages": 0}
KINDS = {
    "descriptors of their own": {"backbone": "test_efficientnet", "local_dim": 64, "local_from": "xfeat"},
    "descriptors of the backbone": {"backbone": "test_efficientnet", "local_dim": 8, "local_stride": 16},
    "no descriptors": {"backbone": "test_efficientnet"},
    "spots": {"backbone": "test_efficientnet", "aggregation": "gem_vlad", "vlad_dim": 6, "vlad_centres": 5},
}


def encoder_of(seed, **settings):
    """An encoder as training leaves it: no two weights alike (a file would hold them once), no fresh statistics."""
    torch.manual_seed(seed)
    encoder = Encoder(ModelConfig(**TINY | settings))
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(0.05 * torch.rand_like(weight))
    for name, buffer in encoder.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return encoder.eval()


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (3, SIZE, SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_file_trains_on_where_it_stopped(tmp_path, images, kind):
    settings, path = KINDS[kind], tmp_path / "m.onnx"
    first, second = encoder_of(1, **settings), encoder_of(2, **settings)
    write_onnx(first, Config(model=first.config), path, untrained_calibration())
    assert (second(images) * first(images)).sum(1).min() < 0.99
    start_from_onnx(second, path)
    theirs, ours = first.features(images), second.train().features(images)
    torch.testing.assert_close(ours.embedding, theirs.embedding, atol=1e-4, rtol=0)
    if theirs.local is not None:
        torch.testing.assert_close(ours.local, theirs.local, atol=1e-4, rtol=0)
    (ours.embedding.sum() + (0 if ours.local is None else ours.local.sum())).backward()
    assert all(weight.grad is not None for weight in second.parameters())


def test_other_files_name_what_does_not_fit(tmp_path):
    path = tmp_path / "m.onnx"
    first = encoder_of(1, **KINDS["no descriptors"])
    write_onnx(first, Config(model=first.config), path, untrained_calibration())
    with pytest.raises(TrainingError, match=r"set model\.image_size=64"):
        start_from_onnx(encoder_of(1, backbone="test_efficientnet", image_size=96), path)
    with pytest.raises(TrainingError, match=r"dense.* does not fit"):
        start_from_onnx(encoder_of(1, **KINDS["descriptors of their own"]), path)
    with pytest.raises(TrainingError, match=r"project\.weight does not fit"):
        start_from_onnx(encoder_of(1, backbone="test_efficientnet", embedding_dim=16), path)
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(TrainingError, match=r"text\.onnx is no readable ONNX model"):
        start_from_onnx(first, tmp_path / "text.onnx")


def test_a_file_that_answers_otherwise_is_no_start(tmp_path):
    path, first = tmp_path / "m.onnx", encoder_of(1, **KINDS["no descriptors"])
    write_onnx(first, Config(model=first.config), path, untrained_calibration())
    model = onnx.load(str(path))
    node = next(node for node in model.graph.node if node.op_type == "Pow")
    node.op_type = "Add"
    onnx.save(model, str(path))
    with pytest.raises(TrainingError, match="export it again"):
        start_from_onnx(first, path)


def test_a_file_tells_how_its_network_was_made(tmp_path):
    path, first = tmp_path / "m.onnx", encoder_of(1, **KINDS["spots"])
    write_onnx(first, Config(model=first.config), path, untrained_calibration())
    assert made_with(path) == first.config
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "none", [], [])), str(path))
    with pytest.raises(TrainingError, match="does not tell how it was made"):
        made_with(path)
