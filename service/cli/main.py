"""``aerofix``: serve, localize photos, look after the installation; ``gallery.py`` and ``maps.py`` have the rest."""

import io
import logging
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.text import Text

from aerofix.options import PhotoOptions
from aerofix.transport import ServiceError
from service import __version__
from service.cli.common import (
    DEFAULT_URL,
    ERROR,
    EXIT_CODES,
    NOT_LOCATED,
    DeviceName,
    GalleryFile,
    ModelFile,
    Url,
    command,
    fail,
    make_settings,
    reach,
)
from service.cli.doctor import examine
from service.cli.gallery import gallery_app
from service.cli.maps import map_app
from service.cli.report import merge, problem_of, table
from service.cli.serve import serve as run
from service.cli.terminal import complain, out, say, say_json
from service.errors import AerofixError
from service.localization.looks import Effort
from service.logs import configure_logging
from service.routes import geojson
from service.text import visible

app = typer.Typer(epilog=EXIT_CODES, no_args_is_help=True)
app.add_typer(gallery_app, name="gallery")
app.add_typer(map_app, name="map")


def _say_version(wanted: bool) -> None:
    if wanted:
        say(f"aerofix {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A drone photo in, a GPS position out, with an honest accuracy, offline."""


class Prior(NamedTuple):
    """A circle to search."""

    lat: float
    lon: float
    radius_m: float


def _parse_prior(prior: str) -> Prior:
    """Three numbers with commas between them; their ranges are the service's to check."""
    try:
        return Prior(*map(float, prior.split(",")))
    except (TypeError, ValueError):
        raise typer.BadParameter("give LAT,LON,RADIUS_M, for example 24.26,120.72,500.") from None


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
    configure_logging(settings.log_level, settings.log_format)
    try:
        run(settings)
    except AerofixError as error:
        fail(error.detail)


@command(app, "localize")
async def localize(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO…", help="JPEG, PNG, WebP or TIFF.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON; a list for several.")] = False,
    as_geojson: Annotated[bool, typer.Option("--geojson", help="Print a GeoJSON FeatureCollection.")] = False,
    prior: Annotated[
        Prior | None,
        typer.Option(metavar="LAT,LON,RADIUS_M", parser=_parse_prior, help="Search only near here."),
    ] = None,
    heading: Annotated[float | None, typer.Option(help="Compass direction of the top edge, degrees.")] = None,
    pitch: Annotated[float | None, typer.Option(help="-90 looks straight down, 0 at the horizon, degrees.")] = None,
    roll: Annotated[float | None, typer.Option(help="Clockwise, seen from behind the camera, degrees.")] = None,
    altitude: Annotated[float | None, typer.Option(help="Height above ground, metres.")] = None,
    hfov: Annotated[float | None, typer.Option(help="Horizontal field of view, degrees.")] = None,
    effort: Annotated[Effort, typer.Option(help="How many looks are taken while the answer is unsure.")] = "normal",
    no_exif: Annotated[bool, typer.Option("--no-exif", help="Read no attitude, height and lens from EXIF.")] = False,
    top_k: Annotated[int, typer.Option(min=1, max=100, help="Candidates to list.")] = 5,
    url: Url = DEFAULT_URL,
    gallery: GalleryFile = None,
    model: ModelFile = None,
    device: DeviceName = None,
) -> int:
    """Say where photos were taken. Exit code 0: all located; 1: an error; 3: not found or ambiguous."""
    if as_json and as_geojson:
        raise typer.BadParameter("give --json or --geojson, not both.")
    options = PhotoOptions(
        prior=prior,
        heading_deg=heading,
        altitude_m=altitude,
        hfov_deg=hfov,
        pitch_deg=pitch,
        roll_deg=roll,
        use_exif=not no_exif,
        effort=effort,
        top_k=top_k,
    )
    answers: list[dict[str, Any]] = []
    async with reach(url, gallery, model, device) as client:
        for photo in photos:
            try:
                answer = await client.localize(photo, **options)
                answers.append(geojson.collection([answer]) if as_geojson else answer.model_dump())
            except ServiceError as error:
                answers.append({"status": "error", "problem": problem_of(error)})
                complain(f"{photo}: {error.detail}")
    if as_geojson:
        say_json(merge(answers, [str(photo) for photo in photos]))
    elif as_json:
        say_json(answers if len(answers) > 1 else answers[0])
    else:
        out.print(table(answers, [str(photo) for photo in photos]))
    statuses = {answer["status"] for answer in answers}
    return ERROR if "error" in statuses else 0 if statuses == {"located"} else NOT_LOCATED


@app.command()
def doctor(
    gallery: Annotated[Path | None, typer.Option(help="Gallery file.")] = None,
    model: Annotated[Path | None, typer.Option(help="ONNX model file.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
) -> None:
    """Check the installation: packages, device, model, gallery."""
    findings = examine(make_settings(gallery=gallery, model=model, device=device))
    for finding in findings:
        mark = ("ok  ", "green") if finding.good else ("FAIL", "red")
        out.print(Text.assemble(mark, visible(f" {finding.subject}: {finding.text}")), soft_wrap=True)
    raise typer.Exit(0 if all(finding.good for finding in findings) else ERROR)


def main() -> None:
    """Run ``aerofix`` and end the process with the command's exit code.

    A thread that is inside the model when the interpreter ends under it takes the process with it (``terminate called
    without an active exception``). Such threads are daemons, for they may hang; with one left, the interpreter is not
    taken down piece by piece.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 lacks characters
    try:
        app()
    except SystemExit as end:
        if not any(thread.daemon for thread in threading.enumerate()):
            raise
        logging.shutdown()
        with suppress(OSError):  # whoever read the output has gone
            sys.stdout.flush()
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))


if __name__ == "__main__":
    main()
