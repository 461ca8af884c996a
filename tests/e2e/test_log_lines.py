"""Whatever a service meets, each line on its stderr is one JSON object."""

import io
import json
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import httpx
import pytest

LONG = 60  # seconds; no test waits that long


@pytest.fixture
def lines(settings, tmp_path):
    """``lines(meet)`` starts a service, calls ``meet`` with its URL, ends it, and gives its lines on stderr."""

    def run(meet):
        chosen = settings()
        command = [sys.executable, "-m", "service.cli.main", "serve", "--port", "0", "--device", "cpu"]
        command += ["--model", str(chosen.model), "--gallery", str(chosen.gallery)]
        with (tmp_path / "stderr").open("wb") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            meet(next(word for word in process.stdout.readline().split() if word.startswith("http://")))
            process.terminate()
            process.wait(LONG)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        return (tmp_path / "stderr").read_bytes()

    return run


def broken(ground, encode_image):
    """Pictures and maps that libraries have something to say about."""
    tiff = encode_image(ground(1, 64, 64), "TIFF", compression="jpeg")
    for at in range(100, len(tiff), len(tiff) // 20):
        yield tiff[:at] + b"\xff\xd8\xff" + tiff[at + 3 :]
        yield tiff[:at]
    yield encode_image(ground(1, 64, 64), "PNG")[:-30]


def test_strangers_and_libraries_cannot_write_lines_of_their_own(lines, ground, encode_image):
    def meet(url):
        with httpx.Client(base_url=url, timeout=LONG) as http:
            for data in broken(ground, encode_image):
                http.post("/localize", files={"image": ("\x1b\x85.tif", data)})
                http.post("/gallery/imports", files={"file": ("\u2028.tif", io.BytesIO(data))})
            http.get("/a%0ab%c2%85%e2%80%a8%1b%5b2J%e2%80%ae")
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port)) as raw:
            raw.sendall(b"no HTTP \x85\x1b at all\r\n\r\n")
            raw.recv(1000)

    said = lines(meet).decode()
    assert said.endswith("\n")
    paths = [json.loads(each).get("path", "") for each in said.splitlines()]  # each is an object
    assert "/a\nb\x85\u2028\x1b[2J\u202e" in paths
    assert all(each.isprintable() for each in said.split("\n"))
