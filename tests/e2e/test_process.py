"""The service as its own process, killed without warning."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import httpx

LONG = 60  # seconds; no test waits that long


# ``aerofix`` with an encoder that waits while the file named first exists
HELD = """
import pathlib, sys, time
from service.cli.main import app
from service.encoder.session import Encoder
held, encode = pathlib.Path(sys.argv.pop(1)), Encoder.encode
def wait(self, images):
    while held.exists():
        time.sleep(0.01)
    return encode(self, images)
Encoder.encode = wait
app()
"""


# ``aerofix`` that does not open its gallery while the file named first exists
SLOW = """
import pathlib, sys, time
from service.cli.main import app
from service.ground.gallery import Gallery
held, open_gallery = pathlib.Path(sys.argv.pop(1)), Gallery.open
def wait(*arguments, **options):
    while held.exists():
        time.sleep(0.01)
    return open_gallery(*arguments, **options)
Gallery.open = wait
app()
"""


def answers(url, status):
    with suppress(httpx.TransportError):
        return httpx.get(url).status_code == status
    return False


def test_probes_are_answered_while_the_gallery_is_opened(settings, tmp_path):
    chosen, held = settings(), tmp_path / "held"
    held.touch()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SLOW, str(held), "serve", "--port", str(port), "--device", "cpu"]
    command += ["--model", str(chosen.model), "--gallery", str(chosen.gallery)]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            wait_for(lambda: answers(f"{url}/livez", 200))
            refused = httpx.get(f"{url}/readyz")
            assert (refused.status_code, refused.json()["type"]) == (503, "/problems/not-ready")
            assert "starting" in refused.json()["detail"]
            assert int(httpx.post(f"{url}/localize").headers["retry-after"]) > 0
            held.unlink()
            assert f"aerofix on {url} " in process.stdout.readline()
            assert httpx.get(f"{url}/readyz").status_code == 200
        finally:
            process.terminate()
    assert process.wait(LONG) in (0, -signal.SIGTERM)


def test_a_service_that_still_loads_can_be_ended(settings, tmp_path):
    chosen, held = settings(), tmp_path / "held"
    held.touch()
    command = [sys.executable, "-c", SLOW, str(held), "serve", "--port", "0", "--model", str(chosen.model)]
    command += ["--gallery", str(chosen.gallery)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "Application startup complete" in line:
                break
        process.terminate()
        assert process.wait(LONG) in (0, -signal.SIGTERM)


def test_a_port_that_is_taken_is_named(serve, settings, tmp_path):
    _, url = serve()
    taken = run(settings, "--port", url.rpartition(":")[2], "--gallery", str(tmp_path / "other"))
    port = url.rpartition(":")[2]
    assert taken.returncode == 4
    assert f"error: port {port} of 127.0.0.1 is in use; end what listens there" in taken.stderr
    assert "Traceback" not in taken.stderr


def test_an_address_that_is_not_this_machines_is_named(settings):
    for host in ("192.0.2.1", "no.such.host.invalid"):
        refused = run(settings, "--host", host, AEROFIX_INSECURE="true")
        assert refused.returncode == 1
        assert f"of {host}" in refused.stderr.splitlines()[-1]
        assert "Traceback" not in refused.stderr


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
    command = [sys.executable, "-m", "service.cli.main", "serve", "--port", "0", "--model", str(chosen.model)]
    second = subprocess.run([*command, "--gallery", str(chosen.gallery)], capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1].startswith("error: The gallery g.gallery is in use by another process; stop ")


def test_what_was_accepted_is_answered_after_sigterm_and_others_are_told(serve, tile_request, photo, tmp_path):
    held = tmp_path / "held"
    process, url = serve(("-c", HELD, str(held)))
    httpx.post(f"{url}/gallery", **tile_request(1, 2))
    held.touch()
    answers = []

    def localize(column):
        answers.append(httpx.post(f"{url}/localize", files={"image": ("p.jpg", photo(column))}, timeout=LONG))

    clients = [threading.Thread(target=localize, args=(column,)) for column in (1, 2)]
    for client in clients:
        client.start()
    wait_for(lambda: "aerofix_in_flight_requests 2.0" in httpx.get(f"{url}/metrics").text)
    process.terminate()
    wait_for(lambda: httpx.get(f"{url}/readyz").status_code == 503)
    refused = httpx.post(f"{url}/localize", files={"image": ("p.jpg", photo(1))})
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/not-ready")
    assert httpx.get(f"{url}/livez").status_code == 200
    held.unlink()
    for client in clients:
        client.join(LONG)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert process.wait(LONG) in (0, -signal.SIGTERM)


def test_a_second_signal_ends_a_service_whose_encoder_hangs(serve, photo, tmp_path):
    held = tmp_path / "held"
    process, url = serve(("-c", HELD, str(held)))
    held.touch()

    def localize():
        with suppress(httpx.HTTPError):  # it is cut off
            httpx.post(f"{url}/localize", files={"image": ("p.jpg", photo(1))}, timeout=LONG)

    client = threading.Thread(target=localize)
    client.start()
    wait_for(lambda: "aerofix_in_flight_requests 1.0" in httpx.get(f"{url}/metrics").text)
    process.terminate()
    wait_for(lambda: httpx.get(f"{url}/readyz").status_code == 503)
    process.terminate()
    assert process.wait(LONG) in (0, -signal.SIGTERM)
    client.join(LONG)


def wait_for(condition):
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def run(settings, *arguments, **environment):
    chosen = settings()
    command = [sys.executable, "-m", "service.cli.main", "serve", "--port", "0", "--model", str(chosen.model)]
    command += ["--gallery", str(chosen.gallery), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LONG, env=os.environ | environment)


def test_other_machines_are_not_let_in_without_keys(settings):
    refused = run(settings, "--host", "0.0.0.0")
    assert refused.returncode == 1
    assert "AEROFIX_WRITE_KEYS" in refused.stderr


def test_a_weak_key_is_refused_and_not_shown(settings):
    refused = run(settings, AEROFIX_WRITE_KEYS="hunter2")
    assert refused.returncode == 1
    assert "write_keys" in refused.stderr
    assert "hunter2" not in refused.stderr


def test_a_name_that_is_not_ours_is_refused_on_a_loopback_address(serve):
    _, url = serve()
    assert httpx.get(f"{url}/gallery").status_code == 200
    assert httpx.get(f"{url}/gallery", headers={"Host": "evil.example"}).status_code == 403
