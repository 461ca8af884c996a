from pathlib import Path

import pytest

from training.data.simulator.simulated import SimulatedConfig
from training.data.vigor import VIGORConfig
from training.errors import TrainingError
from training.evaluation.settings import data_to_judge_on

CROSS = VIGORConfig(Path("there"), area="cross", panorama_aspect=2)
HERE = Path("here")


def test_a_model_is_judged_on_the_data_set_as_it_was_trained_on_it():
    data, taken_over = data_to_judge_on("vigor", HERE, None, CROSS)
    assert data == VIGORConfig(HERE, area="cross", panorama_aspect=2)
    assert taken_over == ["area=cross", "panorama_aspect=2"]


def test_the_command_wins_and_what_it_says_was_not_taken_over():
    data, taken_over = data_to_judge_on("vigor", HERE, ["panorama_aspect=1", "labels=splits"], CROSS)
    assert data == VIGORConfig(HERE, area="cross", labels="splits")
    assert taken_over == ["area=cross"]


@pytest.mark.parametrize("trained_on", [None, SimulatedConfig(), VIGORConfig(Path("there"))])
def test_another_data_set_and_defaults_bring_nothing(trained_on):
    assert data_to_judge_on("vigor", HERE, None, trained_on) == (VIGORConfig(HERE), [])


def test_what_was_taken_over_can_be_said_again_as_options():
    trained_on = SimulatedConfig(textures=("a/*.png",), held_out_share=0.3, scale=(0.9, 1.1), quarter_turns=True)
    data, taken_over = data_to_judge_on("simulated", HERE, None, trained_on)
    assert data_to_judge_on("simulated", HERE, taken_over, None) == (data, [])


def test_where_the_files_of_a_run_lay_is_not_taken_over():
    """A map has nothing to be judged by, and a cache of views is the trainer's."""
    trained_on = SimulatedConfig(root=Path("there"), map=Path("area.tif"), cache=Path("views"))
    data, taken_over = data_to_judge_on("simulated", HERE, ["textures=[a/*.png]"], trained_on)
    assert data == SimulatedConfig(root=HERE, textures=("a/*.png",))
    assert taken_over == []


def test_unknown_keys_name_the_fix():
    with pytest.raises(TrainingError, match=r"data\.height_m: Unexpected keyword argument"):
        data_to_judge_on("sues200", HERE, ["height_m=200"], None)
