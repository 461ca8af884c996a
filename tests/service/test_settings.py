import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from service.settings import Settings


def test_the_environment_configures(monkeypatch):
    monkeypatch.setenv("AEROFIX_MAX_BATCH", "3")
    assert Settings().max_batch == 3
    assert Settings(max_batch=5).max_batch == 5


def test_every_field_has_a_reason_and_every_number_a_bound():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        if field.annotation in (int, float):
            assert field.metadata, name


@pytest.mark.parametrize(
    ("name", "value"), [("max_batch", 0), ("deadline_s", 0), ("device", "tpu"), ("log_level", "LOUD")]
)
def test_bad_values_are_refused(name, value):
    with pytest.raises(ValidationError, match=name):
        Settings(**{name: value})


def test_a_name_that_is_no_setting_is_refused():
    with pytest.raises(ValidationError, match="max_bacth"):
        Settings(max_bacth=3)


def test_lists_are_written_with_commas_or_spaces(monkeypatch):
    monkeypatch.setenv("AEROFIX_ALLOWED_HOSTS", "map.local, 10.0.0.7  other")
    assert Settings().allowed_hosts == ("map.local", "10.0.0.7", "other")


@pytest.mark.parametrize(
    ("device", "index_device", "place"),
    [
        ("auto", "auto", "auto:1"),
        ("cpu", "auto", "cpu"),
        ("cuda", "auto", "auto:1"),
        ("cpu", "cuda", "cuda:1"),
        ("auto", "cpu", "cpu"),
    ],
)
def test_where_to_search(device, index_device, place):
    assert Settings(device=device, index_device=index_device, cuda_device=1).search_device == place


def test_the_default_model_lies_beside_the_package():
    assert Settings().model.parts[-2:] == ("models", "aerofix-lite2.onnx")


@pytest.mark.parametrize(
    ("given", "order"), [({}, "PCI_BUS_ID"), ({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, "FASTEST_FIRST")]
)
def test_gpus_are_counted_as_nvidia_smi_does_unless_told_otherwise(given, order):
    kept = {name: value for name, value in os.environ.items() if name != "CUDA_DEVICE_ORDER"}
    program = "import os, service.settings; print(os.environ['CUDA_DEVICE_ORDER'])"
    done = subprocess.run([sys.executable, "-c", program], env=kept | given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == order
