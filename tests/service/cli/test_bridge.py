"""``aerofix bridge`` on a folder that fills and on a video: told when located, silent when not."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from typer.testing import CliRunner

from service.cli.main import app

os.environ.setdefault("MAVLINK20", "1")
LONG = 120  # seconds; no test waits that long


@pytest.fixture
def world(ground):
    return ground(4, 256, 256)


@pytest.fixture
def local(tmp_path, tiny_model, write_map, world):
    model = tiny_model(tmp_path / "m.onnx")
    chosen = ["--gallery", str(tmp_path / "g.gallery"), "--model", str(model), "--device", "cpu"]
    added = CliRunner().invoke(app, ["gallery", "add", str(write_map(tmp_path / "town.tif", world)), *chosen])
    assert added.exit_code == 0, added.output
    return chosen


def test_what_is_no_source_is_one_sentence(local, tmp_path):
    result = CliRunner().invoke(app, ["bridge", "nmea", str(tmp_path / "x.jpg"), "--to", "udp://127.0.0.1:9", *local])
    assert result.exit_code == 1
    assert "is no folder, no video and no stream" in result.stderr


@pytest.mark.parametrize("words", [["nmea", ".", "--to", "nowhere"], ["mavlink", ".", "--to", "/dev/nothing"]])
def test_what_cannot_be_sent_to_is_one_sentence(words):
    result = CliRunner().invoke(app, ["bridge", *words])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1, result.stderr


@pytest.mark.parametrize("words", [["nmea", "."], ["mavlink", ".", "--to", "udpout:127.0.0.1:9", "--origin", "1,2"]])
def test_usage_errors_end_with_2(words):
    assert CliRunner().invoke(app, ["bridge", *words]).exit_code == 2


KNOWN = """
import dataclasses
from service.cli.main import main
from service.routes import localize, schemas
# the tiny model finds places but no cameras: the camera is where the position is, 60 m up
plain = localize.localization
def with_camera(*words):
    answer = plain(*words)
    if answer.position is not None:
        place = answer.position
        answer.camera = schemas.Camera(lat=place.lat, lon=place.lon, height_m=60.0, heading_deg=90.0, pitch_deg=-90.0,
                                       roll_deg=0.0, hfov_deg=70.0, accuracy_m=place.accuracy_m)
    return answer
from service.routes import tracks
tracks.localization = with_camera
main()
"""


def test_a_folder_that_fills_is_told_to_udp_and_silent_when_not_located(local, tmp_path, world, ground):
    folder = tmp_path / "photos"
    folder.mkdir()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(LONG)
        to = f"udp://127.0.0.1:{peer.getsockname()[1]}"
        command = [sys.executable, "-c", KNOWN, "bridge", "nmea", str(folder), "--to", to, *local]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            guard = threading.Timer(LONG, process.kill)  # a line that never comes is none
            guard.start()
            try:
                assert process.stdout.readline() == f"sends to {to}\n"
                assert "Not for flight control" in process.stderr.readline()
                ground(99, 64, 64).save(folder / "elsewhere.png")
                assert "silent: " in process.stdout.readline()
                world.crop((64, 96, 96, 128)).save(folder / "here.png")
                told = process.stdout.readline()
                assert " ± " in told, told
                sentences = peer.recv(2000).decode().splitlines()
                peer.setblocking(False)
                with pytest.raises(BlockingIOError):
                    peer.recv(2000)
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=LONG)
            finally:
                guard.cancel()
                process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert [sentence[3:6] for sentence in sentences] == ["RMC", "GGA", "VTG", "GST"]
    lat, lon = (float(word) for word in told.split()[1:3])
    gga = sentences[1].split(",")
    assert int(gga[2][:2]) + float(gga[2][2:]) / 60 == pytest.approx(lat, abs=1e-5)
    assert int(gga[4][:3]) + float(gga[4][3:]) / 60 == pytest.approx(lon, abs=1e-5)


def test_a_video_is_told_by_mavlink(local, tmp_path, world, write_video):
    mavutil = pytest.importorskip("pymavlink.mavutil")
    frames = [world.crop((64 + 2 * n, 96, 96 + 2 * n, 128)) for n in range(4)]
    film = write_video(tmp_path / "film.mp4", frames, rate=2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    peer = mavutil.mavlink_connection(f"udpin:127.0.0.1:{port}", dialect="common")
    command = [sys.executable, "-c", KNOWN, "bridge", "mavlink", str(film), "--to", f"udpout:127.0.0.1:{port}"]
    done = subprocess.run([*command, *local, "--ground-elevation", "5"], capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, done.stderr
    told = sum(" ± " in line for line in done.stdout.splitlines())
    heard = []
    while (message := peer.recv_match(type="GPS_INPUT", blocking=True, timeout=0.2)) is not None:
        heard.append(message)
    peer.close()
    assert len(heard) == told >= 1, done.stdout
    assert heard[0].alt == 65.0
    times = [message.time_usec for message in heard]
    assert times == sorted(times)
