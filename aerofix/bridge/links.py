"""Where NMEA sentences go: a serial line, a pseudo terminal, TCP clients, UDP."""

import asyncio
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self, cast
from urllib.parse import urlsplit

from service.errors import DeviceUnavailable, SourceUnreadable

HELP = "give a serial device such as /dev/ttyUSB0, pty, tcp://0.0.0.0:10110 or udp://HOST:PORT"


class Link(ABC):
    """Takes bytes; ``name`` is what others connect to."""

    name: str

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Send, or leave out who does not take it: navigation data that is late is worth nothing."""

    @abstractmethod
    def close(self) -> None:
        """Close the link; nothing can be sent any more."""


async def open_link(target: str, baud: int = 4800, on_trouble: Callable[[str], object] = lambda text: None) -> Link:
    """Open where sentences go.

    A serial line that is unplugged is opened again as soon as it is back.

    Args:
        target: a path such as ``/dev/ttyUSB0`` (a serial line), ``pty`` (a new pseudo terminal), ``tcp://ADDRESS:PORT``
            (listens there, for any number of clients) or ``udp://HOST:PORT`` (sends there).
        baud: of a serial line; NMEA 0183 has 4800.
        on_trouble: told once, in a sentence, when a serial line can no longer be written to.

    Raises:
        SourceUnreadable: it is none of these, or cannot be opened.
        DeviceUnavailable: a serial line needs pyserial.
    """
    try:
        if target == "pty":
            return _Pty()
        if target.startswith("/"):
            return _Serial(target, baud, on_trouble)
        parts = urlsplit(target)
        if parts.scheme == "udp" and parts.hostname and parts.port:
            return _Udp(parts.hostname, parts.port)
        if parts.scheme == "tcp" and parts.hostname and parts.port is not None:
            return await _Tcp(parts.hostname).listen(parts.port)
    except (OSError, ValueError) as error:
        raise SourceUnreadable(f"{target} cannot be opened ({error}); {HELP}.") from error
    raise SourceUnreadable(f"{target} is nothing to send to; {HELP}.")


class _Udp(Link):
    def __init__(self, host: str, port: int) -> None:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        self._socket, self._address = socket.socket(family, kind, proto), address
        self.name = f"udp://{host}:{port}"

    def send(self, data: bytes) -> None:
        with suppress(OSError):  # nobody listens there now
            self._socket.sendto(data, self._address)

    def close(self) -> None:
        self._socket.close()


class _Tcp(Link):
    def __init__(self, host: str) -> None:
        self._clients: set[asyncio.WriteTransport] = set()
        self._host = host

    async def listen(self, port: int) -> Self:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Client(self._clients), self._host, port)
        self.name = f"tcp://{self._host}:{self._server.sockets[0].getsockname()[1]}"
        return self

    def send(self, data: bytes) -> None:
        for client in list(self._clients):
            if client.get_write_buffer_size() == 0:  # who is behind gets the next ones
                client.write(data)

    def close(self) -> None:
        self._server.close()
        for client in list(self._clients):
            client.abort()


class _Client(asyncio.Protocol):
    """Keeps who connects among the clients until it goes; what it says is not listened to."""

    def __init__(self, clients: set[asyncio.WriteTransport]) -> None:
        self._clients = clients

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._clients.add(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._clients.discard(self._transport)


class _Pty(Link):
    def __init__(self) -> None:
        import tty

        self._near, self._far = os.openpty()
        tty.setraw(self._far)
        os.set_blocking(self._near, False)
        self.name = os.ttyname(self._far)

    def send(self, data: bytes) -> None:
        with suppress(OSError):  # nobody reads it
            os.write(self._near, data)

    def close(self) -> None:
        os.close(self._near)
        os.close(self._far)


class _Serial(Link):
    def __init__(self, device: str, baud: int, on_trouble: Callable[[str], object]) -> None:
        try:
            import serial
        except ImportError as error:
            raise DeviceUnavailable("a serial line needs pyserial; `pip install aerofix[bridge]`.") from error
        self.name, self._baud, self._on_trouble = device, baud, on_trouble
        self._line: Any = serial.Serial(device, baud, write_timeout=0)
        self._lost = False

    def send(self, data: bytes) -> None:
        import serial

        try:
            if not self._line.is_open:
                self._line = serial.Serial(self.name, self._baud, write_timeout=0)
            self._line.write(data)
            self._lost = False
        except serial.SerialTimeoutException:
            return  # the line is slow; what is late is left out
        except OSError as error:  # which pyserial's own errors are
            if not self._lost:
                self._on_trouble(f"{self.name} cannot be written to ({error}); it is tried again with every fix.")
            self._lost = True
            self._line.close()

    def close(self) -> None:
        self._line.close()
