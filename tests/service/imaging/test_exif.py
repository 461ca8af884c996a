from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from service.imaging.exif import Pose, read_pose


def dji(**values):
    attributes = "\n".join(f'   drone-dji:{name}="{value}"' for name, value in values.items())
    return (
        f'<x:xmpmeta><rdf:Description rdf:about="DJI Meta Data"\n{attributes}>\n</rdf:Description></x:xmpmeta>'.encode()
    )


def photo(xmp=b"", exif=None, size=(160, 90)):
    image = Image.new("RGB", size)
    if xmp:
        image.info["xmp"] = xmp
    if exif is not None:
        image.info["exif"] = exif.tobytes()
    return image


def gps(lat=(24.0, 15.0, 43.6774), lat_ref="N", lon=(120.0, 43.0, 12.749), lon_ref="E", **more):
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: lat_ref, 2: lat, 3: lon_ref, 4: lon} | {int(k[1:]): v for k, v in more.items()})
    return exif


GIMBAL = {"GimbalYawDegree": "+44.20", "GimbalPitchDegree": "-89.90", "GimbalRollDegree": "+0.00"}
NO_GIMBAL = {"GimbalYawDegree": "+0.00", "GimbalPitchDegree": "+0.00", "GimbalRollDegree": "+0.00"}


def test_the_gimbal_comes_before_the_flight():
    pose = read_pose(photo(dji(**GIMBAL, FlightYawDegree="+42.80", RelativeAltitude="+40.10")))
    assert (pose.heading_deg, pose.heading_source) == (pytest.approx(44.2), "gimbal")
    assert pose.attitude.pitch_deg == pytest.approx(-89.9)
    assert pose.altitude_m == 40.1


def test_a_gimbal_of_all_zeros_is_no_reading():
    pose = read_pose(photo(dji(**NO_GIMBAL, FlightYawDegree="-7.90")))
    assert pose.heading_deg == pytest.approx(352.1)
    assert pose.heading_source == "flight"


def test_a_gimbal_that_faces_north_and_down_is_a_reading():
    pose = read_pose(photo(dji(**NO_GIMBAL | {"GimbalPitchDegree": "-90.00"}, FlightYawDegree="+10.00")))
    assert (pose.heading_deg, pose.heading_source) == (pytest.approx(0.0, abs=1e-9), "gimbal")


def test_yaw_and_pitch_of_zero_are_no_reading_whatever_the_roll_says():
    xmp = dji(**NO_GIMBAL | {"GimbalRollDegree": "+0.10"}, FlightYawDegree="+152.10")
    assert read_pose(photo(xmp)).heading_source == "flight"


@pytest.mark.parametrize("roll", ["+180.00", "-180.00", "+179.60"])
def test_a_gimbal_past_straight_down_is_upside_down(roll):
    """The Euler angles (yaw 20, pitch -91, roll 0) and (200, -89, 180) are one attitude."""
    xmp = dji(GimbalYawDegree="+200.00", GimbalPitchDegree="-89.00", GimbalRollDegree=roll)
    pose = read_pose(photo(xmp))
    assert pose.heading_deg == pytest.approx(20.0, abs=0.5)
    assert pose.attitude.pitch_deg == pytest.approx(-89.0, abs=0.01)


def test_zeros_without_a_flight_reading_are_unknown():
    assert read_pose(photo(dji(**NO_GIMBAL))).heading_deg is None


def skydio(form):
    """A photo of a Skydio: angles from where it took off stand before those of the compass."""
    frames = {"FLU": ("1.2", "89.5", "-31.4"), "NED": ("0.0", "-60.0", "118.0")}
    if form == "elements":
        inside = "".join(
            f'<drone-skydio:CameraOrientation{frame} rdf:parseType="Resource">'
            + "".join(f"<drone-skydio:{n}>{v}</drone-skydio:{n}>" for n, v in zip(AXES, angles, strict=True))
            + f"</drone-skydio:CameraOrientation{frame}>"
            for frame, angles in frames.items()
        )
    else:
        inside = "".join(
            f"<drone-skydio:CameraOrientation{frame} "
            + " ".join(f'drone-skydio:{n}="{v}"' for n, v in zip(AXES, angles, strict=True))
            + "/>"
            for frame, angles in frames.items()
        )
    return f"<rdf:Description>{inside}<drone-skydio:RelativeAltitude>88.5</drone-skydio:RelativeAltitude>".encode()


