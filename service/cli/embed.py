"""``aerofix embed`` and ``aerofix gallery load``: maps too large for one process."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from service.cli.common import command, log_for_people, make_settings
from service.cli.gallery import gallery_app
from service.cli.terminal import progress_bar, say, warn
from service.encoder.contract import check_contract
from service.errors import ConfigurationInvalid
from service.ground.gallery import Gallery
from service.importing.options import MapOptions, Scheme
from service.settings import Settings
from service.threads import cores

try:
    from service.bulk.engines import embed_all
    from service.bulk.job import Job
    from service.bulk.load import load as put_together
    from service.bulk.load import whole_job
    from service.bulk.shard import embed_shard
    from service.bulk.table import Marker
except ImportError:
    MISSING = "shards are Parquet files, and pyarrow is not installed: pip install 'aerofix[cpu,bulk]'."
else:
    MISSING = ""

SHARDS_A_WORKER = 4
"""Each worker gets so many shards, so that all end at nearly the same time and the death of one costs little."""


def embed(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A map: whatever aerofix gallery add takes.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the shards; goes on where it was stopped.")],
    shards: Annotated[
        int | None, typer.Option("--of", min=1, help="Into how many shards the map is divided; default: 4 a worker.")
    ] = None,
    shard: Annotated[
        int | None,
        typer.Option("--shard", min=0, help="Make this one alone, counted from 0: for Slurm, Kubernetes, by hand."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Processes at a time; default: one for each core.")
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="local: processes of this machine; ray: workers of a Ray cluster.")
    ] = "local",
    name: Annotated[str | None, typer.Option("--map", help="Name of the map; default: the file's name.")] = None,
    scheme: Annotated[
        Scheme | None, typer.Option(help="How the rows of z/x/y tiles are counted: xyz (from the north) or tms.")
    ] = None,
    model: Annotated[Path | None, typer.Option("--model", help="ONNX model file.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")] = None,
) -> int:
    """Embed a map in shards, on many processes or machines; aerofix gallery load puts them together."""
    if shard is not None and shards is None:
        raise typer.BadParameter("--shard needs --of: into how many the map is divided, the same for all.")
    _check_installed()
    at_once = 1 if shard is not None else workers or cores()
    settings = make_settings(model=model, device=device, threads=max(1, cores() // at_once))
    log_for_people(settings)
    options = MapOptions(map=name, scheme=scheme)
    job = Job(source.absolute(), out.absolute(), shards or SHARDS_A_WORKER * at_once, options, settings)
    made = _one(job, shard, settings) if shard is not None else _all(job, at_once, engine)
    for warning in dict.fromkeys(text for marker in made for text in marker.warnings):
        warn(warning)
    windows, seconds = sum(marker.windows for marker in made), sum(marker.seconds for marker in made)
    pace = windows / max(seconds, 1e-9)
    say(f"{out}: {len(made)} of {job.shards} shards, {windows} windows, {pace:.1f} a second of a process")
    return 0


def _one(job: "Job", shard: int, settings: Settings) -> list["Marker"]:
    with progress_bar() as bar:
        with job.opened(check_contract(settings.model)) as outline:
            task = bar.add_task(job.path(shard).stem, total=sum(len(piece) for _, piece in outline.share(shard)))
        return [embed_shard(job, shard, lambda places: bar.advance(task, places))]


def _all(job: "Job", workers: int, engine: Literal["local", "ray"]) -> list["Marker"]:
    made: list[Marker] = []
    with progress_bar() as bar:
        task = bar.add_task(job.source.name, total=job.shards)

        def whole(marker: Marker) -> None:
            made.append(marker)
            bar.advance(task)

        embed_all(job, workers, engine, whole)
    return made


@command(gallery_app, "load")
def load(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of shards, as aerofix embed wrote it.")],
    gallery: Annotated[
        Path, typer.Option("--gallery", help="Gallery file that gets the map; no service may have it open.")
    ],
    name: Annotated[str | None, typer.Option("--map", help="Name of the map; default: as it was embedded.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of the map of this name.")] = False,
    model: Annotated[
        Path | None, typer.Option("--model", help="ONNX model file that the shards were made with.")
    ] = None,
) -> int:
    """Put the shards of aerofix embed together: a map in a gallery file."""
    _check_installed()
    settings = make_settings(gallery=gallery, model=model)
    log_for_people(settings)
    contract = check_contract(settings.model)
    job = whole_job(folder, contract, name)  # before there is a gallery file
    opened = Gallery.open(
        gallery, contract.identity, contract.embedding_dim, "cpu", contract.image_size, contract.local_shape
    )
    with opened, progress_bar() as bar:
        task = bar.add_task(folder.name, total=None)
        made = put_together(job, opened, replace, lambda done, total: bar.update(task, completed=done, total=total))
        windows = opened.maps.windows(made)
    say(f"{gallery}: map {made.name}, {windows} windows")
    return 0


def _check_installed() -> None:
    if MISSING:
        raise ConfigurationInvalid(MISSING)
