"""Which photos tell a flight its lens, and when the flight begins anew."""

from types import SimpleNamespace

import numpy as np
import pytest

from service.camera.attitude import Attitude
from service.camera.known import KnownCamera, Reading
from service.camera.pinhole import Pinhole, apply
from service.localization.refine import Fix
from service.localization.whereabouts import find_camera
from service.tracking.flight import lens_and_camera

HEIGHT_M, PITCH_DEG, HFOV_DEG, ASPECT, STEP_LAT = 100.0, -45.0, 67.0, 0.75, 4e-4
SIGMAS = {"heading_deg": 8.0, "pitch_deg": 0.3, "height_m": 20.0, "hfov_deg": 0.08}


@pytest.fixture
def answer():
    """``answer(n, status, **values)``: to the n-th photo of a flight northwards over level ground, 44 m a photo."""

    def make(n, status="located", source="exif", **values):
        rng = np.random.default_rng(n)
        pinhole = Pinhole(Attitude.of_angles(90.0, PITCH_DEG), HFOV_DEG, ASPECT)
        to_ground = np.diag([HEIGHT_M, HEIGHT_M, 1.0]) @ pinhole.to_ground
        photo = rng.uniform(-0.5, 0.5, 200) + 1j * rng.uniform(-0.37, 0.25, 200)
        ground_m = apply(to_ground, photo) + rng.normal(0, 0.5, 200) + 1j * rng.normal(0, 0.5, 200)
        origin = (24.26 + n * STEP_LAT, 120.72)
        to_ground /= to_ground[2, 2]
        fix = Fix(*origin, 90.0, 200, origin, to_ground, photo, ground_m, np.full(200, 3.0), seen=None)
        said = {"heading_deg": 90.0, "pitch_deg": PITCH_DEG, "height_m": HEIGHT_M, "hfov_deg": 73.7} | values
        readings = {name: Reading(value, SIGMAS[name], source) for name, value in said.items() if value is not None}
        known = KnownCamera(**readings, tilt=Attitude.of_angles(0.0, PITCH_DEG))
        camera, _ = find_camera(fix, known, PITCH_DEG, ASPECT)
        return SimpleNamespace(
            fix=fix,
            whereabouts=SimpleNamespace(camera=camera),
            known=SimpleNamespace(camera=known),
            disputed={},
            verdict=SimpleNamespace(status=status),
        )

    return make


def flown(*answers):
    lens = None
    for each in answers:
        lens, _ = lens_and_camera(lens, each)
    return lens


def test_photos_with_a_stated_field_of_view_tell_the_lens(answer):
    lens = flown(*(answer(n) for n in range(6)))
    assert lens.found.hfov_deg == pytest.approx(HFOV_DEG, abs=1.5)
    assert len(lens.trial.views) == 6


def test_what_the_flight_has_told_goes_on_with_it(answer):
    lens = flown(*(answer(n) for n in range(4)))
    after = flown(*(answer(n) for n in range(4)), answer(4, source="track", hfov_deg=lens.found.hfov_deg))
    assert len(after.trial.views) == 5


@pytest.mark.parametrize("other", [{"hfov_deg": None}, {"status": "ambiguous"}])
def test_a_photo_without_a_field_of_view_or_a_sure_place_tells_nothing_of_the_lens(answer, other):
    photos = [answer(n) for n in range(4)]
    lens = flown(*photos)
    after, camera = lens_and_camera(lens, answer(4, **other))
    assert after is lens
    assert camera is not None  # where it was, the photo alone tells


def test_another_stated_field_of_view_begins_anew(answer):
    lens = flown(*(answer(n) for n in range(4)), answer(4, hfov_deg=40.0))
    assert (lens.stated_deg, lens.found, len(lens.trial.views)) == (40.0, None, 1)
