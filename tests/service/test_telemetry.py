import json
import logging
import sys

import pytest

from service.telemetry import JsonFormatter, Stopwatch, request_id


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
