"""The command line's way to a service: over the network, or inside this process when none runs."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from service.cli.client import Client, ServiceError
from service.errors import DeviceUnavailable
from service.settings import Settings

# Seconds. A batch of tiles on a small CPU may take a while; connecting to a service that is there does not.
TIMEOUT = httpx.Timeout(120.0, connect=5.0)

# What protects a service from others, or tells others of it, has no place when it answers one command.
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
async def connect(url: str, settings: Settings | None = None) -> AsyncIterator[Client]:
    """Open a client.

    A running service is shown the key in ``AEROFIX_KEY``, if there is one.

    Args:
        url: base URL of a running service.
        settings: when given, no service is asked: the same application runs in this process with these settings, and
            who may open the file needs no key.

    Raises:
        AerofixError: the application in this process cannot start; see ``create_app``.
        ServiceError: ``url`` is not a URL, or the key cannot be one.
    """
    if settings is None:
        async with _http(url, os.environ.get("AEROFIX_KEY", "")) as http:
            yield Client(http)
        return
    app = load_app(settings.model_copy(update=_ALONE))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://aerofix", timeout=TIMEOUT) as http,
    ):
        yield Client(http)


def _http(url: str, key: str) -> httpx.AsyncClient:
    """A client of the service at ``url`` that shows a key, unless that is empty."""
    if not (key.isascii() and key.isprintable()):
        raise ServiceError("AEROFIX_KEY has characters that no key has; set it to the key alone, without quotes.")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        parsed = httpx.URL(url)
        if parsed.scheme in ("http", "https") and parsed.host and 0 < (parsed.port or 80) < 65536:
            return httpx.AsyncClient(base_url=url, timeout=TIMEOUT, headers=headers)
    except (httpx.InvalidURL, ValueError) as error:  # also the proxies that the environment names
        raise ServiceError(
            f"{url!r} or a proxy in the environment (HTTP_PROXY, ALL_PROXY) is not a URL: {error}; give one such as "
            "http://127.0.0.1:8000."
        ) from error
    raise ServiceError(f"{url!r} is not the URL of a service; give one such as http://127.0.0.1:8000.")
