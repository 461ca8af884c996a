"""Calls of the HTTP interface, for the command line."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx

from service.errors import AerofixError
from service.ground.tile import check_id
from service.text import visible

PATIENCE_S = 120.0
"""Seconds that one call waits, all its tries together, for a service that asks to come back later."""

USUAL_WAIT_S = 1.0
"""Seconds before the next try when the service does not say how many."""

BUSY = (429, 503)


class ServiceError(AerofixError):
    """The service answered with a problem, or not at all.

    Args:
        detail: see ``AerofixError``.
        problem: the problem document, if there is one.
    """

    def __init__(self, detail: str, problem: dict[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.problem = problem or {"detail": detail}


class Client:
    """Calls of the HTTP interface, with problems as exceptions; made by ``connect``.

    Args:
        http: where they go.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def localize(self, photo: Path, form: dict[str, str], accept: str = "application/json") -> dict[str, Any]:
        """Localize a photo; the answer is that of ``POST /localize``."""
        files = [("image", (visible(photo.name), _read(photo)))]
        return await self._call("POST", "/localize", files=files, data=form, headers={"Accept": accept})

    async def start_import(self, file: Path, name: str, form: dict[str, Any]) -> dict[str, Any]:
        """Send a map; the answer is that of ``POST /gallery/imports``.

        When an import of the same file under the same name is under way, as after a crash, it is that one's.
        """
        name = visible(name)
        try:
            with file.open("rb") as data:
                files = {"file": (name, data)}
                return await self._call("POST", "/gallery/imports", data, files=files, data=form)
        except OSError as error:
            raise ServiceError(f"{file} cannot be read: {error.strerror}.") from error
        except ServiceError as error:
            if (import_id := error.problem.get("import_id")) is None:
                raise
            under_way = await self.get_import(str(import_id))
            if under_way["name"] != name:
                raise
            return under_way

    async def get_import(self, import_id: str) -> dict[str, Any]:
        """How far an import is."""
        return await self._call("GET", f"/gallery/imports/{import_id}")

    async def gallery(self) -> dict[str, Any]:
        """Describe the gallery."""
        return await self._call("GET", "/gallery")

    async def tiles(self, limit: int, cursor: str, bbox: str | None = None) -> dict[str, Any]:
        """One page of the tiles; the answer is that of ``GET /gallery/tiles``."""
        params = {"limit": str(limit), "cursor": cursor} | ({"bbox": bbox} if bbox else {})
        return await self._call("GET", "/gallery/tiles", params=params)

    async def delete_tile(self, tile_id: str) -> dict[str, Any]:
        """Delete a tile.

        Raises:
            InvalidParameter: no tile can have this id.
            ServiceError: there is none with this id.
        """
        check_id(tile_id)
        return await self._call("DELETE", f"/gallery/tiles/{_segment(tile_id)}")

    async def delete_area(self, bbox: str) -> dict[str, Any]:
        """Delete the tiles whose centre lies in ``w,s,e,n``."""
        return await self._call("DELETE", "/gallery/tiles", params={"bbox": bbox})

    async def snapshot(self, target: Path) -> None:
        """Have a snapshot made, download it, and remove it from the service's folder.

        Raises:
            ServiceError: the service cannot make it or hand it out, or ``target`` cannot be written; then there is no
                such file.
        """
        made = await self._call("POST", "/gallery/snapshots")
        path = f"/gallery/snapshots/{_segment(made['name'])}"
        try:
            await self._download(path, target, made["bytes"])
        finally:
            with suppress(ServiceError):  # what stays there is listed by GET /gallery/snapshots
                await self._call("DELETE", path)

    async def _download(self, path: str, target: Path, size: int) -> None:
        """Write what is at ``path`` to a new file, whole or not at all."""
        try:
            with _new_file(target) as file:
                async with self._http.stream("GET", path) as response:
                    if response.is_error:
                        await response.aread()
                        self._checked(response)
                    async for chunk in response.aiter_bytes():
                        file.write(chunk)
                if file.tell() != size:
                    raise ServiceError(f"{target} arrived incomplete; try again.")
        except OSError as error:
            raise ServiceError(f"{target} cannot be written: {error.strerror}.") from error
        except httpx.HTTPError as error:
            raise ServiceError(f"{target} arrived incomplete ({_reason(error)}); try again.") from error

    async def _call(self, method: str, path: str, sent: BinaryIO | None = None, **kwargs: Any) -> dict[str, Any]:
        """The answer to a request; while the service asks to come back later, all of it is ``sent`` again."""
        waited_s = 0.0
        while True:
            if sent is not None:
                sent.seek(0)
            response = await self._send(method, path, **kwargs)
            wait_s = _wait_s(response)
            if wait_s is None or waited_s + wait_s > PATIENCE_S:
                return self._checked(response)
            await asyncio.sleep(wait_s)
            waited_s += wait_s

    async def _send(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        try:
            return await self._http.request(method, path, **kwargs)
        except httpx.ConnectError as error:
            raise ServiceError(
                f"no service answers at {self._http.base_url}; start one with `aerofix serve`, name another with "
                "--url, or work on a file with --gallery FILE."
            ) from error
        except httpx.HTTPError as error:
            raise ServiceError(
                f"the service at {self._http.base_url} did not answer properly: {_reason(error)}."
            ) from error

    def _checked(self, response: httpx.Response) -> dict[str, Any]:
        """The JSON object that was answered, nothing where there is nothing to say.

        Raises:
            ServiceError: it is a problem, or not of a service like ours.
        """
        if response.status_code == 204:
            return {}
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise ServiceError(f"what answers at {self._http.base_url} is not an aerofix service; check --url.")
        if response.is_error:
            raise ServiceError(str(body.get("detail", f"the service answered {response.status_code}.")), body)
        return body


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that is there afterwards, unless something goes wrong meanwhile."""
    with path.open("xb") as file:
        try:
            yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _wait_s(response: httpx.Response) -> float | None:
    """Seconds until it is worth asking again; None unless the service is busy or starting."""
    given = response.headers.get("retry-after", "")
    if response.status_code not in BUSY or (response.status_code == 503 and not given):
        return None
    return float(given) if given.isascii() and given.isdecimal() else USUAL_WAIT_S


def _reason(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__


def _segment(name: str) -> str:
    """A name as one part of an address, whatever is in it."""
    return quote(name, safe="")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ServiceError(f"the file cannot be read: {error.strerror}.") from error
