"""MAVLink messages, as a pymavlink peer on loopback reads them."""

import math
import os
import socket
import threading
import time

import numpy as np
import pytest

from aerofix.bridge.mavlink import Mavlink, Origin
from service.errors import SourceUnreadable
from service.geo import offset

os.environ.setdefault("MAVLINK20", "1")
mavutil = pytest.importorskip("pymavlink.mavutil")

HOME = Origin(24.25, -120.72, 35.5)


@pytest.fixture
def peer():
    """An autopilot that listens; ``peer.address`` is where."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    link = mavutil.mavlink_connection(f"udpin:127.0.0.1:{port}", dialect="common", source_system=1)
    link.address_of_mine = f"udpout:127.0.0.1:{port}"
    yield link
    link.close()


@pytest.fixture
def hear(peer, solution):
    """``hear(message, kind, **fields)``: what the autopilot gets of a solution."""

    def ask(message, kind, heading=False, origin=HOME, **fields):
        link = Mavlink(peer.address_of_mine, message, origin, heading=heading)
        link.send(solution(**fields))
        heard = peer.recv_match(type=kind, blocking=True, timeout=10)
        link.close()
        return heard

    return ask


def test_gps_input(hear):
    heard = hear("gps-input", "GPS_INPUT", origin=None)
    assert heard.get_srcComponent() == mavutil.mavlink.MAV_COMP_ID_VISUAL_INERTIAL_ODOMETRY
    assert heard.time_usec == 1_781_431_932_250_000
    # 2026-06-14 is a Sunday, the first day of a GPS week; 10:12:12.25 and 18 leap seconds
    assert (heard.time_week, heard.time_week_ms) == (2423, (10 * 3600 + 12 * 60 + 12) * 1000 + 250 + 18_000)
    assert (heard.lat, heard.lon, heard.fix_type) == (242601200, -1207185400, 3)
    assert (heard.alt, heard.vn, heard.ve) == (153.5, -6.0, 8.0)
    assert (heard.horiz_accuracy, heard.satellites_visible, heard.yaw) == (12.0, 255, 0)
    assert heard.vert_accuracy == pytest.approx(7.949, abs=1e-3)
    names = mavutil.mavlink
    assert not heard.ignore_flags & (names.GPS_INPUT_IGNORE_FLAG_ALT | names.GPS_INPUT_IGNORE_FLAG_VEL_HORIZ)
    assert heard.ignore_flags & names.GPS_INPUT_IGNORE_FLAG_VEL_VERT


def test_gps_input_of_what_is_not_known(hear):
    heard = hear("gps-input", "GPS_INPUT", origin=None, altitude_m=None, velocity_m_s=None)
    names = mavutil.mavlink
    for flag in ("ALT", "VEL_HORIZ", "VERTICAL_ACCURACY"):
        assert heard.ignore_flags & getattr(names, f"GPS_INPUT_IGNORE_FLAG_{flag}")
    assert heard.fix_type == names.GPS_FIX_TYPE_2D_FIX


@pytest.mark.parametrize(("heading_deg", "yaw"), [(0.0, 36_000), (90.0, 9000), (359.999, 36_000)])
def test_north_is_told_as_a_whole_turn(hear, heading_deg, yaw):
    assert hear("gps-input", "GPS_INPUT", heading=True, origin=None, heading_deg=heading_deg).yaw == yaw


def whole(triangle):
    matrix = np.zeros((6, 6))
    matrix[np.triu_indices(6)] = triangle
    return matrix


def test_odometry(hear):
    lat, lon = (float(each) for each in offset(HOME.lat, HOME.lon, 30.0, -40.0))
    heard = hear("odometry", "ODOMETRY", heading=True, lat=lat, lon=lon)
    names = mavutil.mavlink
    assert (heard.frame_id, heard.child_frame_id) == (names.MAV_FRAME_LOCAL_NED, names.MAV_FRAME_LOCAL_NED)
    assert (heard.x, heard.y, heard.z) == pytest.approx((-40.0, 30.0, 35.5 - 153.5), abs=1e-3)
    assert heard.q == pytest.approx([math.sqrt(0.5), 0, 0, math.sqrt(0.5)])  # a quarter turn about down: east
    assert (heard.vx, heard.vy) == (-6.0, 8.0)
    assert math.isnan(heard.vz)
    assert math.isnan(heard.velocity_covariance[0])
    assert heard.estimator_type == names.MAV_ESTIMATOR_TYPE_VISION
    covariance = whole(heard.pose_covariance)
    assert np.count_nonzero(covariance) == 6
    assert np.diag(covariance)[:2] == pytest.approx(12.0**2 / (-2 * math.log(0.32)), rel=1e-5)
    # 68 % of positions with this covariance lie within 12 m
    drawn = np.random.default_rng(1).normal(scale=math.sqrt(covariance[0, 0]), size=(20_000, 2))
    assert np.mean(np.hypot(*drawn.T) <= 12.0) == pytest.approx(0.68, abs=0.01)


def test_vision_position_estimate(hear):
    heard = hear("vision", "VISION_POSITION_ESTIMATE", altitude_m=None, heading_deg=270.0)
    assert heard.usec == 1_781_431_932_250_000
    assert (heard.z, heard.yaw) == (0.0, 0.0)
    variances = np.diag(whole(heard.covariance))
    assert variances[2] >= 1e6  # of an altitude that nobody knows
    assert variances[5] > 9  # and of a heading that need not be the aircraft's
    turned = hear("vision", "VISION_POSITION_ESTIMATE", heading=True, heading_deg=270.0)
    assert turned.yaw == pytest.approx(-math.pi / 2)
    assert turned.covariance[20] < 0.01


def test_the_autopilot_is_told_the_origin(peer):
    link = Mavlink(peer.address_of_mine, "vision", HOME)
    told = peer.recv_match(type="SET_GPS_GLOBAL_ORIGIN", blocking=True, timeout=10)
    link.close()
    assert (told.latitude, told.longitude, told.altitude) == (242500000, -1207200000, 35_500)


def test_the_autopilot_is_asked_for_its_origin(peer):
    def answer():
        asked = peer.recv_match(type="COMMAND_LONG", blocking=True, timeout=10)
        assert (asked.command, asked.param1) == (512, 49)
        peer.mav.gps_global_origin_send(242500000, -1207200000, 35_500)

    autopilot = threading.Thread(target=answer)
    autopilot.start()
    link = Mavlink(peer.address_of_mine, "odometry")
    autopilot.join()
    link.close()
    assert link.origin == HOME


def test_an_autopilot_that_is_silent_is_named(peer, monkeypatch):
    monkeypatch.setattr("aerofix.bridge.mavlink.ORIGIN_WAIT_S", 0.1)
    with pytest.raises(SourceUnreadable, match="--origin"):
        Mavlink(peer.address_of_mine, "odometry")


def test_it_says_that_it_is_here(peer):
    link = Mavlink(peer.address_of_mine)
    beat = peer.recv_match(type="HEARTBEAT", blocking=True, timeout=10)
    link.close()
    assert beat.type == mavutil.mavlink.MAV_TYPE_ONBOARD_CONTROLLER


def test_a_serial_line_that_is_unplugged_is_opened_again(tmp_path, solution, capfd):
    told, device = [], tmp_path / "ttyACM0"

    def plug():
        near, far = os.openpty()
        device.unlink(missing_ok=True)
        device.symlink_to(os.ttyname(far))
        return near, far

    near, far = plug()
    link = Mavlink(str(device), on_trouble=told.append)
    assert os.read(near, 1) == b"\xfd"  # MAVLink 2
    os.close(near)
    os.close(far)
    for _ in range(3):
        link.heartbeat()
        link.send(solution())
    assert len(told) == 1
    assert "tried again" in told[0]
    near, far = plug()
    link.heartbeat()  # opens it
    link.heartbeat()
    assert os.read(near, 1) == b"\xfd"
    link.close()
    os.close(near)
    os.close(far)
    assert capfd.readouterr().out == ""


def test_an_autopilot_on_tcp_that_goes_away_is_connected_to_again(solution):
    told = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        link = Mavlink(f"tcp:127.0.0.1:{address[1]}", on_trouble=told.append)
        there, _ = server.accept()
        there.close()
    for _ in range(100):
        link.heartbeat()
        if told:
            break
        time.sleep(0.02)
    link.send(solution())
    assert len(told) == 1
    with socket.create_server(address) as server:
        server.settimeout(30)
        link.heartbeat()
        there, _ = server.accept()
        there.settimeout(30)
        link.heartbeat()
        assert there.recv(1) == b"\xfd"
        there.close()
    link.close()


def test_what_cannot_be_opened_is_one_sentence():
    with pytest.raises(SourceUnreadable, match=r"udpout:127\.0\.0\.1:14550"):
        Mavlink("/dev/nothing")
