"""What every request passes: its id, its record and log line, the last resort for errors, and the limits of its body.

Pure ASGI, as is ``access``.
"""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import AerofixError, BodyTooLarge, BodyTooSlow
from service.routes.problems import problem_response
from service.telemetry import RequestRecord, access_log, current_request, record_step, request_id

log = logging.getLogger(__name__)

HEADER = "X-Request-ID"
_ACCEPTABLE_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)  # anything else could forge log lines or headers


class RequestContext:
    """Give each request an id, record and log it, and turn an error that nothing else caught into a problem document.

    A caller's ``X-Request-ID`` is kept when it is plain; the answer carries the id in any case.

    Args:
        observers: told of each request when it is over.
    """

    def __init__(self, app: ASGIApp, observers: Sequence[Callable[[RequestRecord], None]] = ()) -> None:
        self.app = app
        self.observers = observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; only HTTP requests are touched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(HEADER, "")
        id_ = given if _ACCEPTABLE_ID.fullmatch(given) else uuid.uuid4().hex
        record = RequestRecord(id_, scope["method"], time.perf_counter(), headers.get("traceparent", ""))
        tokens = request_id.set(id_), current_request.set(record)
        answering_since = 0.0

        async def send_with_id(message: Message) -> None:
            nonlocal answering_since
            if message["type"] == "http.response.start":
                record.status, answering_since = message["status"], time.perf_counter()
                MutableHeaders(scope=message)[HEADER] = id_
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            if record.status:  # the answer has begun: nothing can be told any more
                raise
            await problem_response(error)(scope, receive, send_with_id)
        finally:
            record.ended, record.route = time.perf_counter(), _route(scope)
            if answering_since:
                record_step("respond", answering_since, record.ended)
            record.open = False
            self._tell(record, scope)
            request_id.reset(tokens[0])
            current_request.reset(tokens[1])

    def _tell(self, record: RequestRecord, scope: Scope) -> None:
        fields: dict[str, Any] = {"method": record.method, "path": scope["path"], "status": record.status}
        fields["duration_ms"] = round((record.ended - record.started) * 1e3, 1)
        access_log.info("request", extra=fields)
        for observe in self.observers:
            observe(record)


def _route(scope: Scope) -> str:
    """The path template that a request was routed to, or would have been had it not been refused before."""
    if (route := scope.get("route")) is not None:
        return str(getattr(route, "path_format", "(none)"))
    path: str = scope["path"]
    return path if "app" in scope and path in scope["app"].openapi()["paths"] else "(none)"


class BodyLimit:
    """Refuse a request whose body is too large, before reading it if its length is announced, or comes too slowly.

    Args:
        max_bytes: the largest body that is read.
        timeout_s: seconds for a whole body to arrive.
        uploads: path → limit and the setting that raises it, for large files; they may take as long as it takes, but
            not longer than ``timeout_s`` between two pieces.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        timeout_s: float,
        uploads: Mapping[str, tuple[int, str]] = MappingProxyType({}),
    ) -> None:
        self.app = app
        self.usual = (max_bytes, "AEROFIX_MAX_BODY_BYTES")
        self.timeout_s = timeout_s
        self.uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; only HTTP requests are touched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_upload = scope["path"] in self.uploads
        limit, setting = self.uploads.get(scope["path"], self.usual)
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            await problem_response(_too_large(limit, setting, int(announced)))(scope, receive, send)
            return
        seen, complete, refusal = 0, False, None
        now, started = asyncio.get_running_loop().time, time.perf_counter()
        until = now() + self.timeout_s

        async def limited_receive() -> Message:
            nonlocal seen, complete, refusal
            if complete:  # what comes now is only the news that the client has gone
                return await receive()
            try:
                async with asyncio.timeout_at(now() + self.timeout_s if is_upload else until):
                    message = await receive()
            except TimeoutError:
                refusal = _too_slow(self.timeout_s, seen)
                raise refusal from None
            seen += len(message.get("body", b""))
            if seen > limit:
                refusal = _too_large(limit, setting, seen)
                raise refusal
            if not message.get("more_body", False):
                complete = True
                record_step("body", started, time.perf_counter())
            return message

        async def send_unless_refused(message: Message) -> None:
            if refusal is None:  # the framework answers an error while reading the body with a bare 400
                await send(message)

        try:
            await self.app(scope, limited_receive, send_unless_refused)
        except (BodyTooLarge, BodyTooSlow) as error:
            log.debug("body refused: %s", error)
        if refusal is not None:
            await problem_response(refusal)(scope, receive, send)


def _too_large(limit: int, setting: str, actual: int) -> AerofixError:
    return BodyTooLarge(
        f"the request has more than {limit} bytes; send fewer or smaller files, or raise {setting}.",
        limit=limit,
        actual=actual,
    )


def _too_slow(timeout_s: float, seen: int) -> AerofixError:
    return BodyTooSlow(
        f"{seen} bytes of the request came, and then none in time; send smaller files, or raise "
        "AEROFIX_BODY_TIMEOUT_S.",
        limit=timeout_s,
        actual=seen,
    )
