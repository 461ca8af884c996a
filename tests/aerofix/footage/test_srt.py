"""Every known layout of the subtitle files that drones write, one row each."""

from datetime import datetime

import numpy as np
import pytest

from aerofix.footage.srt import Telemetry, moment_at, parse_srt, read_srt
from service.errors import SourceUnreadable

# model → the text of a cue, and what it says
LAYOUTS = {
    "Mavic 3 Enterprise, Matrice 30, Mini 5 Pro": (
        '<font size="28">FrameCnt: 7, DiffTime: 33ms\n2026-03-04 10:11:12.345\n'
        "[iso: 100] [shutter: 1/800.0] [fnum: 2.8] [ev: 0] [color_md : default] [ae_meter_md: 1] [focal_len: 24.00] "
        "[dzoom_ratio: 1.00], [latitude: 24.260120] [longitude: -120.718540] [rel_alt: 102.229 abs_alt: 426.185] "
        "[gb_yaw: -65.8 gb_pitch: -89.9 gb_roll: 0.1] </font>",
        {
            "taken_at": datetime(2026, 3, 4, 10, 11, 12, 345_000),
            "position": (24.26012, -120.71854),
            "height_m": 102.229,
            "attitude_deg": (-65.8, -89.9, 0.1),
            "focal_mm": 24.0,
        },
    ),
    "Mini 3 Pro, Air 3, Neo": (
        '<font size="28">SrtCnt : 1, DiffTime : 33ms\n2026-01-18 10:23:26.397\n[iso : 150] [shutter : 1/5000.0] '
        "[fnum : 170] [ev : 0] [ct : 5023] [color_md : default] [focal_len : 240] [dzoom_ratio: 10000, delta:0],"
        "[latitude: -22.724555] [longitude: -47.602414] [rel_alt: 10.300 abs_alt: 549.679] </font>",
        {
            "taken_at": datetime(2026, 1, 18, 10, 23, 26, 397_000),
            "position": (-22.724555, -47.602414),
            "height_m": 10.3,
            "focal_mm": 24.0,
        },
    ),
    "the same, zoomed digitally": (
        "[focal_len : 240] [dzoom_ratio: 20000, delta:0],[latitude: 1.5] [longitude: 2.5] [rel_alt: 10.3 abs_alt: 5.0]",
        {"position": (1.5, 2.5), "height_m": 10.3},
    ),
    "a zoom camera, whose focal length has the zoom in it": (
        "[focal_len: 284.80] [dzoom_ratio: 1.77], [latitude: 53.388452] [longitude: 5.361783] "
        "[rel_alt: 55.774 abs_alt: 98.364] [gb_yaw: -83.6 gb_pitch: -9.1 gb_roll: 0.0]",
        {
            "position": (53.388452, 5.361783),
            "height_m": 55.774,
            "attitude_deg": (-83.6, -9.1, 0.0),
            "focal_mm": 284.8,
        },
    ),
    "Mavic 3 Thermal, the thermal camera": (
        '<font size="28">FrameCnt: 28115, DiffTime: 34ms\n2026-06-28 18:43:56.810\n[focal_len: 40.00] '
        "[dzoom_ratio: 1.00], [latitude: -37.996099] [longitude: 177.035704] [rel_alt: 75.645 abs_alt: 227.888] "
        "[gb_yaw: 76.8 gb_pitch: -49.1 gb_roll: 0.0] </font>",
        {
            "taken_at": datetime(2026, 6, 28, 18, 43, 56, 810_000),
            "position": (-37.996099, 177.035704),
            "height_m": 75.645,
            "attitude_deg": (76.8, -49.1, 0.0),
            "focal_mm": 40.0,
        },
    ),
    "Mavic 2, Mavic Mini, Air 2S": (
        '<font size="36">FrameCnt : 107, DiffTime : 41ms\n2025-06-23 11:26:03,972,307\n[iso : 100] '
        "[shutter : 1/3200.0] [fnum : 280] [ev : -0.7] [ct : 5502] [color_md : default] [focal_len : 280] "
        "[latitude : 38.904148] [longtitude : -92.281307] [altitude: 274.239014] </font>",
        {
            "taken_at": datetime(2025, 6, 23, 11, 26, 3, 972_000),
            "position": (38.904148, -92.281307),
            "focal_mm": 28.0,
        },
    ),
    "Mavic 2 before its receiver has found itself": (
        "[focal_len : 240] [latitude : 0.000000] [longtitude : 0.000000] [altitude: 0.000000]",
        {"focal_mm": 24.0},
    ),
    "with the attitude of aircraft and gimbal": (
        "[focal_len : 240] [latitude: 39.674253] [longtitude: 118.162311] [altitude: 143.076004] "
        "[Drone: Yaw:90.4, Pitch:0.8, Roll:-1.6] [Gimbal: Yaw:10.0, Pitch:-45.0, Roll:0.5]",
        {"position": (39.674253, 118.162311), "attitude_deg": (10.0, -45.0, 0.5), "focal_mm": 24.0},
    ),
    "Mini 2, Mini SE, Mavic Air 2, DJI FPV": (
        "F/2.8, SS 206.14, ISO 150, EV 0, DZOOM 1.000, GPS (-82.6669, 27.7716, 10), D 2.80m, H 31.50m, "
        "H.S 4.00m/s, V.S 0.10m/s",
        {"position": (27.7716, -82.6669), "height_m": 31.5},
    ),
    "Phantom 4 RTK with RTK": (
        "F/6.3, SS 60, ISO 100, EV 0, RTK (120.083799, 30.213635, 28), HOME (120.084146, 30.214243, 103.55m), "
        "D 75.36m, H 76.19m, H.S 0.30m/s, V.S 0.00m/s, F.PRY (-5.3°, 2.1°, 28.3°), G.PRY (-40.0°, 0.2°, 28.2°)",
        {"position": (30.213635, 120.083799), "height_m": 76.19, "attitude_deg": (28.2, -40.0, 0.2)},
    ),
    "Phantom 4 RTK without": (
        "F/5.6, SS 400, ISO 100, EV 0, GPS (-58.851745, -34.237922, 15), HOME (-58.847509, -34.232707, -57.98m), "
        "D 698.70m, H 85.80m, H.S 0.00m/s, V.S 0.00m/s, F.PRY (2.7°, -7.0°, 110.1°), G.PRY (-24.4°, 0.0°, 110.4°)",
        {"position": (-34.237922, -58.851745), "height_m": 85.8, "attitude_deg": (110.4, -24.4, 0.0)},
    ),
    "Mavic Pro, Phantom 4 Pro": (
        "HOME(149.0251,-20.2532) 2025.08.05 14:11:51\nGPS(149.0251,-20.2533,16) BAROMETER:41.9\n"
        "ISO:100 Shutter:60 EV: Fnum:F2.2",
        {"taken_at": datetime(2025, 8, 5, 14, 11, 51), "position": (-20.2533, 149.0251), "height_m": 41.9},
    ),
    "Matrice 300, latitude first": (
        "2025.06.21 16:06:26\nGPS(36.6146,-6.1120,0.0M) BAROMETER:26.3M",
        {"taken_at": datetime(2025, 6, 21, 16, 6, 26), "position": (36.6146, -6.112), "height_m": 26.3},
    ),
    "Avata": (
        "GPS(39.906217,116.391305,69) BAROMETER(91.2) HOME(39.906206,116.391400) D=5.2m H=1.5m",
        {"position": (39.906217, 116.391305), "height_m": 91.2},  # a latitude of 116 is none
    ),
    "Inspire 1, Phantom 3": (
        "2025.5.5 9:05:07\nGPS(-81.3713,41.3402,15) HB:58.9 HS:57.0\nISO:200 TV:500 EV:-0.7 IR:2.8",
        {"taken_at": datetime(2025, 5, 5, 9, 5, 7), "position": (41.3402, -81.3713), "height_m": 58.9},
    ),
    "Autel Nano+": (
        "HOME(W: 120.000000, S: 20.000000) 2025-09-14 12:00:01\nGPS(W: 120.000001, S: 20.000001, 001.01m)\n"
        "ISO:100 SHUTTER:30 EV:0.0 F-NUM:2.8\nF.PRY (-1.0°, 1.0°, 100.1°), G.PRY (-85.0°, 0.0°, 100.2°)",
        {
            "taken_at": datetime(2025, 9, 14, 12, 0, 1),
            "position": (-20.000001, -120.000001),
            "attitude_deg": (100.2, -85.0, 0.0),
        },
    ),
    "Mavic Air, camera settings alone": ("ISO:100 Shutter:60 EV:0 Fnum:F2.8", {}),
}


