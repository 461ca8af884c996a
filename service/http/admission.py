"""Every request passes the door, and its body the limits of size, time and pace. Pure ASGI, as is ``access``."""

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import AerofixError, BodyTooLarge, BodyTooSlow
from service.http.access import ALWAYS
from service.http.door import Door, Stage, Visit
from service.http.problems import problem_response
from service.telemetry import record_step

VISIT = "aerofix.visit"  # where a request's scope has its ``Visit``

# Seconds that a body may take before its pace counts: a mobile link needs a few to come up, and to hand over.
GRACE_S = 10.0


@dataclass(frozen=True)
class BodyLimits:
    """What a body may be.

    Attributes:
        max_bytes: the largest that is read; ``setting`` raises it.
        timeout_s: seconds for a whole body to arrive, or None for as long as it keeps the pace.
        bytes_s: bytes a second that have to come on average once ``grace_s`` are over.
    """

    max_bytes: int
    setting: str
    timeout_s: float | None
    bytes_s: float
    grace_s: float = GRACE_S


class Admission:
    """Send requests away that the door does not let in, if it can before a byte of their body is read.

    A request with a body counts as arriving until the last of it is here, and only then takes a place among those that
    are worked on: slow links, and clients that never send what they announce, keep nobody else out.

    Args:
        door: counts who is here.
        usual: what a body may be.
        uploads: pattern of paths → what a body may be there, for large files that go to the disk as they come.
    """

    def __init__(
        self, app: ASGIApp, door: Door, usual: BodyLimits, uploads: Mapping[str, BodyLimits] = MappingProxyType({})
    ) -> None:
        self.app = app
        self.door = door
        self.usual = usual
        self.uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; only HTTP requests are counted, and watchers never wait."""
        if scope["type"] != "http" or scope["path"] in ALWAYS:
            await self.app(scope, receive, send)
            return
        headers, limits = Headers(scope=scope), self._limits(scope["method"], scope["path"])
        is_upload = limits is not self.usual
        try:
            announced = headers.get("content-length", "")
            if announced.isdigit() and int(announced) > limits.max_bytes:
                raise _too_large(limits, int(announced))
            visit = self.door.admit(Stage.UPLOADING if is_upload else _first_stage(scope["method"], headers))
        except AerofixError as refusal:
            await problem_response(refusal)(scope, receive, send)
            return
        scope[VISIT] = visit
        body = _Body(receive, visit, limits)

        async def send_answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.answer(message["status"])
            await send(message)

        async def send_unless_refused(message: Message) -> None:
            if body.refusal is None:  # the framework answers an error while reading the body with a bare 400
                await send_answer(message)

        try:
            await self.app(scope, body.receive, send_unless_refused)
            if body.refusal is not None:
                await problem_response(body.refusal)(scope, receive, send_answer)
        except AerofixError as error:
            if error is not body.refusal:
                raise
            await problem_response(error)(scope, receive, send_answer)
        finally:
            visit.leave()

    def _limits(self, method: str, path: str) -> BodyLimits:
        found = (limits for pattern, limits in self.uploads.items() if re.fullmatch(pattern, path))
        return next(found, self.usual) if method == "POST" else self.usual


def _first_stage(method: str, headers: Headers) -> Stage:
    """Only the handlers of POST read a body and begin to work when it is complete."""
    return Stage.ARRIVING if method == "POST" and has_body(headers) else Stage.INSIDE


def has_body(headers: Headers) -> bool:
    """Say whether a request announces a body."""
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


class _Body:
    """A body on its way in; ``refusal`` is why no more of it is read."""

    def __init__(self, receive: Receive, visit: Visit, limits: BodyLimits) -> None:
        self.refusal: AerofixError | None = None
        self._receive, self._visit, self._limits = receive, visit, limits
        self._seen, self._waited_s, self._complete = 0, 0.0, False
        self._started = time.perf_counter()

    async def receive(self) -> Message:
        """The next message of the body, or what comes after it: the news that the client has gone.

        Raises:
            BodyTooLarge, BodyTooSlow: the body breaks its limits.
            Overloaded: the house is full now that it is complete, or all bodies together are too large.
        """
        if self._complete:
            return await self._receive()
        try:
            message = await self._piece()
            if message["type"] == "http.request":
                self._take(message)
        except AerofixError as refusal:
            self.refusal = refusal
            raise
        return message

    async def _piece(self) -> Message:
        """Wait for the client; what we need ourselves to store the body does not count against its pace."""
        limits, asked = self._limits, time.perf_counter()
        left_s = limits.grace_s + self._seen / limits.bytes_s - self._waited_s
        if limits.timeout_s is not None:
            left_s = min(left_s, self._started + limits.timeout_s - asked)
        try:
            async with asyncio.timeout(left_s):
                return await self._receive()
        except TimeoutError:
            raise _too_slow(limits, self._seen, time.perf_counter() - self._started) from None
        finally:
            self._waited_s += time.perf_counter() - asked

    def _take(self, message: Message) -> None:
        size = len(message.get("body", b""))
        self._seen += size
        if self._seen > self._limits.max_bytes:
            raise _too_large(self._limits, self._seen)
        self._visit.bring(size)
        if not message.get("more_body", False):
            self._complete = True
            record_step("body", self._started, time.perf_counter())
            self._visit.enter()


def _too_large(limits: BodyLimits, actual: int) -> AerofixError:
    return BodyTooLarge(
        f"the request has more than {limits.max_bytes} bytes; send fewer or smaller files, or raise {limits.setting}.",
        limit=limits.max_bytes,
        actual=actual,
    )


def _too_slow(limits: BodyLimits, seen: int, after_s: float) -> AerofixError:
    in_all = limits.timeout_s is not None and after_s >= limits.timeout_s
    fix = "raise AEROFIX_BODY_TIMEOUT_S" if in_all else "lower AEROFIX_MIN_BODY_BYTES_S"
    return BodyTooSlow(
        f"only {seen} bytes of the request came in {after_s:.0f} s; send smaller files, use a faster link, or {fix}.",
        limit=limits.timeout_s if in_all and limits.timeout_s is not None else limits.bytes_s,
        actual=seen,
    )
