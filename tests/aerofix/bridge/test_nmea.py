"""NMEA sentences: their numbers, and what a real gpsd makes of them."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import time

import pytest

from aerofix.bridge.links import open_link
from aerofix.bridge.nmea import sentences


def fields_of(data):
    """Sentence → its fields; checks the checksums."""
    found = {}
    for line in data.decode().split("\r\n")[:-1]:
        assert len(line) <= 80  # with its end 82, the standard's limit
        body, checksum = line[1:].split("*")
        total = 0
        for character in body:
            total ^= ord(character)
        assert line[0] == "$"
        assert f"{total:02X}" == checksum
        found[body[2:5]] = body.split(",")[1:]
    return found


def test_all_that_is_known_is_told(solution):
    told = fields_of(sentences(solution()))
    place = ["2415.60720", "N", "12043.11240", "W"]  # 0.26012 · 60 and 0.71854 · 60
    assert told["RMC"] == ["101212.25", "A", *place, "19.44", "126.9", "140626", "", "", "A"]
    assert told["GGA"] == ["101212.25", *place, "1", "10", "2.4", "153.5", "M", "", "M", "", ""]
    assert told["VTG"] == ["126.9", "T", "", "M", "19.44", "N", "36.00", "K", "A"]
    assert told["GST"] == ["101212.25", "", "", "", "", "7.95", "7.95", "7.95"]  # 12 m / 1.5096


def test_what_is_not_known_is_left_empty(solution):
    told = fields_of(sentences(solution(velocity_m_s=None, altitude_m=None), satellites=7))
    assert told["RMC"][6:8] == ["", ""]
    assert told["GGA"][6] == "07"
    assert told["GGA"][8] == ""
    assert told["GST"][-1] == ""


@pytest.mark.parametrize(
    ("degrees", "written"),
    [(0.9999999999, "0100.00000"), (-0.5, "0030.00000"), (89.99999, "8959.99940"), (7.5, "0730.00000")],
)
def test_minutes_never_reach_sixty(solution, degrees, written):
    told = fields_of(sentences(solution(lat=degrees)))
    assert told["GGA"][1:3] == [written, "S" if degrees < 0 else "N"]


async def test_udp_and_a_pseudo_terminal_get_the_bytes(solution):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(10)
        link = await open_link(f"udp://127.0.0.1:{peer.getsockname()[1]}")
        link.send(sentences(solution()))
        assert peer.recv(2000) == sentences(solution())
        link.close()
    link = await open_link("pty")
    with open(link.name, "rb", buffering=0) as line:  # noqa: ASYNC230 - a terminal that has something to read
        link.send(b"$GPGGA\r\n")
        assert line.read(100) == b"$GPGGA\r\n"
    for _ in range(1000):  # who reads nothing stops nobody
        link.send(sentences(solution()))
    link.close()


def read_line(near):
    data = b""
    while not data.endswith(b"\n"):
        data += os.read(near, 100)
    return data


async def test_a_serial_line_that_is_unplugged_is_opened_again(tmp_path):
    pytest.importorskip("serial")
    told = []

    def plug():
        near, far = os.openpty()
        device.unlink(missing_ok=True)
        device.symlink_to(os.ttyname(far))
        return near, far

    device = tmp_path / "ttyUSB0"
    near, far = plug()
    link = await open_link(str(device), on_trouble=told.append)
    link.send(b"$GPGGA\r\n")
    assert read_line(near) == b"$GPGGA\r\n"
    os.close(near)
    os.close(far)
    for _ in range(3):
        link.send(b"$GPRMC\r\n")
    assert len(told) == 1
    assert "tried again" in told[0]
    near, far = plug()
    link.send(b"$GPVTG\r\n")
    assert read_line(near) == b"$GPVTG\r\n"
    link.close()
    os.close(near)
    os.close(far)


async def test_every_tcp_client_gets_the_bytes():
    link = await open_link("tcp://127.0.0.1:0")
    port = int(link.name.rpartition(":")[2])
    clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    await asyncio.sleep(0.1)
    link.send(b"$GPGGA\r\n")
    for reader, writer in clients:
        assert await reader.readline() == b"$GPGGA\r\n"
        writer.close()
    link.close()


@pytest.mark.parametrize("target", ["nowhere", "udp://", "tcp://127.0.0.1", "http://h:1", "/dev/nothing", "tcp://h:x"])
async def test_what_cannot_be_sent_to_is_one_sentence(target):
    with pytest.raises(Exception, match="give a serial device such as") as caught:
        await open_link(target)
    assert type(caught.value).__name__ == "SourceUnreadable"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.skipif(shutil.which("gpsd") is None, reason="gpsd is not installed")
async def test_gpsd_reads_the_same_place(solution):
    link, port = await open_link("tcp://127.0.0.1:0"), free_port()
    command = ["gpsd", "-N", "-n", "-S", str(port), link.name]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:  # noqa: ASYNC220
        try:
            for _ in range(100):
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                except OSError:
                    await asyncio.sleep(0.1)
            writer.write(b'?WATCH={"enable":true,"json":true};\n')

            async def talk():
                while True:
                    link.send(sentences(solution(time_s=time.time())))
                    await asyncio.sleep(0.2)

            talking, reports = asyncio.create_task(talk()), []
            while len(reports) < 8:
                report = json.loads(await asyncio.wait_for(reader.readline(), 30))
                reports += [report] if report["class"] == "TPV" else []
            talking.cancel()
            writer.close()
        finally:
            daemon.terminate()
    link.close()
    for report in reports[3:]:  # by then it knows of which sentences a fix consists
        assert report["mode"] == 3, reports
        assert (report["lat"], report["lon"]) == pytest.approx((24.26012, -120.71854), abs=1e-6)
        assert report["speed"] == pytest.approx(10.0, abs=0.05)
        assert report["track"] == pytest.approx(126.9, abs=0.1)
        assert report["altMSL"] == pytest.approx(153.5, abs=0.1)
