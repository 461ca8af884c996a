"""What every request passes: its id, its log line, the last resort for errors, and the byte limit. Pure ASGI."""

import logging
import re
import time
import uuid
from collections.abc import Mapping
from types import MappingProxyType

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooLarge
from service.routes.problems import problem_response
from service.telemetry import access_log, request_id

log = logging.getLogger(__name__)

HEADER = "X-Request-ID"
_ACCEPTABLE_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)  # anything else could forge log lines or headers


class RequestContext:
    """Give each request an id, log it, and turn an error that nothing else caught into a problem document.

    A caller's ``X-Request-ID`` is kept when it is plain; the answer carries the id in any case.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; only HTTP requests are touched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        token = request_id.set(given if _ACCEPTABLE_ID.fullmatch(given) else uuid.uuid4().hex)
        started, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id.get() or ""
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            if status:  # the answer has begun: nothing can be told any more
                raise
            await problem_response(error)(scope, receive, send_with_id)
        finally:
            fields = {"method": scope["method"], "path": scope["path"], "status": status}
            fields["duration_ms"] = round((time.perf_counter() - started) * 1e3, 1)
            access_log.info("request", extra=fields)
            request_id.reset(token)


class BodyLimit:
    """Refuse a request whose body is over a number of bytes, before reading it if its length is announced.

    Args:
        max_bytes: the largest body that is read.
        other: path → limit and the setting that raises it, where another one holds.
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int, other: Mapping[str, tuple[int, str]] = MappingProxyType({})
    ) -> None:
        self.app = app
        self.usual = (max_bytes, "AEROFIX_MAX_BODY_BYTES")
        self.other = other

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; only HTTP requests are touched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit, setting = self.other.get(scope["path"], self.usual)
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            await problem_response(_too_large(limit, setting, int(announced)))(scope, receive, send)
            return
        seen = 0

        async def counting_receive() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _too_large(limit, setting, seen)
            return message

        async def send_unless_exceeded(message: Message) -> None:
            if seen <= limit:  # the framework answers an error while reading the body with a bare 400
                await send(message)

        try:
            await self.app(scope, counting_receive, send_unless_exceeded)
        except BodyTooLarge:
            log.debug("body over the limit")
        if seen > limit:
            await problem_response(_too_large(limit, setting, seen))(scope, receive, send)


def _too_large(limit: int, setting: str, actual: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the request has more than {limit} bytes; send fewer or smaller files, or raise {setting}.",
        limit=limit,
        actual=actual,
    )
