"""Solutions as MAVLink messages: ``GPS_INPUT``, ``ODOMETRY`` and ``VISION_POSITION_ESTIMATE``.

Fields are as in https://mavlink.io/en/messages/common.html. Local coordinates are north, east and down of an origin
that the autopilot knows as ``GPS_GLOBAL_ORIGIN``; of covariances the upper right triangle is written row by row, for
north, east, down, roll, pitch and yaw.
"""

import math
import os
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from typing import Any, Literal

from aerofix.bridge.solution import Solution
from service.errors import DeviceUnavailable, SourceUnreadable
from service.geo import offset_m

Message = Literal["gps-input", "odometry", "vision"]

UNKNOWN_M2 = 1e6
"""This variance stands for a coordinate that is not known: a kilometre weighs nothing beside any other sensor."""

UNKNOWN_RAD2 = math.pi**2
"""This variance stands for an angle that is not known: half a turn."""

HEADING_SIGMA_RAD = math.radians(3.0)
"""A heading is told with this standard deviation. It is our reconstruction: between neighbouring photos, fixes turn by
less."""

GPS_EPOCH_S = 315_964_800.0
"""GPS time begins on 1980-01-06, here in seconds since 1970."""

LEAP_S = 18.0
"""GPS time has been ahead of UTC by so many seconds since 2017 (IERS Bulletin C)."""

WEEK_S = 7 * 86_400.0
"""A GPS week has so many seconds."""

ORIGIN_WAIT_S = 10.0
"""The autopilot gets so many seconds to say where its origin is."""


@dataclass(frozen=True)
class Origin:
    """Where local coordinates begin.

    Attributes:
        lat: degrees north, WGS84.
        lon: degrees east, WGS84.
        altitude_m: above sea level.
    """

    lat: float
    lon: float
    altitude_m: float


