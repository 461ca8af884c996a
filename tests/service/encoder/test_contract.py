import json
import math
import re
from dataclasses import replace

import onnx
import pytest
from onnx import TensorProto

from service.encoder.calibration import Calibration
from service.encoder.contract import METADATA_KEYS, check_contract
from service.errors import ContractBroken


def test_a_good_model_is_described(tmp_path, tiny_model, calibration_json):
    contract = check_contract(tiny_model(tmp_path / "m.onnx"))
    assert (contract.model_id, contract.image_size, contract.embedding_dim) == ("tiny-0", 32, 32)
    assert contract.resize == "center_crop"
    assert contract.local_shape is None
    assert contract.gsd_range_m == (0.1, 1.0)
    assert contract.calibration.place.margin == calibration_json["place"]["margin"]
    assert contract.identity == f"1:{contract.weights_sha256}"


def test_local_descriptors_are_described(tmp_path, tiny_model):
    assert check_contract(tiny_model(tmp_path / "m.onnx", local=True)).local_shape == (3, 8, 8)


def test_identity_depends_on_the_weights_only(tmp_path, tiny_model):
    one = check_contract(tiny_model(tmp_path / "a.onnx"))
    same = check_contract(tiny_model(tmp_path / "b.onnx", metadata={"license": "MIT", "model_id": "other"}))
    other = check_contract(tiny_model(tmp_path / "c.onnx", seed=1))
    assert one.identity == same.identity != other.identity


BROKEN_GRAPHS = {
    "opset must be 18 or newer, it is 17": {"opset": 17},
    "the only input must be `image`, inputs are ['photo']": {"input_name": "photo"},
    "`image` must be UINT8, it is FLOAT": {"input_type": TensorProto.FLOAT},
    "`image` must have shape [N, 32, 32, 3], it has [1, 32, 32, 3]": {"input_shape": [1, 32, 32, 3]},
    "`image` must have shape [N, 32, 32, 3], it has [N, 64, 64, 3]": {"input_shape": ["N", 64, 64, 3]},
    "`image` must have shape [N, 32, 32, 3], it has [N, 3, 32, 32]": {"input_shape": ["N", 3, 32, 32]},
    "there must be an output `embedding`, outputs are ['vector']": {"output_name": "vector"},
    "`embedding` must have shape [N, 32], it has [1, 32]": {"output_shape": [1, 32]},
    "`embedding` must have shape [N, 32], it has [N, 16]": {"output_shape": ["N", 16]},
    "local_shape must be given exactly when": {"metadata": {"local_shape": "[3, 8, 8]"}},
    "aerofix.local_shape must be given": {"local": True, "metadata": {"local_shape": ""}},
    "`local` must have shape [N, 3, 4, 4], it has [N, 3, 8, 8]": {
        "local": True,
        "metadata": {"local_shape": "[3,4,4]"},
    },
    "the weights hash to": {"metadata": {"weights_sha256": "0" * 64}},
    "aerofix.contract must be 1, it is '2'": {"metadata": {"contract": "2"}},
}


@pytest.mark.parametrize(("clause", "overrides"), BROKEN_GRAPHS.items())
def test_a_broken_clause_is_named(tmp_path, tiny_model, clause, overrides):
    with pytest.raises(ContractBroken, match=re.escape(clause)) as caught:
        check_contract(tiny_model(tmp_path / "m.onnx", **overrides))
    assert "m.onnx" in caught.value.detail


@pytest.mark.parametrize("key", METADATA_KEYS)
def test_every_metadata_key_must_be_there(tmp_path, tiny_model, key):
    with pytest.raises(ContractBroken, match=f"metadata aerofix.{key} must be present"):
        check_contract(tiny_model(tmp_path / "m.onnx", metadata={key: None}))


MALFORMED = {
    "model_id": ["", "  "],
    "method": [""],
    "backbone": [""],
    "image_size": ["0", "-32", "32.0", "x", ""],
    "resize": ["crop", ""],
    "embedding_dim": ["0", "many"],
    "local_shape": ["3", "[3, 8]", "[3, 8, 0]", "[3, 8, true]", "3x8x8"],
    "weights_sha256": ["abc", "G" * 64],
    "training_config": ["", "[]", "{"],
    "calibration": ["", "[]", "{}", '{"version": 2}'],
    "license": [""],
    "gsd_range_m": ["0.1", "[0.1]", "[1.0, 0.1]", "[0, 1]", "[0.1, Infinity]", "[0.1, NaN]"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in MALFORMED.items() for value in values])
