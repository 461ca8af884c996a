import pytest

from service.errors import MissingParameter
from service.geo import Circle
from service.imaging.exif import Pose
from service.localization.hints import Hints, resolve

POSE = Pose(heading_deg=90.0, heading_source="gimbal", altitude_m=120.0, hfov_deg=70.0, position=(24.0, 120.0))


def test_metadata_fills_what_the_caller_leaves_out():
    known = resolve(Hints(heading_deg=10.0), POSE, 500)
    assert (known.heading_deg, known.altitude_m, known.hfov_deg, known.prior) == (10.0, 120.0, 70.0, None)
    assert known.used == {"heading_deg": "form", "altitude_m": "exif", "hfov_deg": "exif"}

    assert known.readings == {"altitude_m": "relative altitude", "hfov_deg": "35 mm focal length"}
    assert known.values == {"heading_deg": 10.0, "altitude_m": 120.0, "hfov_deg": 70.0}


GPS_ONLY = Pose(gps_altitude_m=375.6, hfov_deg=70.0)


def test_a_height_above_the_sea_is_none_above_ground():
    assert resolve(Hints(), GPS_ONLY, 500).altitude_m is None


def test_a_height_above_the_sea_counts_with_the_grounds():
    known = resolve(Hints(ground_elevation_m=255.6), GPS_ONLY, 500)
    assert known.altitude_m == pytest.approx(120)
    assert known.used["altitude_m"] == "exif"
    assert known.readings["altitude_m"] == "GPS altitude less ground_elevation_m"
    assert resolve(Hints(ground_elevation_m=400.0), GPS_ONLY, 500).altitude_m is None  # under ground


def test_relative_altitude_comes_before_gps_altitude():
    pose = Pose(altitude_m=119.7, gps_altitude_m=375.6, hfov_deg=70.0)
    assert resolve(Hints(ground_elevation_m=0.0), pose, 500).altitude_m == 119.7


@pytest.mark.parametrize(
    ("source", "reading"),
    [("gimbal", "gimbal yaw"), ("flight", "flight yaw"), ("camera", "camera yaw"), ("compass", "GPS image direction")],
)
def test_the_heading_says_where_it_was_read(source, reading):
    pose = Pose(heading_deg=1.0, heading_source=source)
    assert resolve(Hints(), pose, 500).readings == {"heading_deg": reading}


def test_zero_is_a_heading():
    assert resolve(Hints(heading_deg=0.0), POSE, 500).heading_deg == 0.0


def test_metadata_can_be_left_alone():
    known = resolve(Hints(use_exif=False), POSE, 500)
    assert (known.heading_deg, known.altitude_m, known.used) == (None, None, {})


@pytest.mark.parametrize("hints", [Hints(altitude_m=100.0), Hints(hfov_deg=70.0)])
def test_half_of_a_ground_size_does_not_count(hints):
    known = resolve(hints, Pose(), 500)
    assert (known.altitude_m, known.hfov_deg, known.used) == (None, None, {})


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
