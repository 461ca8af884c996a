import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidParameter
from service.geo import offset, offset_m
from service.localization.places import Place, PositionError
from service.tracking.filter import GATE, Motion
from service.tracking.track import MAX_GAP_S, MAX_HYPOTHESES, Options, Track, in_gate

ORIGIN = (54.7, 3.0)
AREA_M2 = 600.0**2
SIGMA_M = 10.0
LOST = ()


def place(east_m, north_m, confidence=0.95, sigma_m=SIGMA_M, tile_id="t", error=None):
    lat, lon = offset(*ORIGIN, east_m, north_m)
    return Place(float(lat), float(lon), error or PositionError(sigma_m), confidence, tile_id)


def metres(track):
    motion = track.estimate.motion
    return np.array(offset_m(*ORIGIN, motion.lat, motion.lon))


def straight(track, seconds, start=0, speed=10.0, **kwargs):
    """Fixes of a flight to the east without error, one a second."""
    return [track.update(t, [place(speed * t, 0.0, **kwargs)], AREA_M2) for t in range(start, start + seconds)]


def fly(seed, seconds, wild_share=0.0, lost=LOST, interval_s=0.5, acceleration=0.5):
    """A drone that accelerates at random, fixes with noise, some of them anywhere, some photos lost.

    Returns:
        Errors of fixes and track in metres (NaN where there is none), the track, and the uses of the photos.
    """
    rng = np.random.default_rng(seed)
    track = Track(Options(max_speed_m_s=20.0, acceleration_m_s2=acceleration))
    position, velocity = np.zeros(2), np.array([7.0, 5.0])
    fixes, fused, uses = [], [], []
    for i in range(round(seconds / interval_s)):
        wild = rng.random() < wild_share
        measured = rng.uniform(-300, 300, 2) + position if wild else position + rng.normal(0, SIGMA_M, 2)
        seen = i not in lost
        uses.append(track.update(i * interval_s, [place(*measured)] if seen else [], AREA_M2))
        fixes.append(math.hypot(*(measured - position)) if seen else math.nan)
        known = track.estimate is not None and track.estimate.accuracy_m is not None
        fused.append(math.hypot(*(metres(track) - position)) if known else math.nan)
        position = position + velocity * interval_s
        velocity = velocity + rng.normal(0, acceleration * math.sqrt(interval_s), 2)
        if math.hypot(*velocity) > 15:
            velocity *= 0.8
    return np.array(fixes), np.array(fused), track, uses


def rmse(errors):
    return math.sqrt(np.mean(np.square(errors)))


@pytest.mark.parametrize("seed", range(4))
def test_a_track_errs_less_than_its_fixes(seed):
    """Fixes with independent errors, no wild ones: both averages at most 0.6 of the fixes' own."""
    fixes, fused, _, _ = fly(seed, 120)
    both = np.isfinite(fused)
    assert both.mean() > 0.95
    assert rmse(fused[both]) <= 0.6 * rmse(fixes[both])
    assert np.median(fused[both]) <= 0.65 * np.median(fixes[both])


@pytest.mark.parametrize("seed", range(4))
def test_wild_fixes_do_not_lead_a_track_astray(seed):
    fixes, fused, _, uses = fly(seed, 120, wild_share=0.1)
    both = np.isfinite(fused)
    assert rmse(fused[both]) <= 0.3 * rmse(fixes[both])
    assert np.median(fused[both]) <= 0.65 * np.median(fixes[both])
    assert uses.count("gated") >= 0.5 * 0.1 * len(uses)


@pytest.mark.parametrize("seed", range(4))
def test_a_track_is_found_again_after_ten_lost_photos(seed):
    lost = range(100, 110)
    _, fused, _, uses = fly(seed, 120, wild_share=0.1, lost=lost, interval_s=1.0)
    assert uses[100:110] == ["lost"] * 10
    assert np.nanmin(fused[110:113]) < 3 * SIGMA_M
    assert np.nanmedian(fused[113:]) < SIGMA_M