def test_malformed_metadata_is_named(tmp_path, tiny_model, key, value):
    with pytest.raises(ContractBroken, match=f"aerofix.{key} is malformed"):
        check_contract(tiny_model(tmp_path / "m.onnx", metadata={key: value}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"place": None}, "place must be an object"),
        ({"place": {"bias": 0, "score": 1, "margin": 1, "fitted_on": -1}}, "place.fitted_on must be a whole number"),
        ({"in_gallery": {"bias": 0, "score": 1}}, "in_gallery.margin must be a finite number"),
        ({"rival_floor": "0.2"}, "rival_floor must be a finite number"),
        ({"sigma_tiles": 0}, "must be positive"),
        ({"refine_temperature": -1}, "must be positive"),
        ({"located_min_confidence": 0.6}, "located_min_confidence must lie in"),
        ({"not_found_below": 1.5}, "not_found_below must lie in"),
        ({"local": 3}, "local must be an object"),
        ({"local": {"inlier_weight": 0.1}}, "local: min_inliers must be a finite number"),
        (
            {"local": {"min_inliers": 2, "inlier_weight": 0.1}},
            "local: min_inliers must be a whole number of at least 3",
        ),
        ({"local": {"min_inliers": 20.5, "inlier_weight": 0.1}}, "local: min_inliers must be a whole number"),
        ({"local": {"min_inliers": 20, "inlier_weight": -1}}, "local: inlier_weight .* negative"),
        (
            {"local": {"min_inliers": 20, "inlier_weight": 0, "sigma_floor_tiles": -1}},
            "local: .* sigma_floor_tiles must not be negative",
        ),
        (
            {"local": {"min_inliers": 20, "inlier_weight": 0, "sigma_scale": 0}},
            "local: sigma_scale must be positive",
        ),
        ({"local": {"min_inliers": 20, "inlier_weight": 0, "sigma_tiles": 0}}, "local: .* must be positive"),
    ],
)
def test_malformed_calibration_is_named(tmp_path, tiny_model, calibration_json, change, reason):
    text = json.dumps(calibration_json | change)
    with pytest.raises(ContractBroken, match=reason):
        check_contract(tiny_model(tmp_path / "m.onnx", metadata={"calibration": text}))


def test_the_section_local_overrides_the_calibration(calibration_json):
    section = {"min_inliers": 30, "inlier_weight": 0.2, "sigma_tiles": 0.01, "sigma_scale": 1.5}
    local = Calibration.parse(json.dumps(calibration_json | {"local": section})).local
    plain = Calibration.parse(json.dumps(calibration_json))
    assert (local.min_inliers, local.inlier_weight) == (30, 0.2)
    assert (local.sigma_scale, plain.local.sigma_scale) == (1.5, 1.0)
    assert local.judge == replace(plain, sigma_tiles=0.01)
    assert plain.local.judge is None


def test_evidence(calibration_json):
    section = {"min_inliers": 30, "inlier_weight": 0.2}
    local = Calibration.parse(json.dumps(calibration_json | {"local": section})).local
    assert local.evidence(0.5, 30) == 0.5
    assert local.evidence(0.5, None) == local.evidence(0.5, 0) == pytest.approx(0.5 - 0.2 * math.log(5))
    assert local.evidence(0.5, 90) == pytest.approx(0.5 + 0.2 * math.log((90 + 7.5) / (30 + 7.5)))


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x89PNG\r\n\x1a\n" + bytes(64)])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ContractBroken, match="it must be an ONNX file"):
        check_contract(path)


def test_a_missing_file_names_the_fix(tmp_path):
    with pytest.raises(ContractBroken, match="AEROFIX_MODEL"):
        check_contract(tmp_path / "absent.onnx")


def test_external_data_is_refused(tmp_path, tiny_model):
    model = onnx.load(str(tiny_model(tmp_path / "m.onnx")))
    path = tmp_path / "split.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(ContractBroken, match="weights must be inside the file"):
        check_contract(path)
