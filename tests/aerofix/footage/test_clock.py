"""The times of a live stream's frames do not depend on how late each of them comes."""

import pytest

from aerofix.footage.clock import StreamClock


def times(stream, delays, clock=None):
    """What the clock says of frames at ``stream`` seconds that come so much later by the machine's clock."""
    clock = clock or StreamClock()
    return [clock.taken_s(at, 1e6 + at + delay) for at, delay in zip(stream, delays, strict=True)]


def test_frames_that_were_held_back_are_told_as_those_that_were_not():
    stream = [i / 10 for i in range(40)]
    delays = [max(0.1, 0.9 - at) if at < 1 else 0.1 + 0.3 * (i % 3 == 0) for i, at in enumerate(stream)]
    told = times(stream, delays)
    assert told[:5] == [None] * 5  # it settles
    later = [(at, time) for at, time in zip(stream, told, strict=True) if at > 2]
    assert [time for _, time in later] == pytest.approx([1e6 + at + 0.1 for at, _ in later], abs=0.005)


def test_a_stream_that_counts_anew_or_was_paused_is_followed():
    clock = StreamClock()
    times([0.0, 1.0, 2.0], [0.1] * 3, clock)
    assert clock.taken_s(0.0, 1e6 + 10.0) == 1e6 + 10.0
    assert clock.taken_s(1.0, 1e6 + 11.0) == pytest.approx(1e6 + 11.0)


def test_a_slow_sender_is_followed_for_hours():
    stream = [i / 2 for i in range(20_000)]
    delays = [0.1 + 50e-6 * at for at in stream]  # 50 parts per million, as of a cheap crystal
    assert times(stream, delays)[-1] == pytest.approx(1e6 + stream[-1] + delays[-1], abs=0.01)
