import math

import numpy as np
import pytest

from service.camera.attitude import Attitude
from service.camera.known import KnownCamera, Reading
from service.camera.look import look_of
from service.camera.pinhole import Pinhole, apply
from service.localization.disputes import disputes
from service.localization.refine import Fix
from service.localization.rerank import Seen
from service.localization.whereabouts import find_camera

ORIGIN, HEIGHT_M, HEADING_DEG, HFOV_DEG, ASPECT = (24.26, 120.72), 100.0, 60.0, 70.0, 0.75
SIGMAS = {"heading_deg": 8.0, "pitch_deg": 0.3, "height_m": 20.0, "hfov_deg": 0.08}


def fix_of(pitch_deg, seed=0):
    """A photo that lies as a camera at the origin sees level ground, with matches half a metre off."""
    rng = np.random.default_rng(seed)
    camera = Pinhole(Attitude.of_angles(HEADING_DEG, pitch_deg), HFOV_DEG, ASPECT)
    to_ground = np.diag([HEIGHT_M, HEIGHT_M, 1.0]) @ camera.to_ground
    photo = rng.uniform(-0.5, 0.5, 200) + 1j * rng.uniform(-0.37, 0.25, 200)
    ground_m = apply(to_ground, photo) + rng.normal(0, 0.5, 200) + 1j * rng.normal(0, 0.5, 200)
    seen = Seen(look_of(camera, north_up=True), np.zeros((1, 1, 1, 1), np.float32))
    to_ground /= to_ground[2, 2]
    return Fix(*ORIGIN, HEADING_DEG, 200, ORIGIN, to_ground, photo, ground_m, np.full(200, 3.0), seen)


def camera(source="form", **values):
    said = {"heading_deg": HEADING_DEG, "pitch_deg": -45.0, "height_m": HEIGHT_M, "hfov_deg": HFOV_DEG} | values
    readings = {name: Reading(value, SIGMAS[name], source) for name, value in said.items() if value is not None}
    tilt = None if said["pitch_deg"] is None else Attitude.of_angles(0.0, said["pitch_deg"])
    return KnownCamera(**readings, tilt=tilt)


@pytest.mark.parametrize("pitch_deg", [-90.0, -60.0, -45.0])
def test_what_is_right_is_not_disputed(pitch_deg):
    assert disputes(fix_of(pitch_deg), camera(pitch_deg=pitch_deg), pitch_deg, ASPECT) == {}


@pytest.mark.parametrize("pitch_deg", [-90.0, -45.0])
@pytest.mark.parametrize(
    ("wrong", "name"), [({"heading_deg": 240.0}, "heading_deg"), ({"height_m": 328.0}, "altitude_m")]
)
def test_a_wrong_heading_and_feet_for_metres_are_named(pitch_deg, wrong, name):
    found = disputes(fix_of(pitch_deg), camera("exif", **wrong | {"pitch_deg": pitch_deg}), pitch_deg, ASPECT)
    assert list(found) == [name]


@pytest.mark.parametrize(("true", "said"), [(-45.0, -90.0), (-90.0, -45.0), (-60.0, -90.0)])
def test_a_wrong_pitch_is_named(true, said):
    found = disputes(fix_of(true), camera(pitch_deg=said, height_m=None), true, ASPECT)
    assert list(found) == ["pitch_deg"]


def test_a_wrong_lens_is_named_by_the_slant_or_beside_the_height():
    half = math.degrees(2 * math.atan(math.tan(math.radians(HFOV_DEG) / 2) / 2))
    assert "hfov_deg" in disputes(fix_of(-45.0), camera(hfov_deg=half), -45.0, ASPECT)
    for said in (-90.0, None):
        straight_down = disputes(fix_of(-90.0), camera(hfov_deg=half, pitch_deg=said), -90.0, ASPECT)
        assert set(straight_down) == {"altitude_m", "hfov_deg"}  # which of the two, nobody can tell


def test_straight_down_without_a_lens_the_place_is_known_and_the_height_is_not():
    found, missing = find_camera(fix_of(-90.0), camera(hfov_deg=None, height_m=None, pitch_deg=None), -90.0, ASPECT)
    assert (found.height_m, found.hfov_deg) == (None, None)
    assert "hfov_deg" in missing
    assert abs(found.lat - ORIGIN[0]) < 1e-4
    assert found.sigma_m > 3  # nobody said that it looks straight down
