import copy
import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper

from training.checkpoint import load_encoder
from training.config import Config, parse_config
from training.errors import TrainingError
from training.export import onnx_file as export
from training.export.calibrate import untrained_calibration
from training.export.onnx_file import export_checkpoint, weights_sha256, write_onnx
from training.models.encoder import Encoder
from training.train import fit

KEYS = {
    "contract",
    "model_id",
    "method",
    "backbone",
    "image_size",
    "resize",
    "embedding_dim",
    "local_shape",
    "weights_sha256",
    "training_config",
    "calibration",
    "license",
    "gsd_range_m",
}


TREE = {
    "name": "tiny",
    "model": {
        "backbone": "test_efficientnet",
        "weights": "none",
        "embedding_dim": 32,
        "image_size": 64,
        "frozen_stages": 0,
        "resize": "squash",
    },
    "data": {
        "textures": ["*/*.png"],
        "held_out_share": 0.6,
        "tile_side_m": 30.0,
        "window_px": [100, 130],
    },
    "optim": {"batch_pairs": 2, "steps": 1},
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory, picture_folder):
    """``(checkpoint, ONNX file, report)`` of a run of one step, calibrated on 24 textures."""
    folder = tmp_path_factory.mktemp("export")
    tree = copy.deepcopy(TREE) | {"run": {"out": str(folder / "run"), "device": "cpu"}}
    tree["data"]["root"] = str(picture_folder)
    checkpoint = fit(parse_config(tree), quiet=True)
    report = export_checkpoint(checkpoint, folder / "models/tiny.onnx", calibrated=False)
    return checkpoint, folder / "models/tiny.onnx", report


def metadata(path):
    return {p.key: p.value for p in onnx.load(str(path)).metadata_props}


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_onnxruntime_answers_as_pytorch_does(exported, batch):
    checkpoint, path, _ = exported
    images = np.random.default_rng(batch).integers(0, 256, (batch, 64, 64, 3), dtype=np.uint8)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"image": images})
    with torch.no_grad():
        ours = load_encoder(checkpoint)[0](torch.from_numpy(images)).numpy()
    assert theirs.shape == (batch, 32)
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(theirs, axis=1), 1, atol=1e-5)


def test_the_graph_has_one_input_and_one_output(exported):
    graph = onnx.load(str(exported[1])).graph
    (image,), (embedding,) = graph.input, graph.output
    assert (image.name, embedding.name) == ("image", "embedding")
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value for d in image.type.tensor_type.shape.dim] == [0, 64, 64, 3]
    assert [d.dim_value for d in embedding.type.tensor_type.shape.dim] == [0, 32]
    assert image.type.tensor_type.shape.dim[0].dim_param


def test_metadata_is_complete_and_names_no_folder(exported, picture_folder):
    values = metadata(exported[1])
    assert {f"aerofix.{key}" for key in KEYS} == {key for key in values if key.startswith("aerofix.")}
    assert values["aerofix.image_size"] == "64"
    assert values["aerofix.resize"] == "squash"
    assert values["aerofix.embedding_dim"] == "32"
    assert values["aerofix.model_id"] == f"tiny-{values['aerofix.weights_sha256'][:8]}"
    assert json.loads(values["aerofix.gsd_range_m"]) == [0.1, 1.2]
    assert json.loads(values["aerofix.training_config"])["model"]["backbone"] == "test_efficientnet"
    assert json.loads(values["aerofix.calibration"]) == untrained_calibration()
    assert str(picture_folder) not in "".join(values.values())


def test_the_file_holds_nothing_of_the_machine_it_was_made_on(exported):
    """The exporter annotates nodes with stack traces; a model file is passed around."""
    content = exported[1].read_bytes()
    assert str(export.__file__).encode() not in content
    assert b"site-packages" not in content
    assert b".py" not in content


def test_the_report_tells_parity_and_size(exported):
    _, path, report = exported
    assert "cosine ≥ 0.9999" in report[0] or "cosine ≥ 1.0000" in report[0]
    assert str(path) in report[-1]
    assert list(path.parent.iterdir()) == [path]  # no partial file stays


def test_a_calibration_is_fitted_and_stored(exported, tmp_path, monkeypatch):
    monkeypatch.setattr("training.export.calibrate.FEWEST_TEXTURES", 10)
    monkeypatch.setattr("training.export.calibrate.FEWEST_RIGHT", 1)
    report = export_checkpoint(exported[0], tmp_path / "m.onnx")
    assert any("expected calibration error" in line for line in report)
    calibration = json.loads(metadata(tmp_path / "m.onnx")["aerofix.calibration"])
    assert set(calibration) == set(untrained_calibration())
    assert calibration["place"] != untrained_calibration()["place"]
    assert 0.68 < calibration["located_min_confidence"] <= 1
    assert calibration["sigma_tiles"] > 0


def test_a_model_with_dense_descriptors_is_calibrated_on_the_services_answers(tmp_path, picture_folder, monkeypatch):
    monkeypatch.setattr("training.export.calibrate.FEWEST_TEXTURES", 10)
    monkeypatch.setattr("training.export.calibrate.FEWEST_RIGHT", 1)
    monkeypatch.setattr("training.export.rehearsal.CIRCLES", 2)
    monkeypatch.setattr("training.export.rehearsal.PHOTOS_PER_CIRCLE", 8)
    tree = copy.deepcopy(TREE) | {"run": {"out": str(tmp_path / "run"), "device": "cpu"}}
    tree["data"]["root"] = str(picture_folder)
    tree["model"] |= {"local_dim": 64, "local_from": "xfeat"}
    report = export_checkpoint(fit(parse_config(tree), quiet=True), tmp_path / "m.onnx")
    assert any(line.startswith("with matches: held-out photos") for line in report)
    calibration = json.loads(metadata(tmp_path / "m.onnx")["aerofix.calibration"])
    assert set(calibration) == {*untrained_calibration(), "local"}
    assert {"min_inliers", "inlier_weight", "place", "in_gallery", "sigma_tiles"} <= set(calibration["local"])
    assert calibration["local"]["not_found_below"] == calibration["not_found_below"]


