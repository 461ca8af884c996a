"""``aerofix-train``: train, evaluate, export and simulate from the command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from training.errors import TrainingError


class Gallery(StrEnum):
    """What the queries are ranked against."""

    full = "full"
    filtered = "filtered"
    both = "both"


app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
console = Console()


def _plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Show a TrainingError, or that a package is missing, as one sentence and exit with 1."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except TrainingError as error:
            _fail(str(error))
        except ModuleNotFoundError as error:
            _fail(
                f"{error.name} is not installed: training needs `pip install 'aerofix[train]'`, and of the service "
                "aerofix[cpu] or aerofix[gpu]."
            )

    return run


def _fail(reason: str) -> NoReturn:
    Console(stderr=True).print(f"[red]error:[/] {escape(reason)}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


@app.command()
@_plain_errors
def fit(
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, for example optim.steps=200")] = None,
    config: Annotated[
        list[str] | None, typer.Option(help="YAML file or name, may be repeated: a method, then a data set; see list")
    ] = None,
) -> None:
    """Train, or go on from the checkpoint in run.out; with run.export write the ONNX file too."""
    from training.catalogue import find_config
    from training.config import load_config
    from training.export.onnx_file import export_checkpoint
    from training.train import fit as run_fit

    settings = load_config([find_config(name) for name in config or []], overrides)
    checkpoint = run_fit(settings)
    _show(f"checkpoint: {checkpoint}")
    if settings.run.export is not None and os.environ.get("RANK", "0") == "0":  # torchrun numbers its processes
        for line in export_checkpoint(checkpoint, settings.run.export):
            _show(line)


@app.command(name="list")
@_plain_errors
def list_configs() -> None:
    """List what there is to train: methods, data sets and whole recipes, by the names that --config takes."""
    from training.catalogue import describe

    for line in describe():
        _show(line)


@app.command()
@_plain_errors
def whiten(
    config: Annotated[str, typer.Option(help="YAML file, or a name that aerofix-train list prints: lite2_whiten")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, for example data.root=DATA")] = None,
) -> None:
    """Make a better embedding on a finished backbone (model.start), or go on with it in run.out."""
    from training.catalogue import find_config
    from training.config import load_config
    from training.whitening import whiten as run_whiten

    checkpoint, report = run_whiten(load_config(find_config(config), overrides))
    for line in [*report, f"checkpoint: {checkpoint}"]:
        _show(line)


@app.command()
@_plain_errors
def evaluate(
    model: Annotated[Path, typer.Option(help="an .onnx file, the checkpoint.pt of a run, or published timm weights")],
    dataset: Annotated[str, typer.Option(help="university1652, sues200, denseuav, vigor, gta_uav or simulated")],
    root: Annotated[Path, typer.Option(help="folder of the data set")],
    options: Annotated[
        list[str] | None, typer.Argument(help="key=value of the data set, such as heights_m=[200]")
    ] = None,
    config: Annotated[list[str] | None, typer.Option(help="of published weights: the network they are of")] = None,
    gallery: Annotated[
        Gallery | None, typer.Option(help="all images, those of asked places, or both; default: as is published")
    ] = None,
    flip: Annotated[bool, typer.Option(help="add the embeddings of mirror images")] = False,
    robustness: Annotated[bool, typer.Option(help="also R@1 of turned and cropped queries")] = False,
    rerank: Annotated[bool, typer.Option(help="look at the first five again, by dense descriptors")] = False,
    consistency: Annotated[bool, typer.Option(help="also how alike Grad-CAM maps stay (checkpoints only)")] = False,
    locate: Annotated[bool, typer.Option(help="also metres within the right tile (checkpoints of unifygeo)")] = False,
    json: Annotated[Path | None, typer.Option(help="write the results to this file")] = None,
    report: Annotated[Path | None, typer.Option(help="write the worst failures to this folder, as a page")] = None,
) -> None:
    """Judge a model on a data set, with both galleries that published figures use."""
    from training.catalogue import find_config
    from training.config import load_config
    from training.data.datasets import open_dataset
    from training.evaluation.embed import TorchEmbedder, load_embedder
    from training.evaluation.evaluate import evaluate as run_evaluate
    from training.evaluation.further import further_measures
    from training.evaluation.settings import data_to_judge_on

    embedder = load_embedder(model, load_config([find_config(name) for name in config]) if config else None)
    trained_on = embedder.data if isinstance(embedder, TorchEmbedder) else None
    data, taken_over = data_to_judge_on(dataset, root, options, trained_on)
    if taken_over:
        _show(f"settings that come with the model: {', '.join(taken_over)} (key=value changes them)")
    tasks = open_dataset(data, embedder, seed=0).tasks()
    run_evaluate(
        embedder,
        tasks,
        dataset=dataset,
        gallery=None if gallery is None else gallery.value,
        flip=flip,
        robustness=robustness,
        rerank=rerank,
        further=further_measures(model, tasks, locate=locate, consistency=consistency),
        json_path=json,
        report_dir=report,
    )


@app.command()
@_plain_errors
def export(
    checkpoint: Annotated[Path, typer.Option(help="checkpoint.pt of a run")],
    out: Annotated[Path, typer.Option(help="the .onnx file to write")],
    calibrate: Annotated[bool, typer.Option(help="fit the confidence on held-out textures (needs data.root)")] = True,
    data_root: Annotated[Path | None, typer.Option(help="where the textures are now")] = None,
    local: Annotated[Path | None, typer.Option(help="checkpoint.pt of the run that trained the descriptors")] = None,
) -> None:
    """Write the ONNX file, check it against PyTorch, and store its calibration."""
    from training.export.onnx_file import export_checkpoint

    report = export_checkpoint(checkpoint, out, calibrated=calibrate, data_root=data_root, local=local)
    for line in report:
        _show(line)


@app.command()
@_plain_errors
def calibrate(
    model: Annotated[Path, typer.Option(help="an .onnx file with local descriptors")],
    out: Annotated[Path, typer.Option(help="the .onnx file to write")],
    config: Annotated[str, typer.Option(help="YAML file or name, whose data section says what is held out")],
    circles: Annotated[
        int, typer.Option(min=2, help="searched areas, 30 photos each, twice; fewer are less sure")
    ] = 40,
    photos: Annotated[
        Path | None, typer.Option(help="CSV (file, lat, lon) of real photos to fit on too; needs --gallery")
    ] = None,
    gallery: Annotated[Path | None, typer.Option(help="gallery file with maps of the photos' places")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as data.root=DATA")] = None,
) -> None:
    """Fit what a finished model's matches are worth again, through the service as it is now."""
    from training.catalogue import find_config
    from training.config import load_config
    from training.errors import TrainingError
    from training.export.flown import read_flown
    from training.export.recalibrate import recalibrate

    if (photos is None) != (gallery is None):
        raise TrainingError("--photos needs the --gallery that shows their places, and --gallery the --photos.")
    flown = None if photos is None or gallery is None else read_flown(photos, gallery)
    for line in recalibrate(model, out, load_config(find_config(config), overrides), circles, flown):
        _show(line)


@app.command()
@_plain_errors
def simulate(
    map: Annotated[Path, typer.Option(help="orthophoto, any GeoTIFF")],
    out: Annotated[Path, typer.Option(help="folder for the photos and truth.json")],
    count: Annotated[int, typer.Option(min=1, help="photos to take")] = 20,
    height: Annotated[
        Path | None, typer.Option(help="raster of heights in metres; without it blocks are raised")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the poses and blocks")] = 0,
) -> None:
    """Take drone photos over a map, with the exact truth of each."""
    from training.data.simulator.flights import simulate_flight

    _show(f"{simulate_flight(map, out, count, height_path=height, seed=seed)} photos and truth.json in {out}")


def _show(line: str) -> None:
    """Print a line as it is: paths may hold brackets, and are copied from the screen."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":  # torchrun starts modules
    app()
