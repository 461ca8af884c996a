"""The GPU check's logic, on the CPU: what it counts, compares and says when something is missing."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.errors import DeviceUnavailable

spec = importlib.util.spec_from_file_location("gpu_check", Path(__file__).parents[2] / "benchmarks" / "gpu_check.py")
gpu_check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu_check)


@pytest.fixture
def convolution(tmp_path):
    """A model of one convolution, grouped, and one matrix product."""
    kernel = numpy_helper.from_array(np.ones((8, 2, 3, 3), np.float32), "kernel")  # 4 channels in, in 2 groups
    matrix = numpy_helper.from_array(np.ones((8, 5), np.float32), "matrix")
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["maps"], group=2, pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "matrix"], ["out"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tiny",
        [value("image", TensorProto.FLOAT, ["N", 4, 10, 10])],
        [value("out", TensorProto.FLOAT, ["N", 5])],
        [kernel, matrix],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "tiny.onnx")
    return tmp_path / "tiny.onnx"


def test_operations_are_counted_as_by_hand(convolution):
    # each of 8 x 10 x 10 outputs sums 2 channels x 3 x 3 products; each of 5 outputs sums 8
    assert gpu_check.flops_an_image(convolution) == 2 * (8 * 100 * 18 + 5 * 8)


def test_search_agrees_with_the_product_of_all(capsys):
    gpu_check.print_part("search", lambda: gpu_check.search_rows("cpu", 2_000))
    recall = float(re.search(r"recall@128 of 2000 x 512\s+([\d.]+)", capsys.readouterr().out)[1])
    assert recall >= 0.99


def test_a_part_that_cannot_run_says_why_and_lets_the_others_go_on(capsys):
    def missing():
        yield "before", "1"
        raise DeviceUnavailable("CUDA is not here; install the driver.")

    assert not gpu_check.print_part("search", missing)
    assert gpu_check.print_part("next", lambda: iter([("row", "fine")]))
    out = capsys.readouterr().out
    assert "not run: CUDA is not here; install the driver." in out
    assert re.search(r"row\s+fine", out)


def test_the_encoder_agrees_with_itself(tmp_path, capsys, tiny_model):
    model = tiny_model(tmp_path / "tiny.onnx")
    gpu_check.print_part("encoder", lambda: gpu_check.encoder_rows(model, "cpu", small=True))
    out = capsys.readouterr().out
    assert re.search(r"lowest of 8\s+1\.000", out)
    assert "batches of changing size" in out


def test_what_did_not_run_is_not_taken_for_a_success(monkeypatch):
    def missing(*_):
        raise DeviceUnavailable("CUDA is not here; install the driver.")

    monkeypatch.setattr("sys.argv", ["gpu_check.py"])
    for rows in ("encoder_rows", "losing_rows", "training_rows"):
        monkeypatch.setattr(gpu_check, rows, missing)
    monkeypatch.setattr(gpu_check, "search_rows", lambda *_: iter([("row", "fine")]))
    with pytest.raises(SystemExit, match="4 parts did not run"):
        gpu_check.main()
