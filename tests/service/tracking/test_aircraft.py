"""The aircraft beside its point on the ground."""

import math

import numpy as np
import pytest

from service.geo import offset, offset_m
from service.localization.places import CameraFix, Place, PositionError
from service.tracking.filter import Shift
from service.tracking.track import Options, Track

ORIGIN = (54.7, 3.0)
LEAD_M = 120.0
ALONG_M, ACROSS_M = 6.0, 2.0


def place(east_m, north_m, heading_deg, error=(0.0, 0.0), camera=True, confidence=0.95, tile_id="t"):
    """What a photo from an aircraft at ``east_m, north_m`` shows, 120 m ahead, with an error of the camera's place."""
    toward = np.array([math.sin(math.radians(heading_deg)), math.cos(math.radians(heading_deg))])
    across = np.array([toward[1], -toward[0]])
    lat, lon = offset(*ORIGIN, *(np.array([east_m, north_m]) + LEAD_M * toward))
    at = np.array([east_m, north_m]) + error[0] * toward + error[1] * across
    covariance = ALONG_M**2 * np.outer(toward, toward) + ACROSS_M**2 * np.outer(across, across)
    fix = CameraFix(*map(float, offset(*ORIGIN, *at)), covariance, 0.0, 120.0, heading_deg)
    return Place(float(lat), float(lon), PositionError(3.0), confidence, tile_id, fix if camera else None)


def off_m(track, east_m, north_m):
    return math.hypot(
        *(np.array(offset_m(*ORIGIN, track.shown.motion.lat, track.shown.motion.lon)) - (east_m, north_m))
    )


def test_the_aircraft_is_smoother_than_its_fixes():
    rng = np.random.default_rng(1)
    track, alone, fused, inside = Track(Options(acceleration_m_s2=0.2)), [], [], []
    for t in range(60):
        error = rng.normal(0, ALONG_M), rng.normal(0, ACROSS_M)
        assert track.update(t, [place(10.0 * t, 0, 45.0, error)], 1e6) == "fused"
        alone.append(math.hypot(*error))
        fused.append(off_m(track, 10.0 * t, 0))
        inside.append(track.shown.accuracy_m is not None and fused[-1] < track.shown.accuracy_m)
    assert np.mean(fused[10:]) < 0.6 * np.mean(alone[10:])
    assert np.mean(inside[10:]) > 0.6
    assert track.shown.motion.velocity_m_s == pytest.approx([10, 0], abs=1)
    assert track.aircraft.height_m == 120
    assert math.hypot(*offset_m(*ORIGIN, track.estimate.motion.lat, track.estimate.motion.lon)) > 600  # far ahead


def test_a_drone_that_turns_on_the_spot_keeps_its_place():
    """The point on the ground jumps by 170 m in a second, which no aircraft could follow."""
    track = Track(Options(max_speed_m_s=20.0))
    for t, heading in enumerate([0, 0, 0, 90, 180, 180, 270]):
        assert track.update(t, [place(0, 0, heading)], 1e6) == "fused"
        assert off_m(track, 0, 0) < 3
    assert math.hypot(*track.shown.motion.velocity_m_s) < 3


def test_the_point_on_the_ground_swings_and_the_aircraft_does_not():
    """Its measured movement of 85 m is one of a turn."""
    track = Track(Options(acceleration_m_s2=0.5))
    for t in range(6):
        track.update(t, [place(0, 0, 0)], 1e6)
    track.update(6, [], 1e6, shift=Shift(85.0, -35.0, 0.5, 3.0))
    assert off_m(track, 0, 0) < 3


def test_another_place_is_no_turn():
    track = Track(Options(max_speed_m_s=20.0))
    for t in range(5):
        track.update(t, [place(0, 0, 0)], 1e6)
    assert track.update(5, [place(400, 300, 0, tile_id="wild")], 1e6) == "gated"
    assert track.update(6, [place(0, 160, 0, tile_id="wild")], 1e6) == "gated"  # near enough, but the camera is not
    assert off_m(track, 0, 0) < 6


def test_without_a_camera_the_point_on_the_ground_is_told():
    track = Track()
    track.update(0, [place(0, 0, 0, camera=False)], 1e6)
    assert track.aircraft is None
    assert off_m(track, 0, LEAD_M) < 1
    track.update(1, [place(0, 0, 0)], 1e6)
    assert off_m(track, 0, 0) < 1
    track.update(2, [], 1e6)
    assert track.aircraft is not None  # it goes on, less surely
    for t in range(3, 60):
        track.update(t, [], 1e6)
    assert track.aircraft is None


def test_a_wild_camera_moves_the_aircraft_little():
    track = Track(Options(acceleration_m_s2=0.2))
    for t in range(20):
        track.update(t, [place(10.0 * t, 0, 45.0)], 1e6)
    track.update(20, [place(200, 0, 45.0, error=(80, 0))], 1e6)
    assert off_m(track, 200, 0) < 20


def test_the_history_tells_which_point_is_meant():
    track = Track()
    for t, places in enumerate([[], [place(0, 0, 0, camera=False)], [place(0, 0, 0)]]):
        track.note(track.update(t, places, 1e6), "located" if places else "not_found")
    assert [(each.timestamp_s, each.use) for each in track.history] == [(0, "lost"), (1, "fused"), (2, "fused")]
    assert track.history[0].passed is None
    assert [each.passed.reference for each in list(track.history)[1:]] == ["ground point at image centre", "camera"]
    assert track.history[2].passed.height_m == 120