def file_of(*texts):
    """A subtitle file with a cue each second."""
    return "\n\n".join(f"{n + 1}\n00:00:{n:02d},000 --> 00:00:{n:02d},033\n{text}" for n, text in enumerate(texts))


@pytest.mark.parametrize(("text", "says"), LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_layout_is_read(text, says, line_end):
    (moment,) = parse_srt(file_of(text).replace("\n", line_end))
    assert moment == Telemetry(0.0, 0.033, **says)


def test_cues_have_their_times():
    moments = parse_srt("1\n00:59:59,500 --> 01:00:00,000\nGPS(1,2,3)\n\n2\n01:01:59,000 --> 01:01:60,000\n")
    assert [(each.start_s, each.end_s) for each in moments] == [(3599.5, 3600.0), (3719.0, 3720.0)]


def test_a_frame_gets_the_moment_that_it_is_in():
    moments = parse_srt(file_of(*(f"[rel_alt: {n}.5 abs_alt: 0]" for n in range(3))))
    assert [moment_at(moments, time_s).height_m for time_s in (0.0, 0.5, 1.0, 2.9)] == [0.5, 0.5, 1.5, 2.5]
    assert moment_at(moments, 4.5) is None
    assert moment_at([], 0.0) is None


def test_a_file_without_telemetry_is_refused(tmp_path):
    film = tmp_path / "film.srt"
    film.write_text(file_of("- Where are we?", "- I have no idea."))
    with pytest.raises(SourceUnreadable, match="no telemetry of a known layout"):
        read_srt(film)
    with pytest.raises(SourceUnreadable, match="cannot be read"):
        read_srt(tmp_path / "absent.srt")


def test_damaged_files_do_no_harm(damage):
    rng, whole = np.random.default_rng(5), file_of(*(text for text, _ in LAYOUTS.values())).encode()
    for _ in range(200):
        for moment in parse_srt(damage(rng, whole, whole).decode("utf-8", "replace")):
            assert moment.position is None or abs(moment.position[0]) <= 90
