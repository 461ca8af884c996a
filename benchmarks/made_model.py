"""A model file that keeps the contract and costs next to nothing: mean colours times a fixed random matrix.

For benchmarks of what goes on round a model; what it finds means nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from service.encoder.contract import weights_sha256

SIDE, DIM = 32, 64

CALIBRATION = {
    "version": 1,
    "place": {"bias": -8.0, "score": 8.0, "margin": 10.0},
    "in_gallery": {"bias": -7.0, "score": 9.0, "margin": 2.0},
    "rival_floor": 0.2,
    "sigma_tiles": 0.2,
    "located_min_confidence": 0.75,
    "not_found_below": 0.5,
    "refine_temperature": 0.05,
}


def write_model(path: Path) -> Path:
    """Write the model, of images of ``SIDE`` pixels, embeddings of ``DIM`` numbers and descriptors ``[3, 8, 8]``."""
    matrix = np.random.default_rng(0).normal(size=(192, DIM)).astype(np.float32)
    fixed = [numpy_helper.from_array(matrix, "matrix"), numpy_helper.from_array(np.array(127.5, np.float32), "grey")]
    nodes = [
        helper.make_node("Cast", ["image"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["wide", "grey"], ["centred"]),
        helper.make_node("Transpose", ["centred"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["mixed"]),
        helper.make_node("LpNormalization", ["mixed"], ["embedding"], axis=1, p=2),
        helper.make_node("LpNormalization", ["pooled"], ["local"], axis=1, p=2),
    ]
    tell = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "made",
        [tell("image", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [tell("embedding", TensorProto.FLOAT, ["N", DIM]), tell("local", TensorProto.FLOAT, ["N", 3, 8, 8])],
        fixed,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    told = {
        "contract": "1",
        "model_id": "made",
        "method": "none",
        "backbone": "mean-colours",
        "image_size": str(SIDE),
        "resize": "center_crop",
        "embedding_dim": str(DIM),
        "local_shape": "[3, 8, 8]",
        "weights_sha256": weights_sha256(model),
        "training_config": "{}",
        "calibration": json.dumps(CALIBRATION),
        "license": "Apache-2.0",
        "gsd_range_m": "[0.1, 5.0]",
    }
    helper.set_model_props(model, {f"aerofix.{key}": value for key, value in told.items()})
    save(model, str(path))
    return path
