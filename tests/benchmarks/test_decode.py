"""The table of decoding is made through the service's own steps."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.encoder.contract import check_contract
from service.imaging.workers import Worker

spec = importlib.util.spec_from_file_location("decode", Path(__file__).parents[2] / "benchmarks" / "decode.py")
decode = importlib.util.module_from_spec(spec)
spec.loader.exec_module(decode)


@pytest.fixture
def worker():
    made = Worker()
    yield made
    made.close()


def test_a_photo_is_a_line(worker, tiny_model, tmp_path):
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    Image.fromarray(noise).save(out, "JPEG")
    contract = check_contract(tiny_model(tmp_path / "m.onnx"))
    name, size, *numbers = decode.row("noise", out.getvalue(), contract, worker, rounds=1)
    assert (name, size) == ("noise", f"64 x 48, {len(out.getvalue()) / 1e6:.1f} MB")
    assert len(numbers) == 6
