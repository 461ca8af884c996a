"""The service's end of the processes that decode: asks, kills, starts anew."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from service import errors
from service.errors import AerofixError, ImageTooSlow, ImageUndecodable, NotReady
from service.imaging.upright import Decoding, out_of_memory
from service.imaging.worker import MAX_CPU_S, receive, send

_ROOT = str(Path(__file__).parents[2])  # where the package ``service`` lies

# glibc asks the system for the pages of each picture anew, which takes as long as decoding it, unless it may keep some.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**26)}


class Worker:
    """A process that decodes one image at a time; it is started when it is needed, and again after its end.

    It is a new program and no fork, for the service has threads of onnxruntime and FAISS, and it takes 20 MB.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._peer: socket.socket | None = None
        self._changing, self._asking = threading.Lock(), threading.Lock()
        self._unwanted = self._closed = False

    @property
    def pid(self) -> int | None:
        """The id of its process; None before it is needed."""
        return None if self._process is None else self._process.pid

    def decode(self, job: Decoding, pieces: Sequence[bytes | memoryview]) -> Image.Image:
        """Have an image decoded; blocks until it is.

        Args:
            job: what it is.
            pieces: of the file.

        Raises:
            ImageTruncated, ImageUndecodable, OutOfMemory: see ``upright``.
            ImageTooSlow: it took ``MAX_CPU_S``.
            NotReady: the service stops.
        RuntimeError: the process does not run, which is no fault of the image.
        """
        answer = None
        with self._asking:
            peer = self._started()
            with suppress(OSError):  # it has ended, and why is told below
                send(peer, asdict(job), *pieces)
                answer = receive(peer)
            if answer is None:
                ended_with = self._end()
                raise NotReady("the service is stopping; ask again.") if self._closed else _why(ended_with, job)
        told, pixels = answer
        if "error" in told:
            kind: type[AerofixError] = getattr(errors, told["error"])
            raise kind(told["detail"], **told["numbers"])
        width, height = told["size"]
        return Image.frombytes("RGB", (width, height), pixels)

    def kill(self) -> None:
        """End what it does at once; whoever waits for it gets an error, and the next image a new process."""
        with self._changing:
            self._unwanted = True
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """End it for good."""
        self._closed = True
        self.kill()
        with self._asking:
            self._end()

    def _started(self) -> socket.socket:
        if self._unwanted or (self._process is not None and self._process.poll() is not None):
            self._end()
        with self._changing:
            if self._closed:
                raise NotReady("the service is stopping; ask again.")
            if self._peer is None:
                ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
                with theirs:
                    self._process = _start(theirs)
                self._peer = ours
            return self._peer

    def _end(self) -> int:
        """Wait for the end of the process, and be ready for another. Returns what it ended with."""
        with self._changing:
            process, peer = self._process, self._peer
            self._process = self._peer = None
            self._unwanted = False
        if peer is not None:
            peer.close()
        return 0 if process is None else process.wait()


def _start(peer: socket.socket) -> subprocess.Popen[bytes]:
    """Start a process that listens at its end of a socket."""
    paths = [_ROOT, os.environ.get("PYTHONPATH")]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "service.imaging.worker"],  # -P: nothing from the folder at hand
        stdin=peer.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # libraries print what they think of a file
        env={**os.environ, **_MALLOC, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )


def _why(ended_with: int, job: Decoding) -> Exception:
    """What to tell of an image at which the process ended."""
    match -ended_with:
        case signal.SIGXCPU:
            return ImageTooSlow(
                f"decoding this image takes more than {MAX_CPU_S} s of computing; save it again as a JPEG that is not "
                "progressive.",
                limit=MAX_CPU_S,
            )
        case signal.SIGKILL:  # not by us: those who wait no longer are told nothing
            return out_of_memory(job.needs_bytes)
        case number if number > 0:
            return ImageUndecodable(f"the decoder of {job.kind} files crashed on it; save it again as 8-bit RGB.")
        case _:
            return RuntimeError(f"the process that decodes ended with {ended_with}")
