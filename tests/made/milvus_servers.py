"""Real Milvus servers for tests, from packages in an environment of their own beside the one that runs the tests.

``milvus-lite`` depends on a build of FAISS that an aerofix with a GPU cannot have, and the genuine server of the
package ``milvus`` listens on every address: it runs in a network of its own, which one address of the loopback
interface leads into.
"""

import asyncio
import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

BIN = Path(sys.prefix).parent / ".venv-milvus" / "bin"
MISSING = "no {} in {}; `make test` installs it where a package index has it"
INNER_PORT = 19530


@contextmanager
def lite(folder, port=0):
    """A ``milvus-lite server`` on the loopback interface; gives its process and its address."""
    pytest.importorskip("pymilvus")
    program = _program("milvus-lite")
    port = port or _free_port()
    command = [program, "server", "--data-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with _running(command, f"http://127.0.0.1:{port}") as found:
        yield found


@contextmanager
def genuine(folder, port=0):
    """A Milvus 2.3.5, standalone; gives its process and its address."""
    pytest.importorskip("pymilvus")
    program = _program("milvus-server")
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("this machine gives no network of its own, and the server would listen on every address")
    port = port or _free_port()
    command = [sys.executable, __file__, str(port), program, "--data", str(folder)]
    with _running(command, f"http://127.0.0.1:{port}") as found:
        yield found


def _program(name):
    program = BIN / name
    if not program.exists():
        pytest.skip(MISSING.format(name, BIN))
    return str(program)


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@contextmanager
def _running(command, uri):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait_for(process, uri)
        yield process, uri
    finally:
        with suppress(ProcessLookupError):  # the wrapper may leave its child
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(process, uri):
    from pymilvus import MilvusClient, MilvusException

    for _ in range(300):
        assert process.poll() is None, f"the server ended with {process.returncode}"
        with suppress(MilvusException):
            client = MilvusClient(uri, timeout=2, dedicated=True)
            client.list_collections(timeout=2)
            client.close()
            return
        time.sleep(0.2)
    raise AssertionError("the server does not answer")


# what runs in the network of its own


async def _lead_in(port, command):
    """Listen here, leave this network for an empty one, and pass on to the server there."""
    outside = socket.create_server(("127.0.0.1", port))
    new_user, new_network, set_flags, is_up = 0x10000000, 0x40000000, 0x8914, 1  # sched.h, sockios.h, if.h
    if ctypes.CDLL(None).unshare(new_network | (new_user if os.getuid() else 0)):
        raise OSError("no network of its own")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh22x", b"lo", is_up))
    server = await asyncio.create_subprocess_exec(*command)
    async with await asyncio.start_server(_pass_on, sock=outside):
        await server.wait()


async def _pass_on(reader, writer):
    try:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", INNER_PORT)
    except OSError:
        writer.close()
        return
    await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))


async def _pump(reader, writer):
    with suppress(OSError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(_lead_in(int(sys.argv[1]), sys.argv[2:]))