AXES = ("Roll", "Pitch", "Yaw")
PARROT = b"""<d><drone-parrot:CameraRollDegree>0.0</drone-parrot:CameraRollDegree>
<drone-parrot:CameraPitchDegree>-60.0</drone-parrot:CameraPitchDegree>
<drone-parrot:CameraYawDegree>118.0</drone-parrot:CameraYawDegree>
<drone-parrot:DroneYawDegree>120.5</drone-parrot:DroneYawDegree>
<Camera:Yaw>118000/1000</Camera:Yaw><Camera:AboveGroundAltitude>88500/1000</Camera:AboveGroundAltitude></d>"""
GIMBAL_60 = {"GimbalYawDegree": "+118.00", "GimbalPitchDegree": "-60.00", "GimbalRollDegree": "+0.00"}
MAKERS = {
    "DJI": dji(**GIMBAL_60, RelativeAltitude="+88.50", FlightYawDegree="+120.50"),
    "DJI, past straight down": dji(
        GimbalYawDegree="298", GimbalPitchDegree="-120", GimbalRollDegree="180", RelativeAltitude="88.5"
    ),
    "Autel": dji(**GIMBAL_60, RelativeAltitude="+88.50").replace(b"drone-dji:", b"drone:"),
    "Autel, older": b'<d Camera:Pitch="30.0" Camera:Roll="0" Camera:Yaw="118.0" Camera:AboveGroundAltitude="88.5"/>',
    "Skydio": skydio("elements"),
    "Skydio, older": skydio("attributes"),
    "Parrot": PARROT,
    "senseFly": b'<d Camera:Yaw="118" Camera:Pitch="30" Camera:Roll="0"><Camera:AboveGroundAltitude>88.5</d>',
    "Pix4D, rationals": b"""<d Camera:Yaw="11800/100" Camera:Pitch="300/10" Camera:Roll="0/1"
        Camera:AboveGroundAltitude="177/2"/>""",
    "straight down as -90": b'<d Camera:Yaw="118" Camera:Pitch="-60" Camera:AboveGroundAltitude="88.5"/>',
}


@pytest.mark.parametrize("maker", MAKERS)
def test_makers(maker):
    """All of them stand for one camera: it looks to 118 degrees, 60 below the horizon, from 88.5 m."""
    pose = read_pose(photo(MAKERS[maker]))
    heading, pitch, roll = pose.attitude.angles_deg
    assert (heading, pitch, roll) == (pytest.approx(118), pytest.approx(-60), pytest.approx(0, abs=1e-9))
    assert pose.heading_deg == pytest.approx(118)
    assert pose.altitude_m == 88.5


def test_a_heading_alone():
    xmp = b"<a><drone-dji:FlightYawDegree>12.5</drone-dji:FlightYawDegree></a>"
    assert read_pose(photo(xmp)).heading_deg == pytest.approx(12.5)
    pose = read_pose(photo(b'<rdf:Description Camera:Yaw="-25.5"/>'))
    assert (pose.heading_deg, pose.heading_source) == (pytest.approx(334.5), "camera")
    pose = read_pose(photo(exif=gps(t17=IFDRational(905, 10))))
    assert (pose.heading_deg, pose.heading_source) == (pytest.approx(90.5), "compass")
    assert pose.attitude is None


def test_a_skydio_without_the_compass_frame_has_no_heading():
    before, _, _ = skydio("elements").partition(b"<drone-skydio:CameraOrientationNED")
    assert read_pose(photo(before)).heading_deg is None


def test_only_the_start_of_a_long_packet_is_read():
    assert read_pose(photo(dji(**GIMBAL) + b" " * 300_000)).heading_deg == pytest.approx(44.2)
    assert read_pose(photo(b" " * 300_000 + dji(**GIMBAL))) == Pose()


