"""The service as its own process, killed without warning."""

import os
import signal
import subprocess
import sys

import httpx


def test_an_acknowledged_tile_survives_kill_9(serve, tile_request, photo):
    process, url = serve()
    assert httpx.post(f"{url}/gallery", **tile_request(1, 2)).json()["added"] == 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    _, url = serve()
    assert httpx.get(f"{url}/gallery").json()["count"] == 2
    answer = httpx.post(f"{url}/localize", files={"image": ("p.jpg", photo(2))}).json()
    assert answer["candidates"][0]["tile_id"] == "map/2"


def test_a_terminated_service_ends_well_and_lets_go_of_its_gallery(serve):
    process, url = serve()
    assert httpx.get(f"{url}/readyz").json()["checks"] == {"batcher": True, "canary": True, "gallery": True}
    process.terminate()
    assert process.wait(30) in (0, -signal.SIGTERM)
    _, url = serve()
    assert httpx.get(f"{url}/livez").json() == {"status": "alive"}


def test_two_services_do_not_share_a_gallery(serve, settings):
    serve()
    chosen = settings()
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--model", str(chosen.model)]
    second = subprocess.run([*command, "--gallery", str(chosen.gallery)], capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert "error:" in second.stderr
    assert "Traceback" not in second.stderr
