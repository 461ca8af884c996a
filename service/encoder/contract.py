"""The model contract, version 1: what an ONNX file must be before this service runs it.

One file, opset 18 or newer, no external data, dynamic batch axis:

* input ``image``: uint8 ``[N, S, S, 3]``, RGB 0–255; normalisation is inside the graph;
* output ``embedding``: float32 ``[N, D]``, unit L2 norm;
* optional output ``local``: float32 ``[N, C, h, w]``, unit L2 norm over C;
* metadata under ``aerofix.``: see ``METADATA_KEYS``.

This module reads the file; the numeric clauses (unit norm, batch independence) are checked at warm-up by ``session``.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, numpy_helper

from service.encoder.calibration import Calibration
from service.errors import ContractBroken

VERSION = "1"
MIN_OPSET = 18  # the first opset whose Resize antialiases, so exporters need no workaround
METADATA_KEYS = (
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
)
Resize = Literal["squash", "center_crop"]


@dataclass(frozen=True)
class ModelContract:
    """What a model file promises, read from its metadata and checked against its graph.

    Attributes:
        image_size: S, the side of the square input in pixels.
        resize: ``squash`` (the whole image to S×S) or ``center_crop`` (the centre square to S×S).
        embedding_dim: D.
        local_shape: ``(C, h, w)`` of the local descriptors, None when the model has none.
        weights_sha256: see ``weights_sha256``.
        gsd_range_m: ground metres per pixel (smallest, largest) of the training tiles.
    """

    model_id: str
    method: str
    backbone: str
    image_size: int
    resize: Resize
    embedding_dim: int
    local_shape: tuple[int, int, int] | None
    weights_sha256: str
    training_config: dict[str, Any]
    calibration: Calibration
    license: str
    gsd_range_m: tuple[float, float]

    @property
    def identity(self) -> str:
        """The stamp stored with every gallery: embeddings of different identities are never compared."""
        return f"{VERSION}:{self.weights_sha256}"


def check_contract(path: Path) -> ModelContract:
    """Read a model file and check every clause of the contract that needs no inference.

    Raises:
        ContractBroken: naming the file, the clause and what was found instead.
    """
    model = _load(path)
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    _require(opset >= MIN_OPSET, path, f"opset must be {MIN_OPSET} or newer, it is {opset}")
    external = [i.name for i in model.graph.initializer if i.data_location == TensorProto.EXTERNAL]
    _require(not external, path, f"weights must be inside the file, {len(external)} are external data")
    contract = _metadata(model, path)
    _check_tensors(model.graph, contract, path)
    actual = weights_sha256(model)
    _require(
        actual == contract.weights_sha256,
        path,
        f"aerofix.weights_sha256 is {contract.weights_sha256[:12]}…, the weights hash to {actual[:12]}…",
    )
    return contract


def weights_sha256(model: onnx.ModelProto) -> str:
    """Hash the weights, independent of how the file is serialised.

    SHA-256 over the graph's initializers sorted by name, each as its UTF-8 name, a zero byte and its raw
    little-endian values.
    """
    digest = hashlib.sha256()
    for initializer in sorted(model.graph.initializer, key=lambda i: i.name):
        values = numpy_helper.to_array(initializer)
        digest.update(initializer.name.encode() + b"\0")
        digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def _require(holds: bool, path: Path, clause: str) -> None:
    if not holds:
        raise ContractBroken(
            f"{path.name} breaks the model contract: {clause}. Export it again with `aerofix-train export`."
        )


def _load(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ContractBroken(f"there is no model file at {path}. Name one with --model FILE or AEROFIX_MODEL.")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError):
        model = onnx.ModelProto()
    _require(len(model.graph.node) > 0, path, "it must be an ONNX file, it is not one")
    return model


def _check_tensors(graph: onnx.GraphProto, contract: ModelContract, path: Path) -> None:
    weights = {i.name for i in graph.initializer}
    inputs = {i.name: i for i in graph.input if i.name not in weights}
    outputs = {o.name: o for o in graph.output}
    side, dim = contract.image_size, contract.embedding_dim

    _require(set(inputs) == {"image"}, path, f"the only input must be `image`, inputs are {sorted(inputs)}")
    _tensor(inputs["image"], TensorProto.UINT8, [None, side, side, 3], path)
    _require("embedding" in outputs, path, f"there must be an output `embedding`, outputs are {sorted(outputs)}")
    _tensor(outputs["embedding"], TensorProto.FLOAT, [None, dim], path)
    has_local = "local" in outputs
    _require(
        has_local == (contract.local_shape is not None),
        path,
        "aerofix.local_shape must be given exactly when there is an output `local`",
    )
    if contract.local_shape is not None:
        _tensor(outputs["local"], TensorProto.FLOAT, [None, *contract.local_shape], path)


def _tensor(info: onnx.ValueInfoProto, dtype: int, shape: list[int | None], path: Path) -> None:
    """Require an element type and a shape; None stands for the dynamic batch axis."""
    tensor = info.type.tensor_type
    actual = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    names = TensorProto.DataType.Name
    _require(tensor.elem_type == dtype, path, f"`{info.name}` must be {names(dtype)}, it is {names(tensor.elem_type)}")
    _require(actual == shape, path, f"`{info.name}` must have shape {_show(shape)}, it has {_show(actual)}")


def _show(shape: list[int | None]) -> str:
    return "[" + ", ".join("N" if d is None else str(d) for d in shape) + "]"


def _metadata(model: onnx.ModelProto, path: Path) -> ModelContract:
    raw = {p.key.removeprefix("aerofix."): p.value for p in model.metadata_props if p.key.startswith("aerofix.")}
    missing = [f"aerofix.{key}" for key in METADATA_KEYS if key not in raw]
    _require(not missing, path, f"metadata {', '.join(missing)} must be present")
    _require(raw["contract"] == VERSION, path, f"aerofix.contract must be {VERSION}, it is {raw['contract']!r}")
    parsed: dict[str, Any] = {}
    for key in METADATA_KEYS[1:]:
        try:
            parsed[key] = _PARSERS.get(key, _text)(raw[key])
        except ValueError as error:
            _require(False, path, f"aerofix.{key} is malformed: {error}")
    return ModelContract(**parsed)


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("it must not be empty")
    return value


def _positive_int(value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) == 0:
        raise ValueError(f"it must be a positive integer, it is {value!r}")
    return int(value)


def _resize(value: str) -> Resize:
    if value not in ("squash", "center_crop"):
        raise ValueError(f"it must be squash or center_crop, it is {value!r}")
    return cast(Resize, value)


def _sha256(value: str) -> str:
    if len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ValueError("it must be 64 lower-case hexadecimal digits")
    return value


def _json_object(value: str) -> dict[str, Any]:
    parsed = json.loads(value)
    if not isinstance(parsed, dict):
        raise ValueError("it must be a JSON object")
    return parsed


def _local_shape(value: str) -> tuple[int, int, int] | None:
    if value == "":
        return None
    shape = json.loads(value)
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape):
        raise ValueError("it must be a JSON list [C, h, w] of positive integers, or empty")
    return (shape[0], shape[1], shape[2])


def _gsd_range(value: str) -> tuple[float, float]:
    pair = json.loads(value)
    if not isinstance(pair, list) or len(pair) != 2 or not all(type(n) in (int, float) for n in pair):
        raise ValueError("it must be a JSON list [smallest, largest] in metres per pixel")
    low, high = float(pair[0]), float(pair[1])
    if not (0 < low <= high and math.isfinite(high)):
        raise ValueError("it must hold 0 < smallest <= largest")
    return low, high


_PARSERS = {
    "image_size": _positive_int,
    "resize": _resize,
    "embedding_dim": _positive_int,
    "local_shape": _local_shape,
    "weights_sha256": _sha256,
    "training_config": _json_object,
    "calibration": Calibration.parse,
    "gsd_range_m": _gsd_range,
}
