"""``aerofix``: serve, localize photos, look after the installation; ``gallery.py`` and ``maps.py`` have the rest."""

import io
import logging
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text
from typer.main import get_command

from service import __version__
from service.cli.bridge import bridge_app
from service.cli.common import (
    ERROR,
    EXIT_CODES,
    command,
    fail,
    make_settings,
)
from service.cli.copy import copy
from service.cli.doctor import examine
from service.cli.embed import embed
from service.cli.gallery import gallery_app
from service.cli.localize import localize
from service.cli.maps import map_app
from service.cli.serve import serve as run
from service.cli.terminal import out, say
from service.errors import AerofixError
from service.logs import configure_logging
from service.text import visible

app = typer.Typer(epilog=EXIT_CODES, no_args_is_help=True)
app.add_typer(gallery_app, name="gallery")
app.add_typer(bridge_app, name="bridge")
app.add_typer(map_app, name="map")
command(app, "embed")(embed)
command(gallery_app, "copy")(copy)


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


command(app, "localize")(localize)


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


commands = get_command(app)
"""Reading all the options takes a while, so it belongs to loading; see ``__main__``."""


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
        commands()
    except SystemExit as end:
        if not any(thread.daemon for thread in threading.enumerate()):
            raise
        logging.shutdown()
        with suppress(OSError):  # whoever read the output has gone
            sys.stdout.flush()
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))


if __name__ == "__main__":
    main()