class Mavlink:
    """A link to an autopilot; one that is unplugged or goes away is tried again with every heartbeat.

    Args:
        address: as pymavlink has it, such as ``udpout:127.0.0.1:14550``, ``tcp:127.0.0.1:5760`` or ``/dev/ttyACM0``.
        message: which message to send.
        origin: of local coordinates; the autopilot is told. None: it is asked. ``gps-input`` needs none.
        baud: of a serial line.
        heading: whether the photo's top edge faces where the nose does, so that the heading is the aircraft's.
        system: MAVLink's number of the aircraft.
        on_trouble: told once, in a sentence, when the autopilot can no longer be reached.

    Raises:
        DeviceUnavailable: pymavlink is not installed.
        SourceUnreadable: the address cannot be opened, or the autopilot does not say where its origin is.
    """

    def __init__(
        self,
        address: str,
        message: Message = "gps-input",
        origin: Origin | None = None,
        baud: int = 115_200,
        heading: bool = False,
        system: int = 1,
        on_trouble: Callable[[str], object] = lambda text: None,
    ) -> None:
        os.environ.setdefault("MAVLINK20", "1")  # read when pymavlink is loaded; ODOMETRY is of version 2
        try:
            from pymavlink import mavutil
        except ImportError as error:
            raise DeviceUnavailable("MAVLink needs pymavlink; `pip install aerofix[bridge]`.") from error
        self._names = mavutil.mavlink
        self._message, self._heading = message, heading
        self._address, self._on_trouble, self._lost = address, on_trouble, False
        component = self._names.MAV_COMP_ID_VISUAL_INERTIAL_ODOMETRY
        try:
            self._link: Any = mavutil.mavlink_connection(
                address,
                baud=baud,
                source_system=system,
                source_component=component,
                dialect="common",
                autoreconnect=True,
                retries=1,
            )
        except (OSError, ValueError, IndexError) as error:
            raise SourceUnreadable(
                f"{address} cannot be opened ({error}); give an address such as udpout:127.0.0.1:14550."
            ) from error
        self.heartbeat()
        self.origin = origin
        if origin is not None:
            self._link.mav.set_gps_global_origin_send(
                system, _e7(origin.lat), _e7(origin.lon), round(origin.altitude_m * 1000), _usec(time.time())
            )
        elif message != "gps-input":
            self.origin = self._asked_origin(system)

    def heartbeat(self) -> None:
        """Say that somebody is here, as every component of MAVLink does once a second."""
        names = self._names
        self._watch(
            lambda: self._link.mav.heartbeat_send(
                names.MAV_TYPE_ONBOARD_CONTROLLER, names.MAV_AUTOPILOT_INVALID, 0, 0, names.MAV_STATE_ACTIVE
            )
        )

    def send(self, solution: Solution) -> None:
        """Send a solution."""
        forms = {"gps-input": self._gps_input, "odometry": self._odometry, "vision": self._vision}
        self._watch(lambda: forms[self._message](solution))

    def close(self) -> None:
        """Close the link."""
        self._link.close()

    def _watch(self, send: Callable[[], object]) -> None:
        """Send, and notice whether that reaches anybody, which pymavlink prints and does not raise."""
        with redirect_stdout(StringIO()), suppress(OSError):
            send()
        lost = self._link.portdead or self._link.port is None
        if lost and not self._lost:
            self._on_trouble(f"{self._address} cannot be reached any more; it is tried again every second.")
        self._lost = lost

    def _gps_input(self, solution: Solution) -> None:
        names, velocity, down = self._names, solution.velocity_m_s, solution.sigma_down_m
        ignored = names.GPS_INPUT_IGNORE_FLAG_VEL_VERT | names.GPS_INPUT_IGNORE_FLAG_SPEED_ACCURACY
        ignored |= names.GPS_INPUT_IGNORE_FLAG_HDOP | names.GPS_INPUT_IGNORE_FLAG_VDOP  # accuracies say it in metres
        if velocity is None:
            ignored |= names.GPS_INPUT_IGNORE_FLAG_VEL_HORIZ
        if down is None:
            ignored |= names.GPS_INPUT_IGNORE_FLAG_ALT | names.GPS_INPUT_IGNORE_FLAG_VERTICAL_ACCURACY
        gps_s = solution.time_s - GPS_EPOCH_S + LEAP_S
        north, east = velocity or (0.0, 0.0)
        self._link.mav.gps_input_send(
            time_usec=_usec(solution.time_s),
            gps_id=0,
            ignore_flags=ignored,
            time_week_ms=round(gps_s % WEEK_S * 1000),
            time_week=int(gps_s // WEEK_S),
            fix_type=names.GPS_FIX_TYPE_2D_FIX if down is None else names.GPS_FIX_TYPE_3D_FIX,
            lat=_e7(solution.lat),
            lon=_e7(solution.lon),
            alt=solution.altitude_m or 0.0,
            hdop=0.0,
            vdop=0.0,
            vn=north,
            ve=east,
            vd=0.0,
            speed_accuracy=0.0,
            horiz_accuracy=solution.accuracy_m,
            vert_accuracy=down or 0.0,
            satellites_visible=255,  # unknown
            yaw=(round(solution.heading_deg * 100) or 36_000) if self._heading else 0,  # 0: none; 36000: north
        )

    def _odometry(self, solution: Solution) -> None:
        north, east, down = self._local_m(solution)
        yaw = math.radians(solution.heading_deg) if self._heading else 0.0
        v_north, v_east = solution.velocity_m_s or (math.nan, math.nan)
        names = self._names
        self._link.mav.odometry_send(
            time_usec=_usec(solution.time_s),
            frame_id=names.MAV_FRAME_LOCAL_NED,
            child_frame_id=names.MAV_FRAME_LOCAL_NED,
            x=north,
            y=east,
            z=down,
            q=[math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)],
            vx=v_north,
            vy=v_east,
            vz=math.nan,
            rollspeed=math.nan,
            pitchspeed=math.nan,
            yawspeed=math.nan,
            pose_covariance=self._covariance(solution),
            velocity_covariance=[math.nan] + [0.0] * 20,
            reset_counter=0,
            estimator_type=names.MAV_ESTIMATOR_TYPE_VISION,
            quality=0,  # unknown
        )

    def _vision(self, solution: Solution) -> None:
        north, east, down = self._local_m(solution)
        self._link.mav.vision_position_estimate_send(
            usec=_usec(solution.time_s),
            x=north,
            y=east,
            z=down,
            roll=0.0,
            pitch=0.0,
            yaw=math.radians((solution.heading_deg + 180) % 360 - 180) if self._heading else 0.0,
            covariance=self._covariance(solution),
            reset_counter=0,
        )

    def _local_m(self, solution: Solution) -> tuple[float, float, float]:
        """North, east and down of the origin; down is 0 when the altitude is not known, and its variance says so."""
        assert self.origin is not None  # noqa: S101 - made sure of when the link was opened
        east, north = map(float, offset_m(self.origin.lat, self.origin.lon, solution.lat, solution.lon))
        down = 0.0 if solution.altitude_m is None else self.origin.altitude_m - solution.altitude_m
        return north, east, down

    def _covariance(self, solution: Solution) -> list[float]:
        """The upper right triangle of the 6 by 6 matrix; nothing but its diagonal is known."""
        down = solution.sigma_down_m
        yaw = HEADING_SIGMA_RAD**2 if self._heading else UNKNOWN_RAD2
        variances = [solution.sigma_m**2] * 2 + [UNKNOWN_M2 if down is None else down**2]
        variances += [UNKNOWN_RAD2, UNKNOWN_RAD2, yaw]
        return [variances[row] if row == column else 0.0 for row in range(6) for column in range(row, 6)]

    def _asked_origin(self, system: int) -> Origin:
        names = self._names
        self._link.mav.command_long_send(
            system, 0, names.MAV_CMD_REQUEST_MESSAGE, 0, names.MAVLINK_MSG_ID_GPS_GLOBAL_ORIGIN, 0, 0, 0, 0, 0, 0
        )
        heard = self._link.recv_match(type="GPS_GLOBAL_ORIGIN", blocking=True, timeout=ORIGIN_WAIT_S)
        if heard is None:
            self.close()
            raise SourceUnreadable(
                "the autopilot does not say where its origin is (GPS_GLOBAL_ORIGIN); give it one with "
                "--origin LAT,LON,ALTITUDE_M."
            )
        return Origin(heard.latitude / 1e7, heard.longitude / 1e7, heard.altitude / 1e3)


def _usec(seconds: float) -> int:
    return round(seconds * 1e6)


def _e7(degrees: float) -> int:
    return round(degrees * 1e7)
