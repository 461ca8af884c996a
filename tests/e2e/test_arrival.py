"""Clients that announce a body over a real connection and do not send it: they keep nobody else out."""

import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import pytest

from service.settings import Settings

LONG = 60  # seconds; no test waits that long


def announce(url, path):
    """A connection on which only the headers of a request have come."""
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname, address.port), timeout=LONG)
    head = f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 7000000\r\n"
    connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n".encode())
    return connection


@pytest.mark.parametrize(("path", "gauge"), [("/localize", "arriving"), ("/gallery/imports", "uploading")])
def test_bodies_that_do_not_come_keep_nobody_out(serve, tile_request, photo, path, gauge):
    _, url = serve()
    defaults = Settings()
    room = defaults.max_in_flight if path == "/localize" else defaults.max_uploads
    with ExitStack() as open_until_the_end:
        for _ in range(room):
            open_until_the_end.enter_context(announce(url, path))
        expected = f"aerofix_{gauge}_requests {room:.1f}"
        while expected not in httpx.get(f"{url}/metrics").text:
            pass
        assert httpx.get(f"{url}/gallery").status_code == 200
        assert httpx.post(f"{url}/gallery", **tile_request(1)).status_code == 200
        assert httpx.post(f"{url}/localize", files={"image": ("p.jpg", photo(1))}).status_code == 200
        another = httpx.post(f"{url}/gallery/imports", files={"file": ("a.tif", b"no map")})
        assert another.status_code == (415 if path == "/localize" else 429)
    while f"aerofix_{gauge}_requests 0.0" not in httpx.get(f"{url}/metrics").text:
        pass
    assert httpx.post(f"{url}/gallery/imports", files={"file": ("a.tif", b"no map")}).status_code == 415


def test_whose_body_is_arriving_is_answered_after_sigterm(serve, photo):
    process, url = serve()
    request = httpx.Request("POST", f"{url}/localize", files={"image": ("p.jpg", photo(1))})
    body = request.read()
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=LONG) as connection:
        lines = [f"{name}: {value}" for name, value in request.headers.items()]
        connection.sendall("\r\n".join(["POST /localize HTTP/1.1", *lines, "", ""]).encode() + body[:100])
        while "aerofix_arriving_requests 1.0" not in httpx.get(f"{url}/metrics").text:
            pass
        process.terminate()
        while httpx.get(f"{url}/readyz").status_code == 200:
            pass
        connection.sendall(body[100:])
        assert b"/problems/gallery-empty" in b"".join(iter(lambda: connection.recv(4096), b""))
    process.wait(LONG)
