import dataclasses
import json
from pathlib import Path

import pytest

from training.config import Config, dump_config, load_config, parse_config
from training.errors import TrainingError


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_without_anything_the_defaults_hold():
    assert load_config(None) == Config()


def test_yaml_and_overrides_are_merged(tmp_path):
    path = write(tmp_path, "name: mine\noptim:\n  steps: 10\n  lr: 1e-3\n")
    config = load_config(path, ["optim.steps=20", "model.embedding_dim=null", "data.pitch_deg=[60, 80]"])
    assert (config.name, config.optim.steps, config.optim.lr) == ("mine", 20, 1e-3)
    assert config.model.embedding_dim is None
    assert config.data.pitch_deg == (60, 80)
    assert config.optim.batch_pairs == Config().optim.batch_pairs


@pytest.mark.parametrize(
    ("section", "one", "other"),
    [("optim", "steps: 5", "epochs: 2"), ("run", "evaluate_every: 5", "evaluate_epochs: 2")],
)
def test_the_later_of_two_ways_to_say_a_length_wins(tmp_path, section, one, other):
    for first, then in ((one, other), (other, one)):
        path = write(tmp_path, f"{section}: {{{first}}}\n")
        (key, value), (gone, _) = then.split(": "), first.split(": ")
        settings = getattr(load_config(path, [f"{section}.{key}={value}"]), section)
        assert (getattr(settings, key), getattr(settings, gone)) == (int(value), None)
    with pytest.raises(TrainingError, match=r"not both; the other one is null"):
        load_config(path, [f"{section}.{each.replace(': ', '=')}" for each in (one, other)])


def test_an_empty_file_is_the_defaults(tmp_path):
    assert load_config(write(tmp_path, ""), ["name=x"]).name == "x"


def test_dump_is_the_inverse_of_parse_through_json():
    config = load_config(None, ["data.textures=[a/*.tif, b/*.jpg]", "data.root=somewhere", "optim.lr=3e-4"])
    assert parse_config(json.loads(json.dumps(dump_config(config)))) == config


def test_several_files_are_joined_and_name_the_run(tmp_path):
    (tmp_path / "method.yaml").write_text("optim: {steps: 7, lr: 1.0e-3}\n")
    (tmp_path / "places.yaml").write_text("optim: {lr: 2.0e-3}\ndata: {tile_side_m: 50}\n")
    both = [tmp_path / "method.yaml", tmp_path / "places.yaml"]
    config = load_config(both, ["optim.batch_pairs=8"])
    assert (config.optim.steps, config.optim.lr, config.optim.batch_pairs) == (7, 2e-3, 8)
    assert (config.data.tile_side_m, config.name, config.run.out) == (50, "method-places", Path("runs/method_places"))
    assert load_config(both, ["name=mine", "run.out=here"]).run.out == Path("here")


def test_bases_are_joined_section_by_section_and_the_file_wins(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/a.yaml").write_text("name: a\noptim: {steps: 7, lr: 1.0e-3}\nmodel: {image_size: 64}\n")
    (tmp_path / "parts/b.yaml").write_text("base: a.yaml\noptim: {lr: 2.0e-3}\n")
    config = load_config(write(tmp_path, "base: [parts/b.yaml]\nname: mine\noptim: {batch_pairs: 8}\n"))
    assert (config.name, config.model.image_size) == ("mine", 64)
    assert (config.optim.steps, config.optim.lr, config.optim.batch_pairs) == (7, 2e-3, 8)


def test_a_base_that_leads_back_is_refused(tmp_path):
    (tmp_path / "other.yaml").write_text("base: run.yaml\n")
    with pytest.raises(TrainingError, match="names itself as its base"):
        load_config(write(tmp_path, "base: other.yaml\n"))


def test_dphr_rides_on_any_method():
    assert load_config(None, ["method.name=unifygeo", "dphr={}"]).method_name == "unifygeo+dphr"


def test_configs_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().optim.lr = 1.0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.learning_rate=1", "optim.learning_rate: Unexpected keyword argument"),
        ("optim.lr=0", "optim.lr: Input should be greater than 0"),
        ("optim.lr=fast", "optim.lr: Input should be a valid number"),
        ("model.aggregation=magic", "model.aggregation: Input should be 'gem', 'avg', 'attention_gem' or 'gem_vlad'"),
        ("method.name=magic", "method: Input tag 'magic'"),
        ("data.dataset=magic", "data: Input tag 'magic'"),
        ("method.label_smoothing=1", "method.label_smoothing: Input should be less than 1"),
        ("dphr.margin=-1", "dphr.margin: Input should be greater than or equal to 0"),
        ("run.device=tpu", "run.device"),
        ("optim.batch_pairs=1", "optim.batch_pairs"),
        ("data.tile_share=[0, 0.5]", "data.tile_share.0: Input should be greater than 0"),
        ("data.pitch_deg=[10, 90]", "data.pitch_deg.0: Input should be greater than or equal to 20"),
        ("data.window_px=[700, 360]", "data.window_px: Value error, give the smaller number first"),
        ("data.hfov_deg=[40, 150]", "data.hfov_deg.1: Input should be less than 150"),
        ("optim=3", "optim"),
        ("optim.lr", "Overrides look like optim.lr=1e-4, not 'optim.lr'"),
        ("name.first=x", "name: Input should be a valid string"),
        ("optim.lr.first=1", "optim.lr: Input should be a valid number"),
        ("name=[", "quote it"),
    ],
)
def test_errors_name_the_key_and_the_fix(tmp_path, override, message):
    with pytest.raises(TrainingError) as caught:
        load_config(write(tmp_path, "name: mine\n"), [override])
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"a: [1", b"\xff\xfe\x00", b"- a\n- b\n", b"just words"])
def test_another_file_is_no_config(tmp_path, content):
    (tmp_path / "run.yaml").write_bytes(content)
    for overrides in ([], ["optim.lr=1"]):
        with pytest.raises(TrainingError):
            load_config(tmp_path / "run.yaml", overrides)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"Cannot read the config .*absent\.yaml"):
        load_config(tmp_path / "absent.yaml")
