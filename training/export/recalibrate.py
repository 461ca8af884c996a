"""A finished model file with a new calibration of its matches, fitted through the service as it is now."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import onnx

from training.config import Config
from training.data.simulator.simulated import SimulatedConfig
from training.errors import TrainingError
from training.export.calibrate_local import calibrate_local
from training.export.flown import Flown
from training.export.onnx_file import calibration_textures, read_onnx
from training.export.rehearsal import Rehearsal, write_stage

_KEY = "aerofix.calibration"


def recalibrate(
    model: Path, out: Path, config: Config, circles: int | None = None, flown: Flown | None = None
) -> list[str]:
    """Fit the section ``local`` of a model file's calibration again, as an export does; its weights stay.

    Args:
        model: the ONNX file.
        out: where to write it with the new calibration.
        config: its ``data`` says which places are held out, ``run.seed`` how they are flown over.
        circles: searched ones, of 30 photos each; None: as many as an export takes.
        flown: real photos to fit on as well.

    Returns:
        A report, a line each.

    Raises:
        TrainingError: there is no such file, it is no model with local descriptors, or nothing is held out.
    """
    proto = read_onnx(model)
    told = {entry.key: entry for entry in proto.metadata_props}
    data = config.data
    if _KEY not in told or told["aerofix.local_shape"].value in {"", "null"}:
        raise TrainingError(f"{model} has no local descriptors, so there is nothing to fit on matches.")
    if not isinstance(data, SimulatedConfig):
        raise TrainingError(f"Calibration flies over held-out textures, and {data.dataset} has none.")
    before: dict[str, Any] = json.loads(told[_KEY].value)
    size, (_, cells, _) = int(told["aerofix.image_size"].value), json.loads(told["aerofix.local_shape"].value)
    with tempfile.TemporaryDirectory() as name:
        provisional = Path(name) / "model.onnx"
        stage = write_stage(
            Path(name), calibration_textures(data), data, image_size=size, seed=config.run.seed, circles=circles
        )

        def answer(calibration: dict[str, Any]) -> Rehearsal:
            told[_KEY].value = json.dumps(calibration)
            onnx.save(proto, str(provisional))
            simulated = stage.rehearse(provisional)
            return simulated if flown is None else simulated.and_of(flown.rehearse(provisional))

        base = {key: value for key, value in before.items() if key != "local"}
        turns = before.get("local", {}).get("turns", 1)
        fitted, report = calibrate_local(base, answer, turns=turns, cell_tiles=1 / cells)
    told[_KEY].value = json.dumps(fitted)
    onnx.save(proto, str(out))
    return report
