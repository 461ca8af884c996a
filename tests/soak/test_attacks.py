"""What one client can send, or not take, over a real socket: it is refused, costs little, and stops nobody else."""

import asyncio
import json
import os
import socket
import time
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from service.app import create_app
from service.http.connection import ConnectionLimits, limited
from service.http.server import DrainingServer, Front
from service.settings import Settings

MB = 2**20
LONG_S = 120  # no test waits that long
# Seconds of the loop's own thread on a processor in one turn of it. Other processes do not count, as they would on a
# clock; what this is to find takes several.
MAX_TURN_S = 1.0
MAX_GROWTH = 64 * MB

pytestmark = [
    pytest.mark.soak,
    # Starlette leaves the last part of a body without an end to the garbage collector, which does close it.
    pytest.mark.filterwarnings("ignore:.*Unclosed file <tempfile.SpooledTemporaryFile:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*_io.FileIO:pytest.PytestUnraisableExceptionWarning"),
]


class Ticker:
    """A task in the service's loop that notes the longest turn."""

    def __init__(self):
        self.longest_s = 0.0

    async def run(self):
        before = time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.thread_time()
            self.longest_s, before = max(self.longest_s, now - before), now


@pytest.fixture
async def service(tmp_path, tiny_model):
    """``async with service(**settings)``: the address of a service in this loop, and the ticker."""

    @asynccontextmanager
    async def run(**overrides):
        model = tiny_model(tmp_path / "m.onnx")
        settings = Settings(model=model, gallery=tmp_path / "g", device="cpu", threads=1, **overrides)
        ready = asyncio.Event()
        front = Front(lambda: create_app(settings), ready.set)
        protocol = limited(ConnectionLimits.of(settings))
        config = uvicorn.Config(front, port=0, http=protocol, ws="none", log_config=None, access_log=False)
        listening = config.bind_socket()
        server = DrainingServer(config, front, 0.0)
        serving = asyncio.create_task(server.serve([listening]))
        ticker = Ticker()
        async with asyncio.timeout(LONG_S):
            await ready.wait()
        ticking = asyncio.create_task(ticker.run())
        await asyncio.sleep(0.1)
        ticker.longest_s = 0.0
        yield listening.getsockname(), ticker
        ticking.cancel()
        server.should_exit = True
        await serving

    return run


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def connect(address, receive_buffer=None):
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(LONG_S)
    connection.connect(address)
    return connection


def send(address, start, piece, times, end=b""):
    """Send without ever building the whole; the status of the answer, 0 if the connection was cut off without one."""
    with connect(address) as connection:
        try:
            connection.sendall(start)
            for _ in range(times):
                connection.sendall(piece)
            connection.sendall(end)
        except OSError:
            pass  # refused meanwhile
        try:
            answer = connection.recv(100)
        except OSError:
            return 0
    return int(answer.split()[1]) if answer else 0


def post(path, headers=b"Transfer-Encoding: chunked\r\n", kind=b"multipart/form-data; boundary=x"):
    return b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\n%s\r\n" % (path, kind, headers)


def length(size):
    return b"Content-Length: %d\r\n" % size


GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
FILE = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n-\r\n'
BEGUN = FILE.removesuffix(b"-\r\n")
SCRIPT = b"GET /web/main.js HTTP/1.1\r\nHost: localhost\r\n"
OPTIONS = b'multipart/form-data;a="\\";' * 2000
TILES = FILE + b'--x\r\nContent-Disposition: form-data; name="tiles"\r\n\r\n'
URL_ENCODED = b"application/x-www-form-urlencoded"
LISTS = b"[" + b"[]," * 1_000_000 + b"[]]"
ATTACKS = {
    "lines": (GET, b"a: b\r\n" * 100_000, 100, b"\r\n", {431}),
    "a header": (GET + b"A: ", b"x" * MB, 60, b"\r\n\r\n", {431}),
    "a URL": (b"GET /", b"x" * MB, 60, b" HTTP/1.1\r\n\r\n", {414}),
    "a Content-Type": (b"POST /tracks HTTP/1.1\r\nContent-Type: ", b"a;" * (MB // 2), 4, b"\r\n\r\n", {431}),
    "options of a Content-Type": (post(b"/tracks", length(1), OPTIONS), b"-", 1, b"", {400}),
    "trailers": (post(b"/tracks") + b"1\r\n-\r\n0\r\n", b"a: b\r\n" * 100_000, 100, b"\r\n", {431}),
    "a chunk's extension": (post(b"/tracks") + b"1;", b"x" * MB, 60, b"", {431}),
    "chunks of a byte": (post(b"/localize"), b"1\r\n-\r\n" * 100_000, 80, b"0\r\n\r\n", {400, 431}),
    "fields": (post(b"/tracks", length(60_000_000), URL_ENCODED), b"a=b&" * 10_000, 1500, b"", {422}),
    "a field": (post(b"/tracks", length(60_000_000), URL_ENCODED), b"%41" * 10_000, 2000, b"", {413}),
    "parts": (post(b"/gallery", length(60_000_000)), FILE * 1000, 800, b"", {422}),
    "a part's header": (post(b"/gallery", length(60_000_000)) + b"--x\r\nA: ", b"x" * MB, 57, b"", {400}),
    "half boundaries": (post(b"/gallery", length(len(BEGUN) + 60 * MB)) + BEGUN, b"\r\n--" * MB, 15, b"", {422}),
    "lists": (post(b"/gallery", length(len(TILES + LISTS) + 9)) + TILES, LISTS, 1, b"\r\n--x--\r\n", {422}),
    "ranges": (SCRIPT + b"Range: bytes=", b"0-," * 20_000, 1, b"0-\r\n\r\n", {200}),
    "media types": (post(b"/localize", length(0) + b"Accept: " + b"a/b;q=0.1," * 6000 + b"\r\n"), b"", 0, b"", {422}),
    "waiting requests": (b"", GET + b"\r\n", 100_000, b"", {0, 200}),
    "a body nobody wants": (post(b"/localize", length(10**12)), b"x" * MB, 200, b"", {413}),
}  # fmt: skip


async def alive(address):
    async with httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}", timeout=LONG_S) as http:
        return (await http.get("/livez")).status_code == 200


@pytest.mark.parametrize(("start", "piece", "times", "end", "statuses"), ATTACKS.values(), ids=ATTACKS)
async def test_too_much_of_anything(service, start, piece, times, end, statuses):
    async with service() as (address, ticker):
        assert await alive(address)
        before = resident_bytes()
        status = await asyncio.to_thread(send, address, start, piece, times, end)
        assert await alive(address)
        assert status in statuses
        assert ticker.longest_s < MAX_TURN_S
        assert resident_bytes() - before < MAX_GROWTH


async def others_are_served(address):
    async with httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}", timeout=LONG_S) as http:
        return [(await http.get("/gallery")).status_code for _ in range(20)]


async def gauge(address, name):
    async with httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}", timeout=LONG_S) as http:
        lines = (await http.get("/metrics")).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))


async def closed(connections):
    """Wait until a service has let go of all connections."""
    async with asyncio.timeout(LONG_S):
        for connection in connections:
            with connection:
                try:
                    while await asyncio.to_thread(connection.recv, MB):
                        pass
                except ConnectionResetError:
                    pass


async def test_headers_that_do_not_end_and_connections_that_say_nothing(service):
    async with service(header_timeout_s=3, max_connections=300) as (address, ticker), asyncio.timeout(LONG_S):
        with ExitStack() as stack:
            held = [stack.enter_context(connect(address)) for _ in range(700)]
            for number, connection in enumerate(held):
                if number % 2:
                    connection.send(GET + b"A: ")
            assert await others_are_served(address) == [200] * 20
            await closed(held)
        assert ticker.longest_s < MAX_TURN_S


@pytest.mark.parametrize("what", ["a page", "tiles", "an image", "a snapshot"])
async def test_answers_that_nobody_takes(service, what, ground, encode_image):
    """As many connections as would fill the house, each with requests in a row and room for a few bytes."""
    count, room = 100, 16
    async with service(max_in_flight=room) as (address, ticker), asyncio.timeout(600):
        async with httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}", timeout=LONG_S) as http:
            entries = [
                {"id": f"t/{i}", "lat": 24 + i / 100, "lon": 120, "gsd_m": 1.5, "properties": {"note": "x" * 16_000}}
                for i in range(64)
            ]
            files = [("image", (f"{i}.png", encode_image(ground(i, 512, 512)))) for i in range(64)]
            assert (await http.post("/gallery", files=files, data={"tiles": json.dumps(entries)})).json()["added"] == 64
            snapshot = (await http.post("/gallery/snapshots")).json()["name"]
        path = {
            "a page": "/docs/assets/swagger-ui-bundle.js",
            "tiles": "/gallery/tiles?limit=1000",
            "an image": "/gallery/tiles/t/1/image",
            "a snapshot": f"/gallery/snapshots/{snapshot}",
        }[what]
        ticker.longest_s = 0.0
        with ExitStack() as stack:
            held = [stack.enter_context(connect(address, receive_buffer=2048)) for _ in range(count)]
            for connection in held:
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 60)
            while await gauge(address, "aerofix_in_flight_requests"):  # noqa: ASYNC110 - asked over the network
                await asyncio.sleep(0.1)
            assert await gauge(address, "aerofix_answering_requests") > room
            assert await others_are_served(address) == [200] * 20
            while await gauge(address, "aerofix_answering_requests"):  # noqa: ASYNC110 - until all are cut off
                await asyncio.sleep(0.5)
        assert ticker.longest_s < MAX_TURN_S
