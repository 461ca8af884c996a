"""What gets to stderr: one line for each thing, JSON for machines and text for people, whoever wrote it."""

import gc
import json
import logging
import os
import pty
import re
import subprocess
import sys
import threading
import warnings

import pytest

from service.logs import JsonFormatter, TextFormatter, configure_logging
from service.telemetry import request_id

NASTY = "a\nb\x85c\u2028d\x1b[31me\x7ff\u202eg\udc80h"
SHOWN = r"a\u000ab\u0085c\u2028d\u001b[31me\u007ff\u202eg\udc80h"


def record(**fields):
    return logging.makeLogRecord(
        {"name": "service.n", "levelname": "INFO", "msg": "hello %s", "args": ("you",)} | fields
    )


def line(**fields):
    return json.loads(JsonFormatter().format(record(**fields)))


@pytest.fixture
def in_request():
    token = request_id.set("abc")
    yield
    request_id.reset(token)


def raised(error):
    try:
        raise error
    except type(error):
        return sys.exc_info()


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


def test_a_line_belongs_to_its_request(in_request):
    assert line()["request_id"] == "abc"
    assert TextFormatter().format(record()).endswith("hello you request_id=abc")


def test_exceptions_stay_on_one_line_of_json():
    text = JsonFormatter().format(record(exc_info=raised(ValueError(NASTY))))
    assert len(text.splitlines()) == 1
    assert NASTY in json.loads(text)["exception"]


def test_text_is_to_read():
    text = TextFormatter().format(record(status=200, path="/livez"))
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO    n: hello you status=200 path=/livez", text)
    first, *stack = TextFormatter().format(record(exc_info=raised(ValueError("bad")))).split("\n")
    assert first.endswith("n: hello you")
    assert stack[0] == "    Traceback (most recent call last):"
    assert stack[-1] == "    ValueError: bad"


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_what_others_wrote_ends_no_line_and_steers_no_terminal(formatter):
    text = formatter.format(record(msg="%s", args=(NASTY,), path=NASTY))
    assert len(text.splitlines()) == 1
    assert text.isprintable()
    assert text.count(SHOWN) + text.count(SHOWN.replace(r"\u000a", r"\n")) == 2  # JSON has a short form of that one
    failed = formatter.format(record(exc_info=raised(ValueError("x\x85\x1b\u202e"))))
    assert all(each.isprintable() for each in failed.split("\n"))


def test_logs_are_json_on_stderr_that_is_no_terminal(capsys):
    configure_logging("INFO")
    logging.getLogger("service.anything").info("hello", extra={"number": 7})
    logging.getLogger("python_multipart").warning("a damaged body")
    lines = [json.loads(each) for each in capsys.readouterr().err.splitlines()]
    assert [(each["message"], each["number"]) for each in lines] == [("hello", 7)]


def test_the_format_can_be_told(capsys):
    configure_logging("INFO", "text")
    logging.getLogger("service.anything").warning("hello")
    assert capsys.readouterr().err.endswith("WARNING anything: hello\n")


SAY_HELLO = (
    "import logging; from service.logs import configure_logging; configure_logging('INFO', %r); logging.info('hi')"
)


@pytest.mark.parametrize(("style", "is_json"), [("auto", False), ("json", True)])
def test_a_terminal_gets_text_unless_told(style, is_json):
    ours, theirs = pty.openpty()
    try:
        subprocess.run([sys.executable, "-c", SAY_HELLO % style], stderr=theirs, check=True)
        said = os.read(ours, 10_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert said.startswith("{") == is_json
    assert "hi" in said


class Grudge:
    """Fails when nobody can catch it."""

    def __del__(self):
        raise ValueError(f"unraisable {NASTY}")


def fail():
    raise ValueError(f"in a thread {NASTY}")


def test_warnings_and_errors_that_nobody_catches_are_lines_of_the_log_too(capsys):
    configure_logging("INFO")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"python {NASTY}", UserWarning, stacklevel=1)
    thread = threading.Thread(target=fail, name="worker")
    thread.start()
    thread.join()
    grudge = Grudge()
    del grudge
    gc.collect()
    lines = [json.loads(each) for each in capsys.readouterr().err.splitlines()]
    assert [each["logger"] for each in lines] == ["py.warnings", "service.logs", "service.logs"]
    assert "python" in lines[0]["message"]
    assert "worker" in lines[1]["message"]
    assert "in a thread" in lines[1]["exception"]
    assert "unraisable" in lines[2]["exception"]


BROKEN_TIFF = """
import io, logging, sys, warnings
from PIL import Image
from service.logs import configure_logging
configure_logging("INFO", "json")
out = io.BytesIO()
Image.effect_noise((64, 64), 50).save(out, "TIFF", compression="jpeg")
data = out.getvalue()
for damage in range(20, len(data), 7):
    try:
        Image.open(io.BytesIO(data[:damage] + bytes([data[damage] ^ 255]) + data[damage + 1:])).load()
    except Exception as error:
        logging.info("%s", error)
"""


def test_a_library_in_c_writes_no_lines_of_its_own():
    said = subprocess.run([sys.executable, "-c", BROKEN_TIFF], capture_output=True, text=True, check=True).stderr
    loggers = {json.loads(each)["logger"] for each in said.splitlines()}
    assert {"root"} <= loggers <= {"root", "py.warnings"}


def test_gdal_says_one_line_of_a_damaged_file_and_others_all_of_theirs(capsys, monkeypatch):
    configure_logging("INFO", "text")
    for name in ("rasterio._env", "rasterio._env", "service.n", "service.n"):
        logging.getLogger(name).warning("tags are not sorted")
    assert [line.split()[2] for line in capsys.readouterr().err.splitlines()] == ["rasterio._env:", "n:", "n:"]
    monkeypatch.setattr("service.logs.SELDOM_S", 0.0)
    configure_logging("INFO", "text")
    for _ in range(2):
        logging.getLogger("rasterio._env").warning("tags are not sorted")
    assert len(capsys.readouterr().err.splitlines()) == 2
