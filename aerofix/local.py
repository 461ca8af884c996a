"""The service inside this process, on a gallery file, when none runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from aerofix.async_client import AsyncClient
from aerofix.transport import TIMEOUT
from service.errors import DeviceUnavailable
from service.settings import Settings

# What protects a service from others, or tells others of it, has no place when it answers one process.
_ALONE = {"read_keys": (), "write_keys": (), "keys_file": None, "allowed_hosts": (), "otlp_endpoint": None}


def load_app(settings: Settings) -> FastAPI:
    """Build the application; a client of a running service needs neither onnxruntime nor FAISS, so they load here.

    Raises:
        DeviceUnavailable: one of them is not installed.
        AerofixError: see ``create_app``.
    """
    try:
        from service.app import create_app
    except ImportError as error:
        raise DeviceUnavailable(
            f"{error.name} is not installed; `pip install aerofix[cpu]`, or aerofix[gpu] for CUDA."
        ) from error
    return create_app(settings)


@asynccontextmanager
async def in_process(settings: Settings) -> AsyncIterator[AsyncClient]:
    """Open a client of the same application that ``aerofix serve`` runs, with no network between; it asks for no key.

    Raises:
        AerofixError: the application cannot start; see ``create_app``.
    """
    app = load_app(settings.model_copy(update=_ALONE))
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://aerofix", timeout=TIMEOUT)
    async with app.router.lifespan_context(app), AsyncClient(http=http) as client:
        yield client