def test_textures_may_have_moved(exported, tmp_path):
    with pytest.raises(TrainingError, match=r"Set data\.root"):
        export_checkpoint(exported[0], tmp_path / "m.onnx", data_root=tmp_path)


# --- identity ----------------------------------------------------------------------------------------------------


def test_the_hash_is_of_the_weights_whatever_their_serialisation(exported):
    model = onnx.load(str(exported[1]))
    before = weights_sha256(model)
    assert before == metadata(exported[1])["aerofix.weights_sha256"]
    other = onnx.ModelProto()
    other.CopyFrom(model)
    del other.graph.initializer[:]
    for tensor in reversed(model.graph.initializer):  # another order, and typed lists instead of raw bytes
        values = numpy_helper.to_array(tensor)
        other.graph.initializer.append(
            onnx.helper.make_tensor(tensor.name, tensor.data_type, values.shape, values.flatten().tolist())
        )
    del other.metadata_props[:]
    assert other.SerializeToString() != model.SerializeToString()
    assert weights_sha256(other) == before


def test_the_hash_changes_with_a_single_weight(exported):
    model = onnx.load(str(exported[1]))
    before = weights_sha256(model)
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += 1e-3
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    assert weights_sha256(model) != before


def test_exporting_again_gives_the_same_identity(exported, tmp_path):
    export_checkpoint(exported[0], tmp_path / "again.onnx", calibrated=False)
    assert metadata(tmp_path / "again.onnx")["aerofix.weights_sha256"] == weights_sha256(onnx.load(str(exported[1])))


# --- parity ------------------------------------------------------------------------------------------------------


def test_a_file_that_disagrees_is_refused(tiny_config, tmp_path, monkeypatch):
    """A graph of other weights than the encoder's stands for an export gone wrong."""
    torch.manual_seed(0)
    config, real = tiny_config(), export._trace
    other = Encoder(config.model).eval()
    monkeypatch.setattr(export, "_trace", lambda encoder, size: real(other, size))
    with pytest.raises(TrainingError, match=r"disagrees with PyTorch: cosine .*0\.9999 is needed"):
        write_onnx(Encoder(config.model), config, tmp_path / "m.onnx", untrained_calibration())
    assert not list(tmp_path.glob("*.onnx"))
    assert not list(tmp_path.glob("*.partial"))


def test_a_network_that_gives_no_numbers_is_refused(tiny_config, tmp_path):
    config = tiny_config()
    encoder = Encoder(config.model)
    with torch.no_grad():
        encoder.project.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="cosine nan"):
        write_onnx(encoder, config, tmp_path / "m.onnx", untrained_calibration())
    assert not list(tmp_path.glob("*.onnx"))


# --- dense descriptors -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dense_export(tmp_path_factory):
    """``(encoder, ONNX file)`` with dense descriptors and an attention aggregator that is not at its start."""
    torch.manual_seed(0)
    tree = {"backbone": "test_efficientnet", "weights": "none", "embedding_dim": 32, "image_size": 64}
    config = parse_config({"model": tree | {"local_dim": 12, "aggregation": "attention_gem"}})
    encoder = Encoder(config.model).eval()
    with torch.no_grad():
        encoder.pool.attention.expand.weight.normal_()
    path = tmp_path_factory.mktemp("dense") / "m.onnx"
    write_onnx(encoder, config, path, untrained_calibration())
    return encoder, path


@pytest.mark.parametrize("batch", [1, 3])
def test_onnxruntime_gives_the_dense_descriptors_of_pytorch(dense_export, batch):
    encoder, path = dense_export
    images = np.random.default_rng(batch).integers(0, 256, (batch, 64, 64, 3), dtype=np.uint8)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    embedding, local = session.run(["embedding", "local"], {"image": images})
    with torch.no_grad():
        ours = encoder.features(torch.from_numpy(images))
    np.testing.assert_allclose(embedding, ours.embedding, atol=1e-5)
    np.testing.assert_allclose(local, ours.local, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(local, axis=1), 1, atol=1e-5)


def test_the_shape_of_dense_descriptors_is_in_graph_and_metadata(dense_export):
    path = dense_export[1]
    _, local = onnx.load(str(path)).graph.output
    assert local.name == "local"
    assert local.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [d.dim_value for d in local.type.tensor_type.shape.dim] == [0, 12, 8, 8]
    assert json.loads(metadata(path)["aerofix.local_shape"]) == [12, 8, 8]


def test_a_file_whose_dense_descriptors_disagree_is_refused(dense_export, tmp_path, monkeypatch):
    """The embeddings agree all the same: only the descriptors are off."""
    encoder, real = dense_export[0], export._trace
    other = copy.deepcopy(encoder)
    with torch.no_grad():
        other.dense.smooth.bias += 0.5
    monkeypatch.setattr(export, "_trace", lambda encoder, size: real(other, size))
    with pytest.raises(TrainingError, match="disagrees with PyTorch"):
        write_onnx(encoder, Config(model=encoder.config), tmp_path / "m.onnx", untrained_calibration())
    assert not list(tmp_path.iterdir())
