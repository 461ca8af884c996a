"""The servers that ``serving.py`` compares, each started with the same gallery and model, and stopped again."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "benchmarks/peers"
START_S, STOP_S = 90, 15


@dataclass(frozen=True)
class Server:
    """How to start a server, and where it answers; ``PORT`` in the command is replaced by a free one."""

    name: str
    command: Sequence[str | Path | int]
    path: str
    ready: str
    cwd: Path = ROOT
    env: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[str]:
        """Give the URL that photos are sent to, while the server runs."""
        port = _free_port()
        command = [str(word).replace("PORT", str(port)) for word in self.command]
        process = subprocess.Popen(
            command,
            cwd=self.cwd,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | self.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that its workers can be stopped with it
        )
        try:
            _wait(f"http://127.0.0.1:{port}{self.ready}", process, self.name)
            yield f"http://127.0.0.1:{port}{self.path}"
        finally:
            _stop(process)


def aerofix(gallery: Path, model: Path, env: dict[str, str] | None = None) -> Server:
    """Return this service, as a user starts it."""
    command = [sys.executable, "-m", "service.cli.main", "serve", "--port", "PORT", "--device", "cpu"]
    return Server("aerofix", [*command, "--gallery", gallery, "--model", model], "/localize", "/readyz", env=env or {})


def litserve(python: Path, gallery: Path, model: Path, decoders: int) -> Server:
    """Return LitServe, with the Python that it is installed for; ``decoders`` threads decode a batch."""
    command = [python, PEERS / "litserve_server.py", gallery, model, decoders, "PORT"]
    return Server(_called("LitServe", decoders), command, "/predict", "/health")


def bentoml(python: Path, gallery: Path, model: Path, decoders: int) -> Server:
    """Return BentoML, likewise."""
    command = [python, "-m", "bentoml", "serve", "bentoml_server:Localize", "--host", "127.0.0.1", "--port", "PORT"]
    env = {"GALLERY": str(gallery), "MODEL": str(model), "DECODERS": str(decoders), "BENTOML_DO_NOT_TRACK": "True"}
    return Server(_called("BentoML", decoders), command, "/localize", "/readyz", PEERS, env)


def _called(name: str, decoders: int) -> str:
    return name if decoders == 1 else f"{name}, {decoders} decoding threads"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(url: str, process: subprocess.Popen[bytes], name: str) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"{name} did not start: {' '.join(map(str, process.args))}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, kind)
            process.wait(STOP_S)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    process.wait()
