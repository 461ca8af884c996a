"""``aerofix serve``: listen, load, and serve until told to stop."""

import errno
import socket

import uvicorn

from aerofix.local import load_app
from service.cli.common import ERROR, PORT_IN_USE, fail
from service.cli.terminal import say
from service.http.connection import ConnectionLimits, limited
from service.http.security import for_listening
from service.http.server import DrainingServer, Front
from service.settings import Settings

BACKLOG = 2048
"""The system keeps so many connections until they are taken; it is uvicorn's default."""


def serve(settings: Settings) -> None:
    """Listen first, so that probes are answered while the service loads; print the address when it has.

    Raises:
        AerofixError: the service cannot be loaded, or may not listen there; see ``create_app`` and ``for_listening``.
    """
    settings = for_listening(settings)
    listening = _listen(settings.host, settings.port)
    front = Front(lambda: load_app(settings), lambda: _say_where(settings.host, listening))
    config = uvicorn.Config(
        front, http=limited(ConnectionLimits.of(settings)), ws="none", log_config=None, access_log=False
    )
    DrainingServer(config, front, settings.drain_s).run([listening])
    if front.failure is not None:
        raise front.failure


def _listen(host: str, port: int) -> socket.socket:
    """Open the port, or end with a line that says why not, and with a code of its own when somebody else has it."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)  # IPv4 first
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"port {port} of {host} is in use; end what listens there, or name another with --port (0: any)."
            fail(reason, PORT_IN_USE)
        fail(f"cannot listen on port {port} of {host}: {error.strerror}; name others with --host and --port.", ERROR)
    return listening


def _say_where(host: str, listening: socket.socket) -> None:
    address = f"[{host}]" if ":" in host else host
    say(f"aerofix on http://{address}:{listening.getsockname()[1]} · open it in a browser; the API is at /docs")
