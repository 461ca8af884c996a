"""Checkpoint → the ONNX file of the model contract, checked against PyTorch, with its calibration inside.

The file holds uint8 in, normalisation, backbone, pooling, projection and unit length, and dense descriptors if the
model has them; heads and branches that only training needs never reach it. ``weights_sha256`` is SHA-256 over the
graph's initializers sorted by name, each as its UTF-8 name, a zero byte and its raw little-endian values: it survives
another serialisation of the same weights.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from training.checkpoint import load_encoder, with_local
from training.config import Config, dump_config
from training.data.simulator.simulated import SimulatedConfig
from training.data.simulator.textures import Texture, load_dates, load_textures
from training.errors import TrainingError
from training.export.calibrate import calibrate, held_out_answers, untrained_calibration
from training.export.calibrate_local import calibrate_local
from training.export.rehearsal import Rehearsal, write_stage
from training.models.encoder import Encoder

CONTRACT = "1"
#: 18 is the contract's floor, and what the exporter writes without conversion.
OPSET = 18
#: PyTorch and ONNX run other kernels; a float32 network agrees to far better than this cosine, a wrong export does not.
MIN_COSINE = 0.9999


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    calibrated: bool = True,
    data_root: Path | None = None,
    local: Path | None = None,
) -> list[str]:
    """Export a checkpoint, prove that the file answers as PyTorch does, and calibrate it on held-out textures.

    Args:
        checkpoint: of a run.
        out: the file to write.
        calibrated: fit the confidence.
        data_root: where the textures are; default: where they were.
        local: checkpoint of a run whose dense descriptors to take.

    Returns:
        What was measured, a line each.

    Raises:
        TrainingError: the checkpoint is unreadable, the parity check fails, or there is nothing to calibrate on.
    """
    encoder, config = load_encoder(checkpoint)
    if local is not None:
        encoder, config = with_local(encoder, config, local)
    calibration, report = untrained_calibration(), list[str]()
    if calibrated:
        if not isinstance(config.data, SimulatedConfig):
            raise TrainingError(
                f"Calibration flies over held-out textures, and {config.data.dataset} has none: add --no-calibrate."
            )
        data = config.data if data_root is None else replace(config.data, root=data_root)
        if data.quarter_turns:  # which calibration's own cameras do not take
            data = replace(data, heading_deg=(0.0, 360.0), quarter_turns=False)
        if data.map is None:
            calibration, report = _calibration(encoder, config, data)
        else:
            calibration, report = _calibration_of_start(config)
    parity = write_onnx(encoder, config, out, calibration)
    size_mb = out.stat().st_size / 1e6
    return [*report, f"ONNX against PyTorch: cosine ≥ {parity:.7f}", f"{out}: {size_mb:.1f} MB"]


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read a model file.

    Raises:
        TrainingError: there is none, or it is of another kind.
    """
    if not path.is_file():
        raise TrainingError(f"There is no model file {path}: give an .onnx file that aerofix-train export wrote.")
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf and the file system have errors of their own
        raise TrainingError(f"{path} is no readable ONNX model: {type(error).__name__}.") from error


def _calibration_of_start(config: Config) -> tuple[dict[str, Any], list[str]]:
    """A model that was adapted to a map keeps the calibration it had: its own map is all trained on."""
    start = config.model.start
    if start is None or start.suffix != ".onnx":
        raise TrainingError(
            "A run on data.map holds nothing out to calibrate on: start from an .onnx file (model.start), whose "
            "calibration is kept, or add --no-calibrate."
        )
    entries = {entry.key: entry.value for entry in read_onnx(start).metadata_props}
    calibration: dict[str, Any] = json.loads(entries["aerofix.calibration"])
    return calibration, [f"calibration: kept from {start}"]


def _calibration(encoder: Encoder, config: Config, data: SimulatedConfig) -> tuple[dict[str, Any], list[str]]:
    """Fitted on held-out textures, and for a model with dense descriptors on the service's own answers too."""
    held_out = calibration_textures(data)
    seed, size = config.run.seed, config.model.image_size
    calibration, report = calibrate(held_out_answers(encoder, held_out, data, seed=seed))
    if encoder.local_dim is None:
        return calibration, report
    with tempfile.TemporaryDirectory() as name:
        stage, model = write_stage(Path(name), held_out, data, image_size=size, seed=seed), Path(name) / "model.onnx"

        def answer(provisional: dict[str, Any]) -> Rehearsal:
            write_onnx(encoder, config, model, provisional)
            return stage.rehearse(model)

        cell = config.model.local_stride / size
        calibration, lines = calibrate_local(calibration, answer, turns=config.model.local_turns, cell_tiles=cell)
    return calibration, report + lines


