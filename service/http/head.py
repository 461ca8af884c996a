"""``HEAD`` wherever ``GET`` is: the framework's routes know only the methods that they name."""

from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _HeadersSent(Exception):
    """Ends an answer whose body nobody wants."""


class Head:
    """Answer ``HEAD`` with the headers of ``GET`` (RFC 9110, section 9.3.2), and do not read files for it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                return
            await send({"type": "http.response.body"})
            raise _HeadersSent

        with suppress(_HeadersSent):
            await self.app({**scope, "method": "GET"}, receive, send_headers)
