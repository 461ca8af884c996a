"""``aerofix``: serve, fill a gallery, localize photos, look after the installation."""

import asyncio
import io
import json
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec

import numpy as np
import typer
import uvicorn
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress

from service.client import Client, ServiceError, connect, load_app
from service.doctor import examine
from service.errors import AerofixError
from service.gallery.sources import open_source
from service.report import merge, table
from service.security import for_listening
from service.server import DrainingServer
from service.settings import Settings
from service.telemetry import configure_logging

NOT_LOCATED = 3  # exit code; 1 is an error, 2 a usage error
DEFAULT_URL = "http://127.0.0.1:8000"
TILES_PER_REQUEST = 16  # one batch of the encoder
TILE_QUALITY = 92  # JPEG; its noise is far below the differences that an encoder looks at

app = typer.Typer(help="A drone photo in, a GPS position out, with an honest accuracy, offline.", no_args_is_help=True)
gallery_app = typer.Typer(help="The map that photos are looked up in.", no_args_is_help=True)
app.add_typer(gallery_app, name="gallery")
out, err = Console(), Console(stderr=True)

Url = Annotated[str, typer.Option("--url", envvar="AEROFIX_URL", help="Base URL of a running service.")]
GalleryFile = Annotated[
    Path | None, typer.Option("--gallery", help="Work on this gallery file in this process, without a service.")
]
ModelFile = Annotated[Path | None, typer.Option("--model", help="ONNX model file; with --gallery.")]
DeviceName = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda; with --gallery.")]
P = ParamSpec("P")


def command(group: typer.Typer, name: str) -> Callable[[Callable[P, Coroutine[Any, Any, int]]], Callable[P, None]]:
    """Register an async function as a command: it runs in a loop, and its result is the exit code.

    An error of the domain becomes one line on stderr and exit code 1.
    """

    def register(function: Callable[P, Coroutine[Any, Any, int]]) -> Callable[P, None]:
        @group.command(name)
        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                code = asyncio.run(function(*args, **kwargs))
            except AerofixError as error:
                fail(error.detail)
            raise typer.Exit(code)

        return run

    return register