@pytest.mark.parametrize(("orientation", "heading"), [(1, 100.0), (3, 280.0), (6, 10.0), (8, 190.0)])
def test_the_heading_is_that_of_the_shown_top(orientation, heading):
    """Orientation 6: the stored top is shown on the right, so the shown top faces 90° to the left of it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert read_pose(photo(dji(FlightYawDegree="100"), exif), orientation).heading_deg == pytest.approx(heading)


@pytest.mark.parametrize("height", ["0.0", "-3.2", "nan", "high", "1e9"])
def test_a_height_that_is_none_is_unknown(height):
    assert read_pose(photo(dji(RelativeAltitude=height))).altitude_m is None


def test_position():
    lat, lon = read_pose(photo(exif=gps())).position
    assert lat == pytest.approx(24 + 15 / 60 + 43.6774 / 3600)
    assert lon == pytest.approx(120 + 43 / 60 + 12.749 / 3600)
    lat, lon = read_pose(photo(exif=gps(lat_ref="S", lon_ref="W"))).position
    assert lat < 0
    assert lon < 0


@pytest.mark.parametrize("lat", [(91.0, 0.0, 0.0), (1.0, 2.0), (1.0, IFDRational(1, 0), 2.0)])
def test_an_impossible_position_is_unknown(lat):
    assert read_pose(photo(exif=gps(lat=lat))).position is None


@pytest.mark.parametrize(("ref", "sign"), [(b"\x00", 1), (b"\x01", -1)])
def test_gps_altitude_is_above_or_below_the_sea(ref, sign):
    pose = read_pose(photo(exif=gps(t5=ref, t6=IFDRational(3756, 10))))
    assert (pose.gps_altitude_m, pose.altitude_m) == (sign * 375.6, None)


def test_zero_zero_is_a_receiver_without_a_fix():
    nowhere = (0.0, 0.0, 0.0)
    assert read_pose(photo(exif=gps(lat=nowhere, lon=nowhere))).position is None


def test_nothing_known():
    assert read_pose(photo()) == Pose()


@given(
    xmp=st.binary(max_size=200), exif=st.binary(max_size=200), prefix=st.sampled_from([b"", b"Exif\0\0II*\0\x08\0\0\0"])
)
def test_garbage_never_raises(xmp, exif, prefix):
    image = Image.new("RGB", (20, 20))
    image.info |= {"xmp": xmp, "exif": prefix + exif}
    assert isinstance(read_pose(image), Pose)


def test_a_long_word_takes_no_long_time():
    """Millions of letters without a colon; a pattern that starts anew at each would take hours."""
    assert read_pose(photo(b"a" * 3_000_000)) == Pose()


def dated(taken, fraction=None, offset=None):
    exif = Image.Exif()
    said = {0x9003: taken, 0x9291: fraction, 0x9011: offset}
    exif.get_ifd(0x8769).update({tag: value for tag, value in said.items() if value is not None})
    return read_pose(photo(exif=exif)).taken_at_s


@pytest.mark.parametrize(
    ("said", "utc"),
    [
        (("2025:06:14 10:12:00",), "2025-06-14T10:12:00+00:00"),
        (("2025:06:14 10:12:00", "25"), "2025-06-14T10:12:00.250+00:00"),
        (("2025:06:14 10:12:00", "5 ", "+02:00"), "2025-06-14T08:12:00.500+00:00"),
        (("2025:06:14 10:12:00", "050", "-05:30"), "2025-06-14T15:42:00.050+00:00"),
        (("2025:06:14 10:12:00", "what", "CEST"), "2025-06-14T10:12:00+00:00"),
    ],
)
def test_when_it_was_taken(said, utc):
    assert dated(*said) == pytest.approx(datetime.fromisoformat(utc).timestamp(), abs=1e-6)


@pytest.mark.parametrize("said", ["0000:00:00 00:00:00", "    :  :     :  :  ", "2025-06-14 10:12:00", "", "yesterday"])
def test_a_clock_that_was_never_set(said):
    assert dated(said) is None
    assert read_pose(photo()).taken_at_s is None