def test_the_stated_radius_holds_the_truth_for_about_68_percent():
    inside = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        track, position, velocity = Track(Options(20.0, 1.0)), np.zeros(2), np.array([7.0, 5.0])
        for t in range(100):
            track.update(t, [place(*(position + rng.normal(0, SIGMA_M, 2)))], AREA_M2)
            inside.append(math.hypot(*(metres(track) - position)) < track.estimate.accuracy_m)
            position, velocity = position + velocity, velocity + rng.normal(0, 0.8, 2)
            velocity *= min(1.0, 12 / math.hypot(*velocity))
    assert 0.62 < np.mean(inside) < 0.85


def test_the_first_fix_is_the_photos_own():
    track = Track()
    assert track.update(0, [place(3, 4, confidence=0.9)], AREA_M2) == "fused"
    np.testing.assert_allclose(metres(track), [3, 4], atol=1e-3)
    assert track.estimate.confidence == pytest.approx(0.9)
    # the radius of a Gaussian that is right with probability 0.9: 0.9 (1 - exp(-r² / 2σ²)) = 0.68
    assert 0.9 * (1 - math.exp(-(track.estimate.accuracy_m**2) / 2 / SIGMA_M**2)) == pytest.approx(0.68)


def test_what_all_photos_err_by_stays_in_the_stated_error():
    """Ten photos of one spot are sure of each other to 0.16 m, and of the map no more than one is."""
    track, error = Track(), PositionError(own_m=0.5, common_m=2.0)
    for t in range(10):
        track.update(t, [place(3, 4, error=error)], AREA_M2)
    sigma_m = math.sqrt(np.linalg.eigvalsh(track.estimate.covariance_m2)[-1])
    assert 2.0 < sigma_m < math.hypot(2.0, 0.5)
    assert track.estimate.accuracy_m > 1.5 * 2.0
    # the next fix may be off by the whole error, on another sheet of the map: it passes
    assert track.update(10, [place(7, 7, error=error)], AREA_M2) == "fused"


def test_a_photo_without_matches_does_not_turn_a_track_alone():
    """On the track's own side of the gate, an answer that no match speaks for waits for the next photo."""
    track = Track()
    straight(track, 20)
    for t in range(20, 26):
        track.update(t, [], AREA_M2)
    weak = [place(270, 20, 0.5)]
    assert track.update(26, weak, AREA_M2, "unmatched") == "gated"
    np.testing.assert_allclose(metres(track), [260, 0], atol=5)


def test_a_photo_of_nothing_leaves_an_empty_track_empty():
    track = Track()
    assert track.update(0, [], AREA_M2) == "lost"
    assert track.estimate is None


def test_an_unsure_first_photo_gives_no_position():
    track = Track()
    track.update(0, [place(0, 0, 0.4), place(300, 0, 0.35)], AREA_M2, "ambiguous")
    assert track.estimate.accuracy_m is None


def test_of_several_places_the_one_on_the_track_counts():
    """The photo's favourite is far away; the second lies where the track expects the drone."""
    track = Track()
    straight(track, 10)
    use = track.update(
        10, [place(-200, 150, 0.5, tile_id="far"), place(100, 0, 0.3, tile_id="near")], AREA_M2, "ambiguous"
    )
    assert use == "fused"
    assert track.hypotheses[0].place.tile_id == "near"
    np.testing.assert_allclose(metres(track), [100, 0], atol=2)


def test_a_far_answer_is_gated_and_a_second_one_believed():
    """One wild answer changes nothing. When the next ones agree with it, the track goes there."""
    track = Track()
    straight(track, 10)
    assert track.update(10, [place(-200, 150)], AREA_M2) == "gated"
    np.testing.assert_allclose(metres(track), [100, 0], atol=5)
    uses = [track.update(t, [place(-200 + 10 * (t - 10), 150)], AREA_M2) for t in range(11, 15)]
    assert uses[-1] == "fused"
    np.testing.assert_allclose(metres(track), [-160, 150], atol=5)
    assert track.estimate.confidence > 0.9


def test_unsure_photos_of_nowhere_do_not_drag_a_track_away():
    """Ten ambiguous photos, each with a few weak places anywhere: the track may doubt, but it does not follow."""
    rng, track = np.random.default_rng(0), Track()
    straight(track, 20)
    for t in range(20, 30):
        track.update(t, [place(*rng.uniform(-300, 300, 2), 0.15) for _ in range(4)], AREA_M2, "ambiguous")
    straight(track, 3, start=30)
    np.testing.assert_allclose(metres(track), [320, 0], atol=15)
    assert track.estimate.accuracy_m is not None


