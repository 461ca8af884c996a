import pytest

from service.camera.attitude import Attitude
from service.errors import MissingParameter
from service.geo import Circle
from service.imaging.exif import Pose
from service.localization.hints import Hints, resolve

POSE = Pose(
    heading_deg=90.0,
    heading_source="gimbal",
    altitude_m=120.0,
    hfov_deg=70.0,
    lens_source="film",
    position=(24.0, 120.0),
)
SLANTING = Pose(attitude=Attitude.of_angles(30, -45, 2), heading_deg=30.0, heading_source="gimbal")


def test_metadata_fills_what_the_caller_leaves_out():
    known = resolve(Hints(heading_deg=10.0), POSE, 500)
    assert known.prior is None
    assert known.used == {"heading_deg": "form", "altitude_m": "exif", "hfov_deg": "exif"}

    assert known.readings == {"altitude_m": "relative altitude", "hfov_deg": "35 mm focal length"}
    assert known.values == {"heading_deg": 10.0, "altitude_m": 120.0, "hfov_deg": 70.0}


GPS_ONLY = Pose(gps_altitude_m=375.6, hfov_deg=70.0)


def test_a_height_above_the_sea_is_none_above_ground():
    assert resolve(Hints(), GPS_ONLY, 500).camera.height_m is None


def test_a_height_above_the_sea_counts_with_the_grounds():
    known = resolve(Hints(ground_elevation_m=255.6), GPS_ONLY, 500)
    assert known.camera.height_m.value == pytest.approx(120)
    assert known.used["altitude_m"] == "exif"
    assert known.readings["altitude_m"] == "GPS altitude less the ground's elevation"
    assert resolve(Hints(ground_elevation_m=400.0), GPS_ONLY, 500).camera.height_m is None  # under ground


def test_relative_altitude_comes_before_gps_altitude():
    pose = Pose(altitude_m=119.7, gps_altitude_m=375.6, hfov_deg=70.0)
    assert resolve(Hints(ground_elevation_m=0.0), pose, 500).camera.height_m.value == 119.7


@pytest.mark.parametrize(
    ("source", "reading"),
    [("gimbal", "gimbal yaw"), ("flight", "flight yaw"), ("camera", "camera yaw"), ("compass", "GPS image direction")],
)
def test_the_heading_says_where_it_was_read(source, reading):
    pose = Pose(heading_deg=1.0, heading_source=source)
    assert resolve(Hints(), pose, 500).readings == {"heading_deg": reading}


def test_zero_is_a_heading():
    assert resolve(Hints(heading_deg=0.0), POSE, 500).camera.heading_deg.value == 0.0


def test_metadata_can_be_left_alone():
    known = resolve(Hints(use_exif=False), POSE, 500)
    assert (known.camera.heading_deg, known.camera.height_m, known.used) == (None, None, {})


def test_a_height_without_a_field_of_view_says_what_it_lacks():
    known = resolve(Hints(altitude_m=100.0), Pose(), 500)
    assert not known.camera.has_size
    assert known.used == known.values == {}
    assert "hfov_deg" in known.unused["altitude_m"]
    assert resolve(Hints(altitude_m=100.0, hfov_deg=70.0), Pose(), 500).unused == {}


def test_a_field_of_view_alone_counts_for_the_camera():
    known = resolve(Hints(hfov_deg=70.0), Pose(), 500)
    assert (known.used, known.camera.has_size) == ({"hfov_deg": "form"}, False)


def test_a_pitch_of_the_form_comes_before_that_of_the_metadata():
    known = resolve(Hints(pitch_deg=-60.0, roll_deg=3.0), SLANTING, 500)
    assert known.used == {"heading_deg": "exif", "pitch_deg": "form", "roll_deg": "form"}
    assert known.camera.tilt.angles_deg == pytest.approx((0, -60, 3))


def test_the_attitude_of_the_metadata():
    known = resolve(Hints(), SLANTING, 500)
    assert known.values == {"heading_deg": 30.0, "pitch_deg": pytest.approx(-45)}
    assert known.readings["pitch_deg"] == "gimbal pitch"
    assert known.camera.tilt.angles_deg[1:] == pytest.approx((-45, 2))
    assert known.camera.pinhole(0.75).attitude.angles_deg == pytest.approx((30, -45, 2))


def test_a_heading_of_the_form_turns_the_attitude_of_the_metadata():
    known = resolve(Hints(heading_deg=200.0), SLANTING, 500)
    assert known.camera.pinhole(0.75).attitude.angles_deg == pytest.approx((200, -45, 2))


def test_a_roll_alone_says_what_it_lacks():
    known = resolve(Hints(roll_deg=3.0), Pose(), 500)
    assert "pitch_deg" in known.unused["roll_deg"]
    assert known.camera.tilt is None


def test_what_is_not_believed_is_left_out():
    known = resolve(Hints(pitch_deg=-45.0, altitude_m=80.0, hfov_deg=70.0, heading_deg=10.0), Pose(), 500).camera
    assert known.without("pitch_deg").pinhole(0.75, -90).attitude.pitch_deg == pytest.approx(-90)
    assert not known.without("height_m").has_size
    assert known.without("heading_deg").pinhole(0.75).attitude.heading_deg == pytest.approx(0)


def test_form_and_metadata_make_a_ground_size_together():
    known = resolve(Hints(altitude_m=80.0), POSE, 500)
    assert known.used == {"heading_deg": "exif", "altitude_m": "form", "hfov_deg": "exif"}


def test_the_position_is_a_prior_only_when_asked_for():
    known = resolve(Hints(use_exif_position=True), POSE, 500)
    assert (known.prior, known.used["prior"]) == (Circle(24.0, 120.0, 500), "exif")
    assert known.values["prior_radius_m"] == 500


def test_the_callers_prior_wins():
    prior = Circle(1.0, 2.0, 3.0)
    known = resolve(Hints(prior=prior, use_exif_position=True), POSE, 500)
    assert (known.prior, known.used["prior"]) == (prior, "form")


def test_a_position_that_was_asked_for_must_be_there():
    with pytest.raises(MissingParameter, match="prior_lat"):
        resolve(Hints(use_exif_position=True), Pose(), 500)
