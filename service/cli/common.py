"""What the commands share: their options, how they reach a service, how they end."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec

import typer
from pydantic import ValidationError

from aerofix.async_client import AsyncClient
from aerofix.local import in_process
from aerofix.transport import DEFAULT_URL as DEFAULT_URL
from service.cli.terminal import complain
from service.errors import AerofixError
from service.logs import configure_logging
from service.settings import Settings

ERROR, NOT_LOCATED, PORT_IN_USE = 1, 3, 4
"""These are exit codes; 2 is a usage error, as click has it, and 130 an interrupted command, as shells have it."""

EXIT_CODES = (
    "Exit codes: 0 done, and every photo located; 1 an error, which is named; 2 the command was not understood; 3 a "
    "photo was not located, or is ambiguous; 4 the port is in use; 130 interrupted."
)

Url = Annotated[str, typer.Option("--url", envvar="AEROFIX_URL", help="Base URL of a running service.")]
GalleryFile = Annotated[
    Path | None, typer.Option("--gallery", help="Work on this gallery file in this process, without a service.")
]
ModelFile = Annotated[Path | None, typer.Option("--model", help="ONNX model file; with --gallery.")]
DeviceName = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda; with --gallery.")]
P = ParamSpec("P")


def command(
    group: typer.Typer, name: str
) -> Callable[[Callable[P, Coroutine[Any, Any, int] | int]], Callable[P, None]]:
    """Register a function as a command: its result is the exit code, and one that is async runs in a loop.

    What waits for nothing is not async: a loop would keep Ctrl-C from it until it is done. An error of the domain
    becomes one line on stderr and exit code 1.
    """

    def register(function: Callable[P, Coroutine[Any, Any, int] | int]) -> Callable[P, None]:
        @group.command(name)
        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                result = function(*args, **kwargs)
                code = result if isinstance(result, int) else asyncio.run(result)
            except AerofixError as error:
                fail(error.detail)
            raise typer.Exit(code)

        return run

    return register


def fail(reason: str, code: int = ERROR) -> NoReturn:
    """End with one line on stderr and an exit code."""
    complain(reason)
    raise typer.Exit(code)


def make_settings(**given: Any) -> Settings:
    """Read settings from the environment, with those of the command line on top; ends with a line on bad ones."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        got = "" if name.endswith("_keys") else f" (got {first['input']!r})"  # keys belong on no terminal
        fail(f"{name}: {first['msg']}{got}.")


def reach(
    url: str, gallery: Path | None, model: Path | None, device: str | None, must_exist: bool = True
) -> AbstractAsyncContextManager[AsyncClient]:
    """Return a client of the service at ``url``, or of one in this process when a gallery file is named."""
    if gallery is None:
        return AsyncClient(url)
    if must_exist and not gallery.exists():
        fail(f"there is no gallery at {gallery}; make one with `aerofix gallery add SOURCE --gallery {gallery}`.")
    settings = make_settings(gallery=gallery, model=model, device=device)
    log_for_people(settings)
    return in_process(settings)


def log_for_people(settings: Settings) -> None:
    """Log what is wrong, as text unless told otherwise: the command itself says what it does."""
    level = settings.log_level if settings.log_level in ("DEBUG", "ERROR") else "WARNING"
    configure_logging(level, "text" if settings.log_format == "auto" else settings.log_format)
