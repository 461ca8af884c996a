"""Connections whose peers send too much, too slowly or nonsense, or take no answers, over real sockets."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.http.connection import LINGER_S, MAX_WAITING, ConnectionLimits, check_all, limited

GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
LARGE = 4 * 2**20  # more than the kernel takes for a peer that does not read


class Service:
    """A server with an application that notes what it is asked; ``held`` requests wait, ``/large`` is a long answer."""

    def __init__(self):
        self.state, self.asked, self.begun, self.over = ServerState(), [], asyncio.Event(), asyncio.Event()
        self.open = asyncio.Event()

    async def app(self, scope, receive, send):
        self.asked.append(scope)
        self.begun.set()
        size = LARGE if scope["path"] == "/large" else 2
        if scope["path"] == "/held":
            await self.open.wait()
        if scope["path"] == "/read":
            while (await receive()).get("more_body"):
                pass
        headers = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(size // 65536):
            await send({"type": "http.response.body", "body": b"-" * 65536, "more_body": True})
        await send({"type": "http.response.body", "body": b"-" * (size % 65536)})
        self.over.set()

    def check(self, after_s=0.0):
        """Look at all connections as if so many seconds had gone by."""
        check_all(list(self.state.connections), asyncio.get_running_loop().time() + after_s)

    async def until(self, connections):
        async with asyncio.timeout(60):
            while len(self.state.connections) != connections:  # noqa: ASYNC110 - sockets have no event here
                await asyncio.sleep(0.001)


@pytest.fixture
def serve():
    @asynccontextmanager
    async def run(**limits):
        service = Service()
        protocol = limited(ConnectionLimits(**limits))
        config = uvicorn.Config(service.app, http=protocol, ws="none", log_config=None, interface="asgi3")
        config.load()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: protocol(config, service.state, {}, loop), "127.0.0.1", 0)
        service.address = server.sockets[0].getsockname()
        yield service
        server.close()
        for each in list(service.state.connections):
            each.transport.abort()
        await service.until(0)

    return run


@asynccontextmanager
async def connected(service, sent=b"", receive_buffer=None):
    """A connection to a service, and what it has sent; nothing is read until a test does."""
    raw = socket.socket()
    raw.setblocking(False)
    if receive_buffer is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(raw, service.address)
    reader, writer = await asyncio.open_connection(sock=raw, limit=1024)
    writer.write(sent)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answer(reader):
    """Status, headers and body of the next answer."""
    async with asyncio.timeout(60):
        status = (await reader.readline()).split()[1]
        headers = {}
        while (line := (await reader.readline()).strip()) != b"":
            name, _, value = line.partition(b":")
            headers[name.strip().lower().decode()] = value.strip().decode()
        body = await reader.readexactly(int(headers["content-length"]))
    return int(status), headers, body


async def refused(reader, status):
    """The problem of a refusal, after which the connection ends."""
    found, headers, body = await answer(reader)
    problem = json.loads(body)
    assert (found, problem["status"], headers["content-type"]) == (status, status, "application/problem+json")
    assert headers["connection"] == "close"
    assert await reader.read() == b""
    return problem


CHUNKED = b"POST /read HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n-\r\n"
TOO_MUCH = {
    "lines": (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n", 431, 100, "AEROFIX_MAX_HEADERS"),
    "one value": (b"POST / HTTP/1.1\r\nContent-Type: " + b"x" * 70_000 + b"\r\n\r\n", 431, 65_536, "HEADER_BYTES"),
    "a line without end": (b"GET / HTTP/1.1\r\nA: " + b"x" * 2_000_000, 431, 65_536, "AEROFIX_MAX_HEADER_BYTES"),
    "several lines": (b"GET / HTTP/1.1\r\n" + (b"a: " + b"b" * 1000 + b"\r\n") * 90, 431, 65_536, "HEADER_BYTES"),
    "the URL": (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414, 8192, "form"),
    "a URL without end": (b"GET /" + b"x" * 2_000_000, 414, 8192, "form"),
    "trailers": (CHUNKED + b"0\r\n" + b"a: b\r\n" * 101 + b"\r\n", 431, 100, "AEROFIX_MAX_HEADERS"),
    "a trailer without end": (CHUNKED + b"0\r\nA: " + b"x" * 2_000_000, 431, 65_536, "AEROFIX_MAX_HEADER_BYTES"),
    "chunks of a byte": (CHUNKED + b"1\r\n-\r\n" * 400_000, 431, 65_536, "larger chunks"),
    "a chunk's extension": (CHUNKED + b"1;" + b"x" * 2_000_000, 431, 65_536, "AEROFIX_MAX_HEADER_BYTES"),
}


@pytest.mark.parametrize(("sent", "status", "limit", "fix"), TOO_MUCH.values(), ids=TOO_MUCH)
async def test_too_much_that_is_no_body(serve, sent, status, limit, fix):
    async with serve() as service, connected(service, sent) as (reader, _):
        problem = await refused(reader, status)
        assert problem["limit"] == limit
        assert fix in problem["detail"]


async def test_what_is_refused_is_not_kept_however_much_comes(serve):
    async with serve() as service, connected(service) as (reader, writer):
        await service.until(1)
        (connection,) = service.state.connections
        writer.write(b"GET / HTTP/1.1\r\n")
        for _ in range(60):
            writer.write(b"a: " + b"b" * 2**20 + b"\r\n")
            await writer.drain()
        await refused(reader, 431)
        assert sum(len(value) for _, value in connection.headers) <= 65_536


async def test_headers_within_the_limits_pass_in_whatever_pieces(serve):
    head = b"GET /" + b"x" * 4000 + b" HTTP/1.1\r\n" + (b"a: " + b"b" * 500 + b"\r\n") * 99 + b"\r\n"
    async with serve() as service, connected(service) as (reader, writer):
        for start in range(0, len(head), 997):
            writer.write(head[start : start + 997])
            await writer.drain()
            await asyncio.sleep(0)
        assert (await answer(reader))[0] == 200
        assert len(service.asked[0]["headers"]) == 99


async def test_a_body_is_no_header(serve):
    body = b"-" * 300_000
    head = b"POST /read HTTP/1.1\r\nContent-Length: 300000\r\n"
    async with serve() as service, connected(service, head) as (reader, writer):
        await service.until(1)
        writer.write(b"\r\n" + body + GET)
        assert [(await answer(reader))[0], (await answer(reader))[0]] == [200, 200]


async def test_small_chunks_are_taken_and_any_number_of_larger_ones(serve):
    chunks = b"1\r\n-\r\n" * 5000 + (b"40\r\n" + b"-" * 64 + b"\r\n") * 50_000 + b"0\r\n\r\n"
    async with serve() as service, connected(service, CHUNKED + chunks) as (reader, _):
        assert (await answer(reader))[0] == 200


async def test_trailers_do_not_become_headers(serve):
    async with serve() as service, connected(service, CHUNKED + b"0\r\nAuthorization: x\r\n\r\n") as (reader, _):
        assert (await answer(reader))[0] == 200
        assert [name for name, _ in service.asked[0]["headers"]] == [b"host", b"transfer-encoding"]


async def test_what_is_no_request_is_said_to_be_none(serve):
    for nonsense in (b"\x16\x03\x01\x02\x00\x01\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nA B: c\r\n\r\n"):
        async with serve() as service, connected(service, nonsense) as (reader, _):
            assert (await refused(reader, 400))["type"] == "/problems/bad-request"


@pytest.mark.parametrize(
    ("sent", "more"), [(b"GET / HT", b"T"), (b"GET / HTTP/1.1\r\nA: b\r\n", b"A"), (b"\r\n", b"\r\n")]
)
async def test_headers_have_a_time_and_nothing_prolongs_it(serve, sent, more):
    async with serve(header_s=10.0) as service, connected(service, sent) as (reader, writer):
        await service.until(1)
        service.check(after_s=9.0)
        writer.write(more)
        await writer.drain()
        await asyncio.sleep(0.01)
        service.check(after_s=11.0)
        problem = await refused(reader, 408)
        assert (problem["limit"], "AEROFIX_HEADER_TIMEOUT_S" in problem["detail"]) == (10.0, True)


async def test_who_says_nothing_at_all_is_told_nothing(serve):
    async with serve(header_s=10.0) as service, connected(service) as (reader, _):
        await service.until(1)
        service.check(after_s=11.0)
        assert await reader.read() == b""


async def test_the_next_headers_have_a_time_too_and_an_answer_takes_none_of_it(serve):
    held = b"GET /held HTTP/1.1\r\n\r\n"
    async with serve(header_s=10.0) as service, connected(service, held + b"GET / HTTP/1.1\r\n") as (reader, writer):
        await service.begun.wait()
        service.check(after_s=100.0)
        service.open.set()
        assert (await answer(reader))[0] == 200
        writer.write(b"A: b\r\n")
        await asyncio.sleep(0.01)
        service.check(after_s=9.0)
        service.check(after_s=11.0)
        await refused(reader, 408)


async def test_an_answer_that_is_not_taken_is_cut_off(serve):
    request = b"GET /large HTTP/1.1\r\n\r\n"
    async with serve() as service, connected(service, request * 3, receive_buffer=4096):
        await service.begun.wait()
        await asyncio.sleep(0.05)
        assert not service.over.is_set()
        service.check()
        service.check(after_s=9.0)
        assert len(service.state.connections) == 1
        service.check(after_s=11.0)
        await service.until(0)
        await service.over.wait()


async def test_the_last_bytes_of_an_answer_have_to_be_taken_too(serve):
    """They wait in the connection when the application has long finished."""
    async with serve() as service, connected(service, GET * 10, receive_buffer=4096):
        await service.begun.wait()
        (connection,) = service.state.connections
        connection.transport.get_write_buffer_size = lambda: 100
        service.check()
        service.check(after_s=11.0)
        await service.until(0)


async def test_who_takes_an_answer_at_the_pace_gets_all_of_it(serve):
    request = b"GET /large HTTP/1.1\r\nConnection: close\r\n\r\n"
    async with serve(answer_bytes_s=2**16, grace_s=1.0) as service, connected(service, request, 4096) as (reader, _):
        await service.begun.wait()
        taken, after_s = 0, 0.0
        while data := await reader.read(2**17):
            taken += len(data)
            after_s += len(data) / 2**17  # twice the pace
            service.check(after_s)
        assert taken > LARGE


async def test_requests_that_wait_on_one_connection_are_answered_in_turn_up_to_a_number(serve):
    async with serve() as service, connected(service, GET * (MAX_WAITING + 1)) as (reader, _):
        for _ in range(MAX_WAITING + 1):
            assert (await answer(reader))[0] == 200
    many = b"GET /held HTTP/1.1\r\n\r\n" + GET * (MAX_WAITING + 100)
    async with serve() as service, connected(service, many) as (reader, _):
        await service.begun.wait()
        (connection,) = service.state.connections
        assert len(connection.pipeline) == MAX_WAITING
        service.open.set()
        for _ in range(MAX_WAITING + 1):
            assert (await answer(reader))[0] == 200
        assert await reader.read() == b""


async def test_nonsense_after_a_request_does_not_cost_its_answer(serve):
    async with serve() as service, connected(service, b"GET /held HTTP/1.1\r\n\r\nnonsense\r\n\r\n") as (reader, _):
        await service.begun.wait()
        service.open.set()
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"]) == (200, "close")
        assert await reader.read() == b""


async def test_an_early_answer_arrives_though_the_body_is_still_coming(serve):
    head = b"POST / HTTP/1.1\r\nContent-Length: 10000000\r\n\r\n"
    async with serve() as service, connected(service, head) as (reader, writer):
        assert (await answer(reader))[0] == 200
        writer.write(b"-" * 2_000_000)
        await writer.drain()
        service.check(after_s=LINGER_S - 1)
        assert len(service.state.connections) == 1
        writer.write(b"-" * 8_000_000 + GET)  # whoever sends all of it may go on
        assert (await answer(reader))[0] == 200
    async with serve() as service, connected(service, head) as (reader, writer):
        await answer(reader)
        service.check(after_s=LINGER_S + 1)
        await service.until(0)


async def test_room_is_made_by_closing_who_has_been_idle_longest(serve):
    async with serve(connections=2) as service, connected(service) as (idle, _):
        await service.until(1)
        async with connected(service, b"GET /held HTTP/1.1\r\n\r\n") as (held, _):
            await service.begun.wait()
            async with connected(service, GET) as (reader, _):
                assert (await answer(reader))[0] == 200
                assert await idle.read() == b""
            service.open.set()
            assert (await answer(held))[0] == 200


async def test_who_finds_everybody_at_work_is_told_to_come_again(serve):
    held = b"GET /held HTTP/1.1\r\n\r\n"
    async with serve(connections=1) as service, connected(service, held) as (reader, _):
        await service.begun.wait()
        async with connected(service) as (other, _):
            assert (await refused(other, 429))["limit"] == 1
        service.open.set()
        assert (await answer(reader))[0] == 200


async def test_no_other_protocol_is_spoken(serve):
    upgrade = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with serve() as service, connected(service, upgrade + GET) as (reader, _):
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"]) == (200, "close")
        assert await reader.read() == b""
        assert len(service.asked) == 1
