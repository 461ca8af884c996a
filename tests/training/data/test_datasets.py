from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from training.data.datasets import _FILES, DatasetConfig
from training.data.simulator.simulated import SimulatedConfig

SECTION = TypeAdapter(Annotated[DatasetConfig, Field(discriminator="dataset")])
NAMES = ["university1652", "sues200", "denseuav", "vigor", "gta_uav", "simulated"]


@pytest.mark.parametrize("name", NAMES)
def test_the_tag_chooses_the_config_and_survives_json(name):
    config = SECTION.validate_python({"dataset": name, "root": "somewhere"})
    assert config.dataset == name
    assert config.root == Path("somewhere")
    assert SECTION.validate_python(SECTION.dump_python(config, mode="json")) == config


def test_every_config_has_a_data_set():
    kinds = {type(SECTION.validate_python({"dataset": name, "root": "x"})) for name in NAMES}
    assert kinds == {*_FILES, SimulatedConfig}


@pytest.mark.parametrize(
    "tree",
    [
        {"dataset": "university1652"},
        {"dataset": "university1652", "root": "x", "heights_m": [150]},
        {"dataset": "sues200", "root": "x", "heights_m": []},
        {"dataset": "sues200", "root": "x", "heights_m": [175]},
        {"dataset": "vigor", "root": "x", "area": "other"},
        {"dataset": "simulated", "pitch_deg": [80, 60]},
        {"dataset": "simulated", "same_group_share": 0.5},
        {"dataset": "atlantis", "root": "x"},
    ],
)
def test_knobs_out_of_range_are_refused(tree):
    with pytest.raises(ValidationError):
        SECTION.validate_python(tree)
