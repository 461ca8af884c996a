"""Solutions as NMEA 0183 sentences: RMC, GGA, VTG and GST, version 2.3 of the standard with its mode indicator."""

import math
from datetime import UTC, datetime
from functools import reduce
from operator import xor

from aerofix.bridge.solution import Solution

RANGE_ERROR_M = 5.0
"""Readers multiply HDOP by this standard deviation of a distance to a satellite. HDOP has no unit and no other meaning,
so we send what makes the product the true accuracy; readers of GST get metres."""

CLAIMED = 10
"""GGA claims so many satellites. There are none, but gpsd takes no fix of none, and autopilots ask for six or more."""

KNOTS = 3600 / 1852
"""A metre a second is so many knots (a nautical mile is 1852 m)."""

KM_H = 3.6
"""A metre a second is so many kilometres an hour."""


def sentences(solution: Solution, satellites: int = CLAIMED) -> bytes:
    """Write the sentences of one solution, as a receiver sends them once for each fix.

    They come from a ``GP`` talker and say that the fix is autonomous: readers take no others. Altitudes are left empty
    when they are not known.

    Args:
        solution: what to tell.
        satellites: how many to claim.
    """
    moment = datetime.fromtimestamp(solution.time_s, UTC)
    clock = f"{moment:%H%M%S}.{moment.microsecond // 10_000:02d}"
    where = f"{_degrees(solution.lat, 2, 'NS')},{_degrees(solution.lon, 3, 'EW')}"
    speed_m_s, course = _motion(solution)
    knots = "" if speed_m_s is None else f"{speed_m_s * KNOTS:.2f}"
    km_h = "" if speed_m_s is None else f"{speed_m_s * KM_H:.2f}"
    hdop = max(0.1, solution.accuracy_m / RANGE_ERROR_M)
    altitude = "" if solution.altitude_m is None else f"{solution.altitude_m:.1f}"
    sigma, down = solution.sigma_m, solution.sigma_down_m
    bodies = (
        f"GPRMC,{clock},A,{where},{knots},{course},{moment:%d%m%y},,,A",
        f"GPGGA,{clock},{where},1,{satellites:02d},{hdop:.1f},{altitude},M,,M,,",
        f"GPVTG,{course},T,,M,{knots},N,{km_h},K,A",
        f"GPGST,{clock},,,,,{sigma:.2f},{sigma:.2f},{'' if down is None else f'{down:.2f}'}",
    )
    return "".join(f"${body}*{_checksum(body):02X}\r\n" for body in bodies).encode("ascii")


def _motion(solution: Solution) -> tuple[float | None, str]:
    if solution.velocity_m_s is None:
        return None, ""
    north, east = solution.velocity_m_s
    return math.hypot(north, east), f"{round(math.degrees(math.atan2(east, north)), 1) % 360:.1f}"


def _degrees(value: float, width: int, letters: str) -> str:
    """Degrees and minutes with five decimals, which is two centimetres."""
    hundred_thousandths = round(abs(value) * 60 * 100_000)
    degrees, rest = divmod(hundred_thousandths, 60 * 100_000)
    return f"{degrees:0{width}d}{rest / 100_000:08.5f},{letters[value < 0]}"


def _checksum(body: str) -> int:
    return reduce(xor, body.encode("ascii"))
