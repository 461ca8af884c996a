"""A path below which a proxy shows the service, such as ``/aerofix``."""

from urllib.parse import urlsplit, urlunsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIX = "aerofix.prefix"
"""Under this key a request's scope has the prefix, empty where there is none."""


class Prefix:
    """Take the prefix off the paths of requests, whether or not the proxy did, and put it before those of answers.

    Args:
        root_path: the prefix, without a slash at its end; empty for none.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app = app
        self.root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; only HTTP requests are touched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope[PREFIX] = self.root_path
        rest = scope["path"].removeprefix(self.root_path)
        if rest.startswith("/"):  # /aerofixed is not below /aerofix
            scope["path"] = rest

        async def send_with_prefix(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if self.root_path and (path := _own_path(headers.get("location", ""), scope)):
                    headers["location"] = self.root_path + path
            await send(message)

        await self.app(scope, receive, send_with_prefix)


def _own_path(location: str, scope: Scope) -> str:
    """Path and query of a location on this service, without or with its name, as the framework's redirects have it."""
    found = urlsplit(location)
    ours = found.path.startswith("/") and found.netloc in ("", Headers(scope=scope).get("host", ""))
    return urlunsplit(("", "", *found[2:])) if ours else ""
