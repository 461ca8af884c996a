import math

import pytest

from service.camera.attitude import Attitude
from service.camera.known import KnownCamera, Reading
from service.localization.looks import LOOKS, plan_looks

ASPECT = 0.75


def camera(**values):
    """What a caller states: ``heading_deg``, ``pitch_deg``, ``height_m``, ``hfov_deg``."""
    sigmas = {"heading_deg": 8.0, "pitch_deg": 0.3, "height_m": 20.0, "hfov_deg": 0.08}
    readings = {name: Reading(value, sigmas[name], "form") for name, value in values.items()}
    tilt = Attitude.of_angles(0.0, values["pitch_deg"]) if "pitch_deg" in values else None
    return KnownCamera(**readings, tilt=tilt)


ALL = {"heading_deg": 30.0, "pitch_deg": -45.0, "height_m": 100.0, "hfov_deg": 70.0}


def test_the_first_look_believes_all_and_each_of_the_next_leaves_one_out():
    plans = plan_looks(camera(**ALL), "normal")
    assert [plan.without for plan in plans[:5]] == [
        (),
        ("altitude_m",),
        ("heading_deg",),
        ("pitch_deg",),
        ("altitude_m", "heading_deg"),
    ]
    assert [len(plan_looks(camera(**ALL), effort)) for effort in LOOKS] == list(LOOKS.values())


@pytest.mark.parametrize(("said", "guess"), [(-90.0, -45.0), (-75.0, -45.0), (-45.0, -90.0), (-60.0, -90.0)])
def test_in_the_stead_of_a_pitch_that_is_not_believed_another_is_looked_at(said, guess):
    plans = plan_looks(camera(**ALL | {"pitch_deg": said}), "normal")
    (without,) = [plan for plan in plans if plan.without == ("pitch_deg",)]
    assert without.pitch_deg == guess
    assert without.known.pitch_deg is None


@pytest.mark.parametrize("said", [-90.0, -85.0, -60.0, -45.0])
def test_nothing_is_looked_at_twice(said):
    """Without height and heading, a camera that looks straight down is as one of which nothing is known."""
    plans = plan_looks(camera(**ALL | {"pitch_deg": said}), "thorough")
    seen = [(p.pitch_deg, p.turn_deg) for p in plans if not p.heading_known and not p.known.has_size]
    assert len(seen) >= 3
    alike = [(a, b) for i, a in enumerate(seen) for b in seen[:i] if a[1] == b[1] and abs(a[0] - b[0]) <= 10]
    assert not alike


def test_a_photo_of_which_nothing_is_known_is_looked_at_from_several_pitches():
    plans = plan_looks(KnownCamera(), "normal")
    assert {plan.pitch_deg for plan in plans} >= {-90.0, -60.0, -45.0}
    assert all(plan.without == () for plan in plans)


def test_hints_bound_what_a_square_can_be_on_the_ground():
    believed, bare = plan_looks(camera(**ALL), "normal")[0], plan_looks(KnownCamera(), "normal")[0]
    look = believed.look(ASPECT)
    smallest, largest = believed.sides_m(look)
    assert math.sqrt(smallest * largest) == pytest.approx(believed.side_m(look))
    assert 1.5 < largest / believed.side_m(look) < 2.0
    assert believed.within_deg(4) == believed.within_deg(1) == pytest.approx(34.0)
    assert bare.sides_m(bare.look(ASPECT)) == (0.0, math.inf)
    assert (bare.within_deg(4), bare.within_deg(1)) == (60.0, 180.0)
    guessed = plan_looks(camera(height_m=100.0, hfov_deg=70.0), "normal")[0]
    assert guessed.sides_m(guessed.look(ASPECT))[1] / guessed.side_m(guessed.look(ASPECT)) > 2.0
