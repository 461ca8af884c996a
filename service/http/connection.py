"""One connection: what may come before a request is known, and how slowly anything may come or be taken.

uvicorn's fast protocol, on httptools, sets no limits of its own. h11 has some, but takes a chunked body apart in Python
and so stops the loop for most of a second where the chunks are small.
"""

import asyncio
import logging
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import AerofixError, BodyMalformed, BodyTooSlow, HeadersTooLarge, Overloaded, UrlTooLong
from service.http.problems import problem_response

if TYPE_CHECKING:
    from service.settings import Settings

log = logging.getLogger(__name__)

LINGER_S = 30.0
"""Once a request is answered before its end, the rest is read and thrown away for so many seconds: a socket that is
closed on unread data takes the answer back. It is nginx's default (lingering_time)."""

MAX_WAITING = 64
"""So many requests may wait on one connection for the answer to the one before (pipelining); only load generators send
that many."""

UNSENT_BYTES = 32_768
"""The kernel keeps at most this for a peer that does not take it, beyond what is under way. By itself it keeps
megabytes, and for minutes nobody could tell who takes them slowly from who takes none."""


@dataclass(frozen=True)
class ConnectionLimits:
    """What a connection may take.

    Attributes:
        header_bytes: of URL and headers together; also of trailers and of all else that is no body, which may have as
            much again as the body has, for the sizes of its chunks.
        headers: lines of headers.
        url_bytes: of the path with its query.
        header_s: seconds until the headers are complete.
        answer_bytes_s: bytes a second of answers that the peer has to take on average once ``grace_s`` are over.
        connections: open at a time.
    """

    header_bytes: int = 65_536
    headers: int = 100
    url_bytes: int = 8192
    header_s: float = 10.0
    answer_bytes_s: float = 8000.0
    grace_s: float = 10.0
    connections: int = 512

    @classmethod
    def of(cls, settings: "Settings") -> "ConnectionLimits":
        """Return the limits that the settings name."""
        return cls(
            settings.max_header_bytes,
            settings.max_headers,
            settings.max_url_bytes,
            settings.header_timeout_s,
            settings.min_answer_bytes_s,
            connections=settings.max_connections,
        )


