"""The door: who may come in, how many at a time, and what every answer tells a browser."""

import re
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import AerofixError, Forbidden, NotReady, Overloaded
from service.routes.problems import problem_response
from service.security import Keys

PROBES = frozenset({"/livez", "/readyz"})
# Pages and what they load: they hold nothing secret, and a browser has no way to send a key with them.
OPEN = PROBES | {"/", "/docs", "/openapi.json", "/favicon.ico"}
OPEN_FOLDERS = ("/docs/", "/web/")
# What may be asked during drain and overload: the watchers must see both.
ALWAYS = PROBES | {"/metrics", "/timings"}
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# These ask, and change nothing in the gallery; everything else that is not safe needs a write key.
_QUERIES = re.compile(r"/localize|/tracks(/.*)?")

RETRY_AFTER_S = 1  # one batch or two: what is inside now will mostly be out
TOO_LATE = 504
LOWERED = 0.7  # CUBIC's factor (RFC 9438, section 4.6): a wave of late answers ends in two or three steps


class Door:
    """Counts the requests inside and lets no more in than can be answered in time, or none at all when it is closed.

    How many that is depends on the machine, the model and the photos, so it is learnt: a request that missed its
    deadline lowers the limit by a factor, one that was answered while the house was full raises it by a little. This
    is how TCP shares a link (additive increase, multiplicative decrease: Chiu and Jain 1989), and it keeps an
    overloaded service from working on requests that it will not finish in time.

    Args:
        most: requests inside at a time, at the most.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self.inside = 0
        self.closed = False
        self._lowered_at = float("-inf")

    def refusal(self) -> AerofixError | None:
        """Why nobody may come in now, or None."""
        if self.closed:
            return NotReady("the service is shutting down; ask again in a moment, another will take its place.")
        if self.inside >= int(self.limit):
            return Overloaded(
                f"{self.inside} requests are being served already; ask again in a second.",
                limit=int(self.limit),
                retry_after_s=RETRY_AFTER_S,
            )
        return None

    def learn(self, status: int, entered_at: float) -> None:
        """Adjust the limit to what became of a request that entered at ``entered_at``, a monotonic time in seconds."""
        if status == TOO_LATE and entered_at > self._lowered_at:  # those inside at the last lowering prove nothing new
            self.limit = max(1.0, self.limit * LOWERED)
            self._lowered_at = time.monotonic()
        elif 200 <= status < 300 and self.inside >= self.limit / 2:
            self.limit = min(float(self.most), self.limit + 1 / self.limit)


class Admission:
    """Send requests away that the door does not let in, before a byte of their body is read."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app = app
        self.door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; only HTTP requests are counted, and watchers never wait."""
        if scope["type"] != "http" or scope["path"] in ALWAYS:
            await self.app(scope, receive, send)
            return
        if (refusal := self.door.refusal()) is not None:
            await problem_response(refusal)(scope, receive, send)
            return
        entered_at, status = time.monotonic(), 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.door.inside += 1
        try:
            await self.app(scope, receive, send_and_note)
        finally:
            self.door.learn(status, entered_at)
            self.door.inside -= 1


class Guard:
    """Let only those in who may: by the name that they ask for, the page that they come from, and their key.

    Args:
        keys: who may read and write.
        hosts: names that a request may address; empty takes any.
        origins: origins of web pages that may call, besides the service's own.
    """

    def __init__(self, app: ASGIApp, keys: Keys, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self.app = app
        self.keys = keys
        self.hosts = frozenset(host.lower() for host in hosts)
        self.origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; only HTTP requests are checked."""
        if scope["type"] == "http":
            try:
                self._check(scope["method"], scope["path"], Headers(scope=scope))
            except AerofixError as error:
                await problem_response(error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if path not in PROBES and self.hosts and _name(host) not in self.hosts:  # orchestrators probe an address
            raise Forbidden(f"this service is not called {_name(host)!r}; name it in AEROFIX_ALLOWED_HOSTS if it is.")
        if method not in SAFE and not self._own_page(headers, host):
            raise Forbidden("a web page of another origin may not do this; name it in AEROFIX_CORS_ORIGINS if it may.")
        if path not in OPEN and not path.startswith(OPEN_FOLDERS):
            writes = method not in SAFE and not _QUERIES.fullmatch(path)
            self.keys.check(headers.get("authorization", ""), writes)

    def _own_page(self, headers: Headers, host: str) -> bool:
        """Whether a request comes from no web page, one of ours, or an allowed one.

        Any page may send a form here, also to a loopback address; but browsers then say where it is from.
        """
        origin = headers.get("origin")
        if origin is None or origin in self.origins or headers.get("sec-fetch-site") in ("same-origin", "none"):
            return True
        return urlsplit(origin).netloc == host


def _name(host: str) -> str:
    """A ``Host`` header without its port, lower case, and without the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


# Pages load only what this service has, plus map images that they make themselves.
PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"


class SecurityHeaders:
    """Tell browsers to load nothing from elsewhere, to guess no types and to frame nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; only HTTP answers are touched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                is_page = headers.get("content-type", "").startswith("text/html")
                headers.setdefault("Content-Security-Policy", PAGE_POLICY if is_page else _DATA_POLICY)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["X-Frame-Options"] = "DENY"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        await self.app(scope, receive, send_with_headers)
