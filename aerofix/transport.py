"""Requests and answers: where they go, waiting for a busy service, and problems as exceptions."""

import os
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

import anyio
import httpx
from pydantic import BaseModel, ValidationError

from service.errors import AerofixError
from service.http.problems import Problem

DEFAULT_URL = "http://127.0.0.1:8000"

TIMEOUT = httpx.Timeout(120.0, connect=5.0)
"""Reading and writing may take so many seconds, for a batch of tiles on a small CPU takes a while; connecting to a
service that is there does not."""

PATIENCE_S = 120.0
"""One call waits so many seconds, all its tries together, for a service that asks it to come back later."""

USUAL_WAIT_S = 1.0
"""The next try comes after so many seconds when the service does not say when."""

BUSY = (429, 503)
"""A service that answers with one of these statuses may soon take the request; 503 only counts with ``Retry-After``."""

Answer = TypeVar("Answer", bound=BaseModel)


class ServiceError(AerofixError):
    """The service answered with a problem, or not at all.

    Args:
        detail: see ``AerofixError``.
        problem: the problem document, if there is one.
    """

    def __init__(self, detail: str, problem: Problem | None = None) -> None:
        super().__init__(detail)
        self.problem = problem

    @property
    def kind(self) -> str | None:
        """The last part of the problem's type, such as ``map-exists``; None when no service answered."""
        return None if self.problem is None else self.problem.type.rpartition("/")[2]


class FileUnreadable(AerofixError):
    """A photo on this machine cannot be read."""


def open_http(url: str | None = None, key: str | None = None) -> httpx.AsyncClient:
    """Open a connection to the service at ``url`` that shows a key.

    Args:
        url: base URL; default ``AEROFIX_URL``, or port 8000 of this machine.
        key: default ``AEROFIX_KEY``; no key is shown when it is empty.

    Raises:
        ServiceError: ``url`` is not a URL, or the key cannot be one.
    """
    url = url or os.environ.get("AEROFIX_URL") or DEFAULT_URL
    key = os.environ.get("AEROFIX_KEY", "") if key is None else key
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


class Transport:
    """Sends requests, again while the service is busy, and reads the answers.

    Args:
        http: where they go.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.patience_s = PATIENCE_S

    async def call(
        self, kind: type[Answer], method: str, path: str, sent: BinaryIO | None = None, **request: Any
    ) -> Answer:
        """Ask, and read the answer; while the service asks to come back later, all of it is ``sent`` again.

        Raises:
            ServiceError: the answer is a problem, or there is none.
        """
        response = await self._send(method, path, sent, **request)
        self.check(response)
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise self._stranger(response) from error

    async def send(self, method: str, path: str) -> None:
        """Send a request whose answer says nothing but whether it was followed; see ``call``."""
        self.check(await self._send(method, path, None))

    def check(self, response: httpx.Response) -> None:
        """Raise what an answer says is wrong.

        Raises:
            ServiceError: it is a problem, or not of a service like ours.
        """
        if not response.is_error:
            return
        try:
            problem = Problem.model_validate_json(response.content)
        except ValidationError as error:
            raise self._stranger(response) from error
        raise ServiceError(problem.detail, problem)

    async def _send(self, method: str, path: str, sent: BinaryIO | None, **request: Any) -> httpx.Response:
        waited_s = 0.0
        while True:
            if sent is not None:
                sent.seek(0)
            response = await self._try(method, path, **request)
            wait_s = _wait_s(response)
            if wait_s is None or waited_s + wait_s > self.patience_s:
                return response
            await anyio.sleep(wait_s)
            waited_s += wait_s

    async def _try(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            return await self.http.request(method, path, **request)
        except httpx.ConnectError as error:
            raise ServiceError(
                f"no service answers at {self.http.base_url}; start one with `aerofix serve`, name another (--url), "
                "or work on a gallery file without one (--gallery FILE; in Python: aerofix.Localizer)."
            ) from error
        except httpx.HTTPError as error:
            raise ServiceError(
                f"the service at {self.http.base_url} did not answer properly: {reason(error)}."
            ) from error

    def _stranger(self, response: httpx.Response) -> ServiceError:
        return ServiceError(
            f"what answers at {self.http.base_url} with status {response.status_code} is not an aerofix service of "
            "this version; check the URL."
        )


def reason(error: httpx.HTTPError) -> str:
    """Say what went wrong on the way, in words."""
    return str(error) or type(error).__name__


def segment(name: str) -> str:
    """Make a name one part of an address, whatever is in it."""
    return quote(name, safe="")


def _wait_s(response: httpx.Response) -> float | None:
    """Seconds until it is worth asking again; None unless the service is busy or starting."""
    given = response.headers.get("retry-after", "")
    if response.status_code not in BUSY or (response.status_code == 503 and not given):
        return None
    return float(given) if given.isascii() and given.isdecimal() else USUAL_WAIT_S
