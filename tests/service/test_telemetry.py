import pytest

from service.telemetry import (
    RequestRecord,
    Stopwatch,
    current_request,
    record_step,
    step,
)


def test_laps_add_up(monkeypatch):
    now = iter([10.0, 10.5, 12.0, 13.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    watch = Stopwatch()
    watch.lap("a")
    watch.lap("b")
    assert watch.ms == {"a": 500.0, "b": 1500.0}
    assert watch.total_ms() == pytest.approx(3000.0)


@pytest.fixture
def record():
    record = RequestRecord("abc", "GET", 0.0)
    token = current_request.set(record)
    yield record
    current_request.reset(token)


def test_steps_belong_to_the_request_until_it_is_over(record):
    with step("decode"):
        pass
    record_step("encode", 1.0, 2.0)
    record.open = False
    record_step("import", 3.0, 4.0)  # a job that the request started
    assert [each.name for each in record.steps] == ["decode", "encode"]
    assert record.steps[0].ended >= record.steps[0].started


def test_a_step_that_fails_is_noted_too(record):
    with pytest.raises(ValueError, match="bad"), step("decode"):
        raise ValueError("bad")
    assert [each.name for each in record.steps] == ["decode"]


def test_outside_a_request_a_step_is_nothing():
    record_step("decode", 1.0, 2.0)


def test_laps_are_steps_and_skips_are_not(record):
    watch = Stopwatch()
    watch.lap("decode")
    watch.skip()
    watch.lap("search")
    assert [each.name for each in record.steps] == ["decode", "search"]
    assert record.steps[0].ended <= record.steps[1].started
