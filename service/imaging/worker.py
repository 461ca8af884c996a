"""A process that decodes: it is sent jobs through a socket at its standard input, and ends with it.

Nothing here trusts the files: what takes too much memory or time is stopped by the kernel. It starts within a tenth of
a second, with Pillow alone. A message is JSON, and an anonymous file in memory for the bytes: they are handed over at
once, where a socket would wake both ends for every piece of them, and take nothing of /dev/shm.
"""

import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from service.errors import AerofixError
from service.imaging.upright import MAX_DECODED_PIXELS, Decoding, upright
from service.memory import give_back

MAX_MESSAGE_BYTES = 2**16
"""The JSON of a message may be so long; an error's words are the longest."""

MAX_CPU_S = 60
"""An image may take so many seconds of CPU; one of 100 megapixels takes 1 to 3 s. Photos meet their deadline before."""

SPARE_BYTES = 64 * 2**20
"""So much is allowed beyond what a file needs: libraries are loaded with the first of a format, and bands of pixels are
converted."""

_RESULT_BYTES = 3  # of a pixel that is sent back


def main() -> None:
    """Decode until the other end of the socket is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the service that is told to stop, and closes the socket
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    peer = socket.socket(fileno=sys.stdin.fileno())
    Image.init()
    while message := receive(peer):
        asked, data = message
        job = Decoding(**asked)
        send(peer, *_answer(job, data))
        del message, data
        if job.needs_bytes > SPARE_BYTES:
            give_back()


def _answer(job: Decoding, data: bytes) -> tuple[Mapping[str, Any], bytes]:
    """What to tell of an image, and its pixels."""
    try:
        image = _decode(job, data)
    except AerofixError as error:
        return {"error": type(error).__name__, "detail": error.detail, "numbers": error.numbers}, b""
    return {"size": image.size}, image.tobytes()


def send(peer: socket.socket, told: Mapping[str, Any], *body: bytes | memoryview) -> None:
    """Send a message.

    Raises:
        OSError: nobody is there any more.
    """
    memory = os.memfd_create("aerofix")
    with open(memory, "wb", buffering=0) as file:
        for piece in body:
            while piece:
                piece = memoryview(piece)[file.write(piece) :]
        socket.send_fds(peer, [json.dumps(told).encode()], [memory])


def receive(peer: socket.socket) -> tuple[dict[str, Any], bytes] | None:
    """Wait for a message; None when there will be none any more.

    Raises:
        OSError: nobody is there any more.
    """
    text, memories, _, _ = socket.recv_fds(peer, MAX_MESSAGE_BYTES, 1)
    if not memories:
        return None
    with open(memories[0], "rb", buffering=0) as file:
        file.seek(0)
        return json.loads(text), file.readall()


def _decode(job: Decoding, data: bytes) -> Image.Image:
    """Decode under limits of the kernel's; without the one for memory where the process cannot see its own size."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = int(used.ru_utime + used.ru_stime) + 1 + MAX_CPU_S
    _limit(resource.RLIMIT_CPU, cpu_s)  # beyond it SIGXCPU ends the process
    pixels = min(job.width * job.height // job.factor**2, MAX_DECODED_PIXELS)
    room = job.needs_bytes + 2 * len(data) + _RESULT_BYTES * pixels + SPARE_BYTES
    _limit(resource.RLIMIT_AS, _mapped_bytes() + room)
    try:
        return upright(data, job)
    finally:
        _limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)


def _limit(what: int, wanted: int) -> None:
    """Set a limit, or the one that the service was started under (``ulimit``, a unit of systemd), if that is lower."""
    _, highest = resource.getrlimit(what)
    allowed = [each for each in (wanted, highest) if each != resource.RLIM_INFINITY]
    resource.setrlimit(what, (min(allowed, default=resource.RLIM_INFINITY), highest))


def _mapped_bytes() -> int:
    """Size of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