def test_unsure_photos_that_agree_do_not_lead_a_track_away_at_once():
    """Three ambiguous photos in a row of one wrong place, as a look-alike outside of the map gives them."""
    track = Track()
    straight(track, 20)
    for t in range(20, 23):
        assert track.update(t, [place(-200, 150, 0.65)], AREA_M2, "ambiguous") == "gated"
    np.testing.assert_allclose(metres(track), [220, 0], atol=10)
    assert track.estimate.confidence > 0.8


def test_a_lost_photo_is_predicted():
    track = Track()
    straight(track, 20)
    before = track.estimate
    assert track.update(25, [], AREA_M2) == "lost"
    np.testing.assert_allclose(metres(track), [250, 0], atol=10)
    assert track.estimate.accuracy_m > before.accuracy_m
    assert track.estimate.confidence < before.confidence


def test_more_than_the_largest_speed_is_not_fused():
    track = Track(Options(max_speed_m_s=5.0, acceleration_m_s2=50.0))
    straight(track, 5, speed=1.0, sigma_m=2.0)
    assert track.update(5, [place(60, 0, sigma_m=2.0)], AREA_M2) == "gated"


def test_after_a_long_gap_the_track_starts_anew():
    track = Track()
    straight(track, 5)
    assert track.update(5 + MAX_GAP_S, [], AREA_M2) == "lost"
    assert track.estimate is None
    assert track.update(6 + MAX_GAP_S, [place(-100, 50)], AREA_M2) == "fused"
    np.testing.assert_allclose(metres(track), [-100, 50], atol=1e-3)


@pytest.mark.parametrize("timestamp", [4.0, 3.9, -1e9])
def test_a_timestamp_must_increase(timestamp):
    track = Track()
    straight(track, 5)
    before = track.hypotheses
    with pytest.raises(InvalidParameter, match="later timestamp"):
        track.update(timestamp, [place(0, 0)], AREA_M2)
    assert (track.hypotheses, track.timestamp_s) == (before, 4)


def test_the_predicted_area_holds_the_next_fix_and_grows():
    track = Track()
    assert track.predicted_area(0, SIGMA_M) is None
    straight(track, 20)
    area = track.predicted_area(20, SIGMA_M)
    east_m, north_m = offset_m(*ORIGIN, area.lat, area.lon)
    assert (east_m, north_m) == pytest.approx((200, 0), abs=3)
    assert area.radius_m > 3 * SIGMA_M
    assert track.predicted_area(50, SIGMA_M).radius_m > 2 * area.radius_m


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32))
def test_the_gate_equals_brute_force(seed):
    rng = np.random.default_rng(seed)
    track = Track()
    straight(track, int(rng.integers(1, 12)))
    motion: Motion = track.hypotheses[0].motion
    candidate = place(*rng.normal(metres(track), 30), sigma_m=float(rng.uniform(2, 20)))
    gap = np.array(offset_m(motion.lat, motion.lon, candidate.lat, candidate.lon))
    expected = motion.covariance[:2, :2] + candidate.error.sigma_m**2 * np.eye(2)
    assert in_gate(motion, candidate) == (gap @ np.linalg.inv(expected) @ gap <= GATE)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.lists(st.tuples(st.floats(-400, 400), st.floats(-400, 400), st.floats(0, 1)), max_size=4), max_size=12)
)
def test_whatever_comes_the_weights_are_probabilities(photos):
    track = Track()
    for t, candidates in enumerate(photos):
        track.update(
            3.0 * t, [place(*each) for each in candidates], AREA_M2, ("located", "ambiguous", "unmatched")[t % 3]
        )
        weights = [each.weight for each in track.hypotheses]
        assert len(weights) <= MAX_HYPOTHESES
        assert 0 <= track.lost <= 1
        assert sum(weights) + track.lost == pytest.approx(1, abs=1e-3)  # what is pruned is lost
        assert weights == sorted(weights, reverse=True)
        for each in track.hypotheses:
            assert np.linalg.eigvalsh(each.motion.covariance).min() > 0
    assert sum(track.uses.values()) == len(photos)
