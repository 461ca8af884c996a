import json
import re

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from typer.testing import CliRunner

from training.checkpoint import save_model
from training.cli import app
from training.config import Config, ModelConfig
from training.distributed import World
from training.evaluation.embed import TorchEmbedder
from training.export.calibrate import untrained_calibration
from training.export.onnx_file import write_onnx
from training.models.encoder import Encoder
from training.train import make_state

CALIBRATE = ["calibrate", "--model", "m.onnx", "--out", "o.onnx", "--config", "c.yaml"]


@pytest.fixture(scope="module")
def run():
    runner = CliRunner()

    def invoke(*arguments):
        return runner.invoke(app, [str(a) for a in arguments])

    return invoke


def test_simulate_writes_photos_and_truth(run, tmp_path, write_tiff):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 80, 80), dtype=np.uint8)
    path = write_tiff(tmp_path / "map.tif", pixels, "EPSG:32651", 500_000, 2_680_000, 2.0)
    out = tmp_path / "[flight]"  # brackets are no markup
    result = run("simulate", "--map", path, "--out", out, "--count", 1)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"1 photos and truth.json in {out}\n"
    assert len(json.loads((out / "truth.json").read_text())) == 1


def test_an_exported_model_is_adapted_to_a_map_and_exported_with_its_calibration(run, tmp_path, write_tiff):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 160, 160), dtype=np.uint8)
    area = write_tiff(tmp_path / "area.tif", pixels, "EPSG:32651", 500_000, 2_680_000, 0.5)
    tree = {"backbone": "test_efficientnet", "weights": "none", "embedding_dim": 16, "image_size": 32}
    torch.manual_seed(0)
    encoder = Encoder(ModelConfig(frozen_stages=0, **tree))
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(0.05 * torch.rand_like(weight))
    first, calibration = tmp_path / "first.onnx", untrained_calibration() | {"sigma_tiles": 0.123}
    write_onnx(encoder, Config(model=encoder.config), first, calibration)
    settings = {f"model.{key}": value for key, value in tree.items()} | {
        "model.frozen_stages": 0,
        "model.start": first,
        "data.map": area,
        "data.tile_side_m": 20,
        "optim.batch_pairs": 2,
        "optim.steps": 1,
        "optim.lr": 0.02,
        "optim.warmup_steps": 0,
        "run.out": tmp_path / "run",
        "run.export": tmp_path / "adapted.onnx",
    }
    result = run("fit", *(f"{k}={v}" for k, v in settings.items()))
    assert result.exit_code == 0, result.output
    assert f"calibration: kept from {first}" in result.stdout
    metadata = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "adapted.onnx")).metadata_props}
    assert json.loads(metadata["aerofix.calibration"]) == calibration
    assert str(tmp_path) not in metadata["aerofix.training_config"]
    before, after = (
        ort.InferenceSession(str(path)).run(None, {"image": np.full((1, 32, 32, 3), 90, np.uint8)})[0]
        for path in (first, tmp_path / "adapted.onnx")
    )
    assert 0.5 < (before * after).sum() < 0.99999  # trained on, not anew


def test_fit_and_export_hand_on_a_checkpoint(run, tmp_path, picture_folder):
    settings = {
        "model.backbone": "test_efficientnet",
        "model.weights": "none",
        "model.embedding_dim": 16,
        "model.image_size": 32,
        "model.frozen_stages": 0,
        "data.root": picture_folder,
        "data.textures": "[a/*.png]",
        "data.tile_side_m": 20,
        "optim.batch_pairs": 2,
        "optim.steps": 1,
        "run.out": tmp_path / "run",
        "run.device": "cpu",
    }
    result = run("fit", *(f"{k}={v}" for k, v in settings.items()))
    assert result.exit_code == 0, result.output
    assert f"checkpoint: {tmp_path / 'run/checkpoint.pt'}" in result.stdout
    model = tmp_path / "m.onnx"
    result = run("export", "--checkpoint", tmp_path / "run/checkpoint.pt", "--out", model, "--no-calibrate")
    assert result.exit_code == 0, result.output
    assert re.search(r"ONNX against PyTorch: cosine ≥ 0\.9999", result.stdout)
    assert model.is_file()
    result = run("export", "--checkpoint", tmp_path / "run/checkpoint.pt", "--out", model)
    assert result.exit_code == 1
    assert "too few to calibrate on" in result.stderr
    assert "--no-calibrate" in result.stderr