def fail(reason: str) -> NoReturn:
    """End with one line on stderr and exit code 1."""
    err.print(f"[red]error:[/red] {escape(reason)}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def _check_prior(prior: str | None) -> str | None:
    """Three numbers with commas between them; their ranges are the service's to check."""
    if prior is not None:
        try:
            _, _, _ = map(float, prior.split(","))
        except ValueError:
            raise typer.BadParameter("give LAT,LON,RADIUS_M, for example 24.26,120.72,500.") from None
    return prior


def make_settings(**given: Any) -> Settings:
    """Settings from the environment, with what was given on the command line on top; ends with a line on bad ones."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        got = "" if name.endswith("_keys") else f" (got {first['input']!r})"  # keys belong on no terminal
        fail(f"{name}: {first['msg']}{got}.")


def reach(
    url: str, gallery: Path | None, model: Path | None, device: str | None, must_exist: bool = True
) -> AbstractAsyncContextManager[Client]:
    """A client of the service at ``url``, or of one in this process when a gallery file is named."""
    if gallery is None:
        return connect(url)
    if must_exist and not gallery.exists():
        fail(f"there is no gallery at {gallery}; make one with `aerofix gallery add SOURCE --gallery {gallery}`.")
    return connect(url, make_settings(gallery=gallery, model=model, device=device))


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on, default 127.0.0.1; 0.0.0.0 lets other machines in.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Default 8000; 0 takes a free one.")] = None,
    gallery: Annotated[Path | None, typer.Option(help="Gallery file; made if missing.")] = None,
    model: Annotated[Path | None, typer.Option(help="ONNX model file.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
) -> None:
    """Run the HTTP service."""
    settings = make_settings(host=host, port=port, gallery=gallery, model=model, device=device)
    configure_logging(settings.log_level)
    try:
        settings = for_listening(settings)
        service = load_app(settings)
    except AerofixError as error:
        fail(error.detail)
    config = uvicorn.Config(service, host=settings.host, port=settings.port, log_config=None, access_log=False)
    socket = config.bind_socket()
    socket.listen(config.backlog)  # from here on clients may connect; they are served as soon as the loop runs
    address = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{address}:{socket.getsockname()[1]}"
    out.print(f"aerofix on {url} · try it at /docs", highlight=False, soft_wrap=True)
    DrainingServer(config, service.state.door, settings.drain_s).run([socket])


@command(gallery_app, "add")
async def add(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE…", help="GeoTIFF, or an image with --corners.")],
    tile_size_m: Annotated[float, typer.Option(help="Side of a tile on the ground, in metres.")] = 86.0,
    overlap: Annotated[float, typer.Option(min=0.0, max=0.9, help="Share of a tile that its neighbour repeats.")] = 0.5,
    corners: Annotated[Path | None, typer.Option(help="JSON with the four corners of an image.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Start of the tile ids; default: the file's name.")] = None,
    url: Url = DEFAULT_URL,
    gallery: GalleryFile = None,
    model: ModelFile = None,
    device: DeviceName = None,
) -> int:
    """Cut maps into tiles and add them to the gallery."""
    totals: Counter[str] = Counter()
    count = 0
    async with reach(url, gallery, model, device, must_exist=False) as client:
        with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=err) as progress:
            for path in sources:
                with open_source(path, corners) as source:
                    task = progress.add_task(path.name, total=source.count(tile_size_m, overlap))
                    tiles = source.tiles(tile_size_m, overlap, prefix=prefix)
                    while batch := list(islice(tiles, TILES_PER_REQUEST)):
                        entries = [{"id": tile.id, "corners": tile.footprint.corners} for tile in batch]
                        answer = await client.add_tiles([_jpeg(tile.image) for tile in batch], entries)
                        totals.update({key: answer[key] for key in ("added", "updated", "failed")})
                        count = answer["count"]
                        for tile in answer["tiles"]:
                            if tile["status"] == "failed":
                                err.print(f"{tile['id']}: {tile['problem']['detail']}", markup=False)
                        progress.advance(task, len(batch))
                    progress.update(task, total=progress.tasks[task].completed)  # empty map is not cut into tiles
    out.print(
        f"added {totals['added']}, updated {totals['updated']}, failed {totals['failed']}; "
        f"the gallery holds {count} tiles",
        highlight=False,
    )
    return 1 if totals["failed"] else 0


@command(gallery_app, "info")
async def info(
    url: Url = DEFAULT_URL, gallery: GalleryFile = None, model: ModelFile = None, device: DeviceName = None
) -> int:
    """Show count, bounds, generation and model of the gallery."""
    async with reach(url, gallery, model, device) as client:
        state = await client.gallery()
    for key, value in state.items():
        out.print(f"{key}: {json.dumps(value)}", markup=False, highlight=False, soft_wrap=True)
    return 0


@command(app, "localize")
async def localize(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO…", help="JPEG, PNG, WebP or TIFF.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON; a list for several.")] = False,
    as_geojson: Annotated[bool, typer.Option("--geojson", help="Print a GeoJSON FeatureCollection.")] = False,
    prior: Annotated[
        str | None, typer.Option(metavar="LAT,LON,RADIUS_M", callback=_check_prior, help="Search only near here.")
    ] = None,
    heading: Annotated[float | None, typer.Option(help="Compass direction of the top edge, degrees.")] = None,
    no_exif: Annotated[bool, typer.Option("--no-exif", help="Do not read heading and height from EXIF.")] = False,
    top_k: Annotated[int, typer.Option(min=1, max=100, help="Candidates to list.")] = 5,
    url: Url = DEFAULT_URL,
    gallery: GalleryFile = None,
    model: ModelFile = None,
    device: DeviceName = None,
) -> int:
    """Say where photos were taken. Exit code 0: all located; 1: an error; 3: not found or ambiguous."""
    if as_json and as_geojson:
        raise typer.BadParameter("give --json or --geojson, not both.")
    form = {"top_k": str(top_k), "use_exif": str(not no_exif).lower()}
    if prior is not None:
        form |= dict(zip(("prior_lat", "prior_lon", "prior_radius_m"), prior.split(","), strict=True))
    if heading is not None:
        form["heading_deg"] = str(heading)
    accept = "application/geo+json" if as_geojson else "application/json"

    answers: list[dict[str, Any]] = []
    async with reach(url, gallery, model, device) as client:
        for photo in photos:
            try:
                answers.append(await client.localize(photo, form, accept))
            except ServiceError as error:
                answers.append({"status": "error", "problem": error.problem})
                err.print(f"[red]error:[/red] {escape(f'{photo}: {error.detail}')}", highlight=False, soft_wrap=True)
    if as_geojson:
        _print_json(merge(answers, [str(photo) for photo in photos]))
    elif as_json:
        _print_json(answers if len(answers) > 1 else answers[0])
    else:
        out.print(table(answers, [str(photo) for photo in photos]))
    statuses = {answer["status"] for answer in answers}
    return 1 if "error" in statuses else 0 if statuses == {"located"} else NOT_LOCATED


@app.command()
def doctor(
    gallery: Annotated[Path | None, typer.Option(help="Gallery file.")] = None,
    model: Annotated[Path | None, typer.Option(help="ONNX model file.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
) -> None:
    """Check the installation: packages, device, model, gallery."""
    findings = examine(make_settings(gallery=gallery, model=model, device=device))
    for finding in findings:
        mark = "[green]ok[/green]  " if finding.good else "[red]FAIL[/red]"
        out.print(f"{mark} {finding.subject}: {escape(finding.text)}", highlight=False, soft_wrap=True)
    raise typer.Exit(0 if all(finding.good for finding in findings) else 1)


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    out_bytes = io.BytesIO()
    Image.fromarray(image).save(out_bytes, "JPEG", quality=TILE_QUALITY)
    return out_bytes.getvalue()


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    app()
