import json
import logging
import sys

import pytest

from service.telemetry import (
    JsonFormatter,
    RequestRecord,
    Stopwatch,
    configure_logging,
    current_request,
    record_step,
    request_id,
    step,
)


def line(**fields):
    record = logging.makeLogRecord({"name": "n", "levelname": "INFO", "msg": "hello %s", "args": ("you",)} | fields)
    return json.loads(JsonFormatter().format(record))


def test_a_line_is_json_with_the_extra_fields():
    logged = line(status=200, path="/livez")
    assert (logged["message"], logged["level"], logged["status"], logged["path"]) == (
        "hello you",
        "INFO",
        200,
        "/livez",
    )
    assert "request_id" not in logged
    assert logged["time"].endswith("Z")


def test_a_line_belongs_to_its_request():
    token = request_id.set("abc")
    try:
        assert line()["request_id"] == "abc"
    finally:
        request_id.reset(token)


def test_exceptions_stay_on_one_line():
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        record = logging.makeLogRecord({"exc_info": sys.exc_info()})
    text = JsonFormatter().format(record)
    assert "\n" not in text
    assert "ValueError" in json.loads(text)["exception"]


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


def test_logs_are_json_on_stderr(capsys):
    configure_logging("INFO")
    logging.getLogger("service.anything").info("hello", extra={"number": 7})
    logging.getLogger("python_multipart").warning("a damaged body")
    lines = [json.loads(each) for each in capsys.readouterr().err.splitlines()]
    assert [(each["message"], each["number"]) for each in lines] == [("hello", 7)]
