import numpy as np
import onnx
import pytest
import torch

from training.config import dump_config, parse_config
from training.errors import TrainingError
from training.evaluation.embed import Flipped, embed, load_batches, load_embedder
from training.models.encoder import Encoder

TINY = {
    "name": "tiny",
    "model": {
        "backbone": "test_efficientnet",
        "weights": "none",
        "embedding_dim": 32,
        "image_size": 64,
        "frozen_stages": 0,
        "resize": "squash",
    },
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """``(path, encoder)``; the file holds what load_encoder reads."""
    config = parse_config(TINY)
    torch.manual_seed(0)
    encoder = Encoder(config.model).eval()
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint.pt"
    content = {"config": dump_config(config), "encoder": encoder.state_dict(), "step": 1, "method": {}, "optimizer": {}}
    torch.save(content, path)
    return path, encoder


def pictures(n, size, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def as_uint8(images):
    return np.rint(images.numpy() * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def test_a_checkpoint_answers_as_its_encoder(checkpoint, memory_images):
    path, encoder = checkpoint
    images = memory_images(pictures(7, 64), range(7))
    embedder = load_embedder(path)
    assert (embedder.image_size, embedder.resize) == (64, "squash")
    assert embedder.model_id.startswith("tiny-checkpoint-")
    found = embed(embedder, images, batch=3, quiet=True)
    with torch.no_grad():
        expected = encoder(torch.from_numpy(as_uint8(images.images))).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sorted(images.loaded) == list(range(7))


def test_the_id_of_a_checkpoint_is_that_of_its_weights(checkpoint, tmp_path):
    path, _ = checkpoint
    content = torch.load(path, weights_only=True)
    torch.save(content | {"step": 2}, tmp_path / "later.pt")
    assert load_embedder(tmp_path / "later.pt").model_id == load_embedder(path).model_id
    weights = {name: value + 1 if name == "project.bias" else value for name, value in content["encoder"].items()}
    torch.save(content | {"encoder": weights}, tmp_path / "other.pt")
    assert load_embedder(tmp_path / "other.pt").model_id != load_embedder(path).model_id


def test_a_model_file_gets_bytes(tiny_model, tmp_path, memory_images):
    embedder = load_embedder(tiny_model(tmp_path / "model.onnx"))
    assert (embedder.model_id, embedder.image_size, embedder.resize) == ("tiny-0", 32, "center_crop")
    images = memory_images(pictures(5, 32), range(5))
    found = embed(embedder, images, batch=2, quiet=True)
    assert (found.shape, found.dtype) == ((5, 32), np.float32)
    expected = embedder.session.run(["embedding"], {"image": as_uint8(images.images)})[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_batches_keep_the_order_that_threads_read_in(memory_images):
    images = memory_images(torch.arange(100.0).view(100, 1, 1, 1), range(100))
    rows = [99, 3, *range(10, 80), 3]
    batches = list(load_batches(images, rows, 30))
    assert [len(batch) for batch in batches] == [30, 30, 13]
    assert torch.cat(batches).flatten().tolist() == rows


def test_an_unreadable_image_is_not_skipped(mean_colours, memory_images):
    images = memory_images(torch.rand(40, 3, 8, 8), range(40))

    def load(index):
        if 33 in index:
            raise TrainingError("0033.jpg is not a readable picture")
        return images.images[list(index)]

    images.load = load
    with pytest.raises(TrainingError, match=r"0033\.jpg"):
        embed(mean_colours, images, batch=10, quiet=True)


def test_flip_adds_the_mirror_image(tiny_model, tmp_path):
    embedder = load_embedder(tiny_model(tmp_path / "model.onnx"))
    images = pictures(4, 32)
    flipped = Flipped(embedder)
    both = embedder(images) + embedder(torch.from_numpy(images.numpy()[..., ::-1].copy()))
    np.testing.assert_allclose(flipped(images), both / np.linalg.norm(both, axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(flipped(images), flipped(images.flip(3)), atol=1e-6)
    assert (flipped.model_id, flipped.image_size, flipped.resize) == ("tiny-0", 32, "center_crop")


def test_files_that_say_what_they_are_take_no_config(checkpoint, tiny_model, tmp_path):
    for path in (checkpoint[0], tiny_model(tmp_path / "model.onnx")):
        with pytest.raises(TrainingError, match="says itself what network it is of: leave out --config"):
            load_embedder(path, parse_config(TINY))


def test_missing_and_broken_files_are_refused(tmp_path, tiny_model):
    with pytest.raises(TrainingError, match="no model file"):
        load_embedder(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(TrainingError, match="no readable ONNX file"):
        load_embedder(tmp_path / "text.onnx")
    (tmp_path / "text.pt").write_text("no model")
    with pytest.raises(TrainingError, match=r"no readable checkpoint"):
        load_embedder(tmp_path / "text.pt")
    model = onnx.load(str(tiny_model(tmp_path / "model.onnx")))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "bare.onnx"))
    with pytest.raises(TrainingError, match="lacks aerofix's metadata"):
        load_embedder(tmp_path / "bare.onnx")


def test_no_images_is_an_error(mean_colours, memory_images):
    with pytest.raises(TrainingError, match="no queries"):
        embed(mean_colours, memory_images(torch.zeros(0, 3, 8, 8), []), label="queries", quiet=True)