@pytest.fixture
def checkpoint(tiny_config, tmp_path):
    """``checkpoint(method, **model)``: of a run on the pictures in ``a/``, a third of them held out."""

    def make(method, **model):
        config = tiny_config(method={"name": method}, model=model, data={"held_out_share": 0.4})
        torch.manual_seed(0)
        state = make_state(config, 8, World(0, 1, torch.device("cpu")))
        save_model(state, tmp_path / "best.pt", config)
        return tmp_path / "best.pt"

    return make


def test_evaluate_begins_with_the_data_of_the_run_and_files_all_it_measures(run, checkpoint, picture_folder, tmp_path):
    model = checkpoint("unifygeo", local_dim=16, local_stride=16)
    options = ["--dataset", "simulated", "--root", picture_folder, "--locate", "--consistency", "--rerank"]
    files = ["--json", tmp_path / "a.json", "--report", tmp_path / "a"]
    result = run("evaluate", "--model", model, *options, *files, "held_out_share=0.3")
    assert result.exit_code == 0, result.output
    assert (
        'settings that come with the model: textures=["a/*.png"], tile_side_m=30.0, window_px=[100, 130] ('
        in result.stdout
    )
    there, back = json.loads((tmp_path / "a.json").read_text())["tasks"].values()
    assert (
        there["locate"]["queries"]
        == there["full"]["counts"]["queries"] - there["full"]["counts"]["queries_without_positive"]
    )
    assert "locate" not in back
    for task in (there, back):
        assert 0 < task["consistency"]["orientation"] < 1
        shown = f"{task['consistency']['coverage']:.3f}"
        assert shown in result.stdout
        assert shown in (tmp_path / "a" / "index.html").read_text()


@pytest.mark.parametrize(
    ("option", "message"),
    [("--locate", "which locates nothing: train with unifygeo"), ("--rerank", "no dense descriptors to re-rank by")],
)
def test_what_a_model_cannot_do_is_said_before_it_embeds(run, checkpoint, picture_folder, monkeypatch, option, message):
    monkeypatch.setattr(TorchEmbedder, "__call__", lambda *_: pytest.fail("it embeds"))
    result = run(
        "evaluate", "--model", checkpoint("sample4geo"), "--dataset", "simulated", "--root", picture_folder, option
    )
    assert result.exit_code == 1
    assert message in result.stderr


def test_the_example_of_an_option_in_the_help_is_one(run, checkpoint, tmp_path):
    example = re.search(r"such as\W+(\w+=\S+\])", run("evaluate", "--help").stdout)[1]  # the line may be broken
    result = run("evaluate", "--model", checkpoint("sample4geo"), "--dataset", "sues200", "--root", tmp_path, example)
    assert "SUES-200" in result.stderr  # the folder is not laid out; nothing is said against the option
    assert "errors" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--config", "[absent].yaml"], "Cannot read the config [absent].yaml"),
        (["fit", "optim.lr"], "Overrides look like optim.lr=1e-4"),
        (["fit", "optim.lr=-1"], "optim.lr: Input should be greater than 0"),
        (["fit"], "data.textures is empty: give globs of aerial pictures, such as maps/*.tif, or data.map."),
        (["fit", "data.textures=[none/*.jpg]"], "Set data.root to the folder it counts from."),
        (["export", "--checkpoint", "[absent].pt", "--out", "m.onnx"], "There is no file [absent].pt"),
        (["simulate", "--map", "absent.tif", "--out", "out"], "Give a GeoTIFF"),
        (
            [*CALIBRATE, "--photos", "p.csv"],
            "--photos needs the --gallery that shows their places",
        ),
        (
            [*CALIBRATE, "--photos", "p.csv", "--gallery", "g"],
            "The table of photos cannot be read",
        ),
    ],
)
def test_errors_are_one_sentence_that_names_the_fix(run, arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [["simulate"], ["export"], ["simulate", "--map", "m.tif", "--out", "o", "--count", "0"]]
)
def test_usage_errors_exit_with_2(run, arguments):
    assert run(*arguments).exit_code == 2
