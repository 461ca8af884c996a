"""The command line's way to a service: over the network, or inside this process when none runs."""

import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from fastapi import FastAPI

from service.errors import AerofixError, DeviceUnavailable
from service.settings import Settings

# Seconds. A batch of tiles on a small CPU may take a while; connecting to a service that is there does not.
TIMEOUT = httpx.Timeout(120.0, connect=5.0)


# What protects a service from others, or tells others of it, has no place when it answers one command.
_ALONE = {"read_keys": (), "write_keys": (), "keys_file": None, "allowed_hosts": (), "otlp_endpoint": None}


class ServiceError(AerofixError):
    """The service answered with a problem, or not at all.

    Args:
        detail: see ``AerofixError``.
        problem: the problem document, if there is one.
    """

    def __init__(self, detail: str, problem: dict[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.problem = problem or {"detail": detail}


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


class Client:
    """Calls of the HTTP interface, with problems as exceptions; made by ``connect``."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def localize(self, photo: Path, form: dict[str, str], accept: str = "application/json") -> dict[str, Any]:
        """Localize a photo; the answer is that of ``POST /localize``."""
        files = [("image", (photo.name, _read(photo)))]
        return await self._call("POST", "/localize", files=files, data=form, headers={"Accept": accept})

    async def add_tiles(self, images: Sequence[bytes], entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Add tiles in one request; the answer is that of ``POST /gallery``."""
        files = [("image", (f"{i}.jpg", image, "image/jpeg")) for i, image in enumerate(images)]
        return await self._call("POST", "/gallery", files=files, data={"tiles": json.dumps(entries)})

    async def gallery(self) -> dict[str, Any]:
        """Describe the gallery."""
        return await self._call("GET", "/gallery")

    async def tiles(self, limit: int, cursor: str, bbox: str | None = None) -> dict[str, Any]:
        """One page of the tiles; the answer is that of ``GET /gallery/tiles``."""
        params = {"limit": str(limit), "cursor": cursor} | ({"bbox": bbox} if bbox else {})
        return await self._call("GET", "/gallery/tiles", params=params)

    async def delete_tile(self, tile_id: str) -> dict[str, Any]:
        """Delete a tile."""
        return await self._call("DELETE", f"/gallery/tiles/{quote(tile_id)}")

    async def delete_area(self, bbox: str) -> dict[str, Any]:
        """Delete the tiles whose centre lies in ``w,s,e,n``."""
        return await self._call("DELETE", "/gallery/tiles", params={"bbox": bbox})

    async def snapshot(self, target: Path) -> None:
        """Have a snapshot made, download it, and remove it from the service's folder.

        Raises:
            ServiceError: the service cannot make it, or ``target`` cannot be written.
        """
        made = await self._call("POST", "/gallery/snapshots")
        path = f"/gallery/snapshots/{made['name']}"
        try:
            async with self._http.stream("GET", path) as response:
                with target.open("xb") as file:
                    async for chunk in response.aiter_bytes():
                        file.write(chunk)
                    size = file.tell()
            if size != made["bytes"]:
                raise ServiceError(f"the snapshot {made['name']} arrived incomplete; try again.")
        except (OSError, httpx.HTTPError) as error:
            raise ServiceError(f"{target} cannot be written: {error}.") from error
        finally:
            await self._http.delete(path)

    async def _call(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        try:
            response = await self._http.request(method, path, **kwargs)
        except httpx.ConnectError as error:
            raise ServiceError(
                f"no service answers at {self._http.base_url}; start one with `aerofix serve`, name another with "
                "--url, or work on a file with --gallery FILE."
            ) from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise ServiceError(f"the service at {self._http.base_url} did not answer properly: {reason}.") from error
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise ServiceError(f"what answers at {self._http.base_url} is not an aerofix service; check --url.")
        if response.is_error:
            raise ServiceError(str(body.get("detail", f"the service answered {response.status_code}.")), body)
        return body


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
        ServiceError: ``url`` is not a URL.
    """
    if settings is None:
        if httpx.URL(url).scheme not in ("http", "https"):
            raise ServiceError(f"{url!r} is not the URL of a service; give one such as http://127.0.0.1:8000.")
        key = os.environ.get("AEROFIX_KEY", "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT, headers=headers) as http:
            yield Client(http)
        return
    app = load_app(settings.model_copy(update=_ALONE))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://aerofix", timeout=TIMEOUT) as http,
    ):
        yield Client(http)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ServiceError(f"{path} cannot be read: {error.strerror}.") from error