class Connection(HttpToolsProtocol):
    """A connection within limits; ``check`` has to be called about once a second."""

    limits = ConnectionLimits()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count what is written, begin to wait for headers, and make room if too many are connected."""
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._counted = _Counted(cast(asyncio.Transport, transport))
        super().connection_made(cast(asyncio.Transport, self._counted))
        self._waits_since: float | None = self.loop.time()  # for headers
        self._lingers_since: float | None = None
        self._owes_since: float | None = None  # answers that are written and not taken
        self._taken_before = 0
        self._refusal: AerofixError | None = None
        self._in_body = self._refused = False
        self._header_bytes = self._headers = self._messages = 0
        self._body_bytes = self._other_bytes = 0  # of this message, but for those that came with the end of another
        if len(self.connections) > self.limits.connections:
            self._make_room()

    @property
    def busy(self) -> bool:
        """Whether a request is being read or answered."""
        return self._in_body or (self.cycle is not None and not self.cycle.response_complete)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, unless nothing more is wanted."""
        if self._refused:
            return
        messages, body_bytes = self._messages, self._body_bytes
        super().data_received(data)
        if self._messages != messages:  # headers or a message were complete
            self._other_bytes = 0
        else:
            self._other_bytes += len(data) - (self._body_bytes - body_bytes)
        if self._other_bytes > self.limits.header_bytes + self._body_bytes:
            self._refuse(self._headers_too_large(self._other_bytes))
        if self._waits_since is None and not self.busy:
            self._waits_since = self.loop.time()

    # what the parser tells

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._header_bytes = self._headers = 0

    def on_url(self, url: bytes) -> None:
        """Take a piece of the URL."""
        super().on_url(url)
        if len(self.url) > (limit := self.limits.url_bytes):
            self._give_up(UrlTooLong(f"the URL has more than {limit} bytes; send long values in a form.", limit=limit))
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are dropped, for among the headers they would look like what was checked before."""
        self._headers += 1
        if self._headers > (limit := self.limits.headers):
            fix = f"the request has more than {limit} headers; send fewer, or raise AEROFIX_MAX_HEADERS."
            self._give_up(HeadersTooLarge(fix, limit=limit))
        self._count(len(name) + len(value) + 4)  # colon, space and line end
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer, or let the request wait for the one before."""
        if len(self.pipeline) >= MAX_WAITING:
            self._give_up(Overloaded("too many requests wait on this connection.", limit=MAX_WAITING, retry_after_s=1))
        super().on_headers_complete()
        if self.parser.should_upgrade():  # no other protocol is spoken here, and the parser skips what comes next
            self._refused, self.cycle.keep_alive = True, False
        self._waits_since, self._in_body = None, True
        self._messages += 1
        self._body_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        super().on_body(body)
        self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        """Note that the next byte belongs to another request."""
        super().on_message_complete()
        self._in_body, self._lingers_since = False, None
        self._messages += 1
        self._body_bytes = 0

    def on_response_complete(self) -> None:
        """Read on: the rest of a request that was answered early, or the next; not yet, if enough wait already."""
        super().on_response_complete()
        if self.pipeline:
            self.flow.pause_reading()
        elif self._in_body and self.cycle.response_complete:
            self._lingers_since = self.loop.time()

    def send_400_response(self, msg: str) -> None:
        """Say why the parser gave up."""
        malformed = BodyMalformed("this is no request of HTTP/1.1 (RFC 9112); check what the client sends.")
        self._refuse(self._refusal or malformed)

    # limits of time

    def check(self, now: float) -> None:
        """Close the connection if its peer is too slow.

        Args:
            now: time of the event loop, seconds.
        """
        limits = self.limits
        if self._lingers_since is not None and now - self._lingers_since > LINGER_S:
            self.transport.abort()
        elif self._waits_since is not None and now - self._waits_since > limits.header_s and not self.busy:
            self._refuse_late_headers()
        self._check_pace(now)

    def _check_pace(self, now: float) -> None:
        untaken = self.transport.get_write_buffer_size()
        taken = self._counted.written - untaken
        if not untaken:
            self._owes_since = None
        elif self._owes_since is None:
            self._owes_since, self._taken_before = now, taken
        elif now - self._owes_since > self.limits.grace_s + (taken - self._taken_before) / self.limits.answer_bytes_s:
            log.info("an answer was not taken", extra={"client": self.client, "untaken_bytes": untaken})
            self.transport.abort()  # closing would wait for the peer

    # refusals

    def _make_room(self) -> None:
        """Close the connection that has waited longest for a request, or this one if all are at work."""
        others = [each for each in _ours(self.connections) if each is not self and not each.busy]
        if others:
            min(others, key=lambda each: each._waits_since or 0.0).transport.abort()
            return
        limit = self.limits.connections
        self._refuse(Overloaded("all connections are in use; ask again in a second.", limit=limit, retry_after_s=1))

    def _refuse_late_headers(self) -> None:
        if not self._other_bytes:  # nothing was asked
            self.transport.close()
            return
        limit, fix = self.limits.header_s, "use a faster link, or raise AEROFIX_HEADER_TIMEOUT_S"
        self._refuse(BodyTooSlow(f"the headers were not complete after {limit:.0f} s; {fix}.", limit=limit))

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self.limits.header_bytes:
            self._give_up(self._headers_too_large(self._header_bytes))

    def _headers_too_large(self, actual: int) -> HeadersTooLarge:
        limit = self.limits.header_bytes
        return HeadersTooLarge(
            f"the request's headers, trailers or sizes of chunks have more than {limit} bytes; send less or "
            "larger chunks, or raise AEROFIX_MAX_HEADER_BYTES.",
            limit=limit,
            actual=actual,
        )

    def _give_up(self, refusal: AerofixError) -> NoReturn:
        """Stop the parser, which then asks for ``send_400_response``."""
        self._refusal = refusal
        raise refusal

    def _refuse(self, refusal: AerofixError) -> None:
        """Answer what cannot be a request, and close; after the answers to those before, if there are any."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self.pipeline or cycle.response_started or not self._in_body:
                cycle.keep_alive = False
                return
            cycle.disconnected = True  # it waits for a body that is refused here
            cycle.message_event.set()
        answer = problem_response(refusal)
        status = HTTPStatus(answer.status_code)
        lines = [f"HTTP/1.1 {status} {status.phrase}".encode()]
        lines += [name + b": " + value for name, value in (*answer.raw_headers, *_LAST)]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(answer.body)]))
        self.transport.write_eof()
        self._lingers_since = self.loop.time()


_LAST = ((b"connection", b"close"), (b"x-content-type-options", b"nosniff"))


class _Counted:
    """A transport that counts the bytes written to it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.written = 0

    def write(self, data: bytes) -> None:
        self.written += len(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _ours(connections: Iterable[object]) -> list[Connection]:
    return [each for each in connections if isinstance(each, Connection)]


def check_all(connections: Iterable[object], now: float) -> None:
    """Let each connection of a server look whether its peer is too slow; see ``Connection.check``."""
    for each in _ours(connections):
        each.check(now)


def limited(limits: ConnectionLimits) -> type[Connection]:
    """Return the protocol of connections with these limits."""
    return type("LimitedConnection", (Connection,), {"limits": limits})
