"""Nothing leaves the machine: the library that runs the model must not report on it."""

import os
import subprocess
import sys

import pytest

RUN_A_MODEL = """
import sys, {package}, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {{"image": numpy.zeros((1, 32, 32, 3), numpy.uint8)}})
"""


def run_a_model(package, model, home):
    """Run a model in a fresh process and home; returns what the process left there and what it said."""
    home.mkdir()
    # onnxruntime is silent by itself where it sees a test or a build server, so neither may be in the environment
    plain = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    command = [sys.executable, "-c", RUN_A_MODEL.format(package=package), str(model)]
    done = subprocess.run(command, env=plain | {"HOME": str(home)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [path for path in home.rglob("*") if path.is_file()], done.stderr


@pytest.mark.parametrize("package", ["service", "training"])
def test_running_a_model_leaves_no_report_to_send(package, tiny_model, tmp_path):
    left, said = run_a_model(package, tiny_model(tmp_path / "m.onnx"), tmp_path / "home")
    assert left == []  # where it reports, it keeps an identifier and a queue in the home folder
    assert "telemetry" not in said
