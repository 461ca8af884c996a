"""Who may come in, and what every answer tells a browser; ``door`` and ``admission`` say how many."""

import re
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import AerofixError, Forbidden
from service.http.problems import problem_response
from service.http.security import Keys

PROBES = frozenset({"/livez", "/readyz"})
# Pages and what they load: they hold nothing secret, and a browser has no way to send a key with them.
OPEN = PROBES | {"/", "/docs", "/openapi.json", "/favicon.ico"}
OPEN_FOLDERS = ("/docs/", "/problems/", "/web/")
# Where a request's scope has the hash of the key that it showed, empty where none is needed.
OWNER = "aerofix.owner"
# What may be asked during drain and overload: the watchers must see both.
ALWAYS = PROBES | {"/metrics", "/timings"}
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# These ask, and change nothing in the gallery; everything else that is not safe needs a write key.
_QUERIES = re.compile(r"/localize|/tracks(/.*)?")


class Guard:
    """Let only those in who may: by the name that they ask for, the page that they come from, and their key.

    Args:
        keys: who may read and write.
        hosts: names that a request may address, each with or without a port; ``*`` or none at all takes any.
        origins: origins of web pages that may call, besides the service's own.
    """

    def __init__(self, app: ASGIApp, keys: Keys, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self.app = app
        self.keys = keys
        self.hosts = frozenset() if "*" in hosts else frozenset(map(_name_and_port, hosts))
        self.origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; only HTTP requests are checked."""
        if scope["type"] == "http":
            try:
                scope[OWNER] = self._check(scope["method"], scope["path"], Headers(scope=scope))
            except AerofixError as error:
                await problem_response(error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, method: str, path: str, headers: Headers) -> str:
        host = headers.get("host", "")
        name, port = _name_and_port(host)
        known = not self.hosts or (name, "") in self.hosts or (name, port) in self.hosts
        if path not in PROBES and not known:  # orchestrators probe an address
            raise Forbidden(f"this service is not called {host!r:.200}; name it in AEROFIX_ALLOWED_HOSTS if it is.")
        if method not in SAFE and not self._own_page(headers, host):
            raise Forbidden("a web page of another origin may not do this; name it in AEROFIX_CORS_ORIGINS if it may.")
        if path not in OPEN and not path.startswith(OPEN_FOLDERS):
            writes = method not in SAFE and not _QUERIES.fullmatch(path)
            return self.keys.check(headers.get("authorization", ""), writes)
        return ""

    def _own_page(self, headers: Headers, host: str) -> bool:
        """Whether a request comes from no web page, one of ours, or an allowed one.

        Any page may send a form here, also to a loopback address; but browsers then say where it is from.
        """
        origin = headers.get("origin")
        if origin is None or origin in self.origins or headers.get("sec-fetch-site") in ("same-origin", "none"):
            return True
        return bool(host) and origin.partition("://")[2].lower() == host.lower()  # an origin has no path


def _name_and_port(host: str) -> tuple[str, str]:
    """A host in lower case and without the brackets of an IPv6 address, and its port, empty if it has none."""
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        return name.lower(), port.removeprefix(":")
    if host.count(":") > 1:  # an IPv6 address, as settings write it
        return host.lower(), ""
    name, _, port = host.partition(":")
    return name.lower(), port


# Pages load only what this service has, plus pictures and videos that the user gives them.
PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
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
                headers["Cross-Origin-Resource-Policy"] = "same-origin"  # no page of another origin shows our images
            await send(message)

        await self.app(scope, receive, send_with_headers)
