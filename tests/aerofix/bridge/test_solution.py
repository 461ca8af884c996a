"""What a photo of a flight lets an autopilot hear, and what it does not."""

import pytest

from aerofix.bridge.solution import Solution, solve
from aerofix.models import Camera, TrackedLocalization, Velocity


@pytest.fixture
def step():
    """``step(**fields)``: an answer that is located and fused, unless a field says otherwise."""

    def make(status="located", use="fused", camera=True, **fields):
        where = Camera(
            lat=24.26,
            lon=120.72,
            height_m=100.0,
            heading_deg=-10.0,
            pitch_deg=-90.0,
            roll_deg=0.0,
            hfov_deg=70.0,
            accuracy_m=6.0,
        )
        photo = {"status": status, "position": None, "camera": where if camera else None, "camera_missing": "no lens."}
        known = TrackedLocalization.model_construct(
            track_id="t",
            use=use,
            fused_tile_id=None,
            timestamp_s=1.0,
            confidence=0.9,
            position=object(),
            velocity=Velocity(east_m_s=4.0, north_m_s=3.0, speed_m_s=5.0, course_deg=53.1),
            photo=type("P", (), photo)(),
        )
        return known.model_copy(update=fields)

    return make


def test_all_that_is_known_is_heard(step):
    known = Solution(7.0, 24.26, 120.72, 6.0, 350.0, 100.0, 130.0, (3.0, 4.0))
    assert solve(step(), 7.0, 30.0) == known


def test_no_altitude_without_the_grounds(step):
    solution = solve(step(), 7.0)
    assert (solution.height_m, solution.altitude_m, solution.sigma_down_m) == (100.0, None, None)


def test_a_height_is_no_surer_than_a_share_of_itself(step):
    assert solve(step(), 7.0, 0.0).sigma_down_m == pytest.approx(5.0)


@pytest.mark.parametrize("given", [{"first": True}, {}])
def test_no_speed_before_a_second_fix(step, given):
    known = step() if given else step(position=None)
    assert solve(known, 7.0, **given).velocity_m_s is None


def test_no_speed_of_a_motion_that_has_just_begun(step):
    assert solve(step(velocity=None), 7.0).velocity_m_s is None


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"status": "ambiguous"}, "ambiguous"),
        ({"status": "not_found"}, "not_found"),
        ({"use": "gated"}, "does not fit the flight"),
        ({"use": "lost"}, "does not fit the flight"),
        ({"camera": False}, "no lens."),
    ],
)
def test_what_is_not_sure_is_silence(step, fields, why):
    assert solve(step(**fields), 7.0) == why