def calibration_textures(data: SimulatedConfig) -> list[Texture]:
    """Return places that nothing was trained on, of one date or two; each once, or a photo would have two places."""
    _, held_out = load_textures(data)
    dated = [texture for texture in load_dates(data) if texture.name in data.dates_held_out]
    return held_out + dated


def write_onnx(encoder: Encoder, config: Config, out: Path, calibration: dict[str, Any]) -> float:
    """Write the file with its metadata; returns the smallest cosine of the parity check.

    Raises:
        TrainingError: what the file answers differs from PyTorch's by more than ``MIN_COSINE`` allows.
    """
    encoder = encoder.eval().cpu()
    model = _trace(encoder, config.model.image_size)
    digest = weights_sha256(model)
    metadata = {
        "contract": CONTRACT,
        "model_id": f"{config.name}-{digest[:8]}",
        "method": config.method_name,
        "backbone": config.model.backbone,
        "image_size": config.model.image_size,
        "resize": config.model.resize,
        "embedding_dim": encoder.embedding_dim,
        "local_shape": _local_shape(model),
        "weights_sha256": digest,
        "training_config": json.dumps(_without_paths(dump_config(config))),
        "calibration": json.dumps(calibration),
        "license": config.license,
        "gsd_range_m": json.dumps(list(config.model.gsd_range_m)),
    }
    onnx.helper.set_model_props(model, {f"aerofix.{key}": str(value) for key, value in metadata.items()})
    onnx.checker.check_model(model)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    onnx.save(model, str(partial))
    cosine = parity(encoder, partial, config.model.image_size)
    if not cosine >= MIN_COSINE:  # NaN, too, is no agreement
        partial.unlink()
        raise TrainingError(f"The ONNX file disagrees with PyTorch: cosine {cosine:.5f}, {MIN_COSINE} is needed.")
    partial.replace(out)
    return cosine


def parity(encoder: Encoder, path: Path, image_size: int) -> float:
    """Return the smallest cosine of PyTorch's and onnxruntime's (CPU) vectors, over noise and structured pictures.

    Every embedding counts, and every position of the dense descriptors.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, image_size, image_size, 3), dtype=np.uint8)
    ramp = np.linspace(0, 255, image_size).astype(np.uint8)
    images[1], images[2] = ramp[None, :, None], ramp[:, None, None]
    images[3, : image_size // 2], images[4] = 0, 255
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    graph, names = _graph(encoder)
    theirs: list[NDArray[np.float32]] = session.run(names, {"image": images})
    with torch.no_grad():
        answer = graph(torch.from_numpy(images))
    ours: list[Tensor] = [answer] if isinstance(answer, Tensor) else list(answer)
    cosines = [(a.numpy() * b).sum(1).min() for a, b in zip(ours, theirs, strict=True)]
    return float(np.min(cosines))  # NaN stays NaN


def weights_sha256(model: onnx.ModelProto) -> str:
    """Hash the weights (see the module's docstring)."""
    digest = hashlib.sha256()
    for tensor in sorted(model.graph.initializer, key=lambda t: t.name):
        values = numpy_helper.to_array(tensor)
        digest.update(
            tensor.name.encode() + b"\0" + values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        )
    return digest.hexdigest()


class _WithLocal(nn.Module):
    """The graph of a model with dense descriptors: image → embedding, local."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.encoder.features(image)
        return features.embedding, features.local


def _graph(encoder: Encoder) -> tuple[nn.Module, list[str]]:
    """What to export, and the names of its outputs."""
    if encoder.local_dim is None:
        return encoder, ["embedding"]
    return _WithLocal(encoder).eval(), ["embedding", "local"]


def _local_shape(model: onnx.ModelProto) -> str:
    """``[C, h, w]`` of the output ``local`` as JSON; empty when there is none."""
    for output in model.graph.output:
        if output.name == "local":
            return json.dumps([d.dim_value for d in output.type.tensor_type.shape.dim[1:]])
    return ""


def _trace(encoder: Encoder, image_size: int) -> onnx.ModelProto:
    graph, names = _graph(encoder)
    example = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            graph,
            (example,),
            str(file),
            input_names=["image"],
            output_names=names,
            dynamic_shapes={"image": {0: torch.export.Dim("N", min=1, max=4096)}},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        return _without_traces(onnx.load(str(file)))


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's notes: stack traces with the folders of the machine it ran on."""
    for annotated in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del annotated.metadata_props[:]
    return model


def _without_paths(tree: dict[str, Any]) -> dict[str, Any]:
    """The config without the folders of the machine it ran on: a model file is passed around."""
    data = {**tree["data"], "root": "DATA"} | ({"map": "MAP"} if tree["data"].get("map") else {})
    model = tree["model"] | ({"start": "START"} if tree["model"]["start"] else {})
    return {**tree, "data": data, "model": model, "run": {**tree["run"], "out": "RUN", "export": None}}
