"""The log on stderr: lines for people on a terminal, JSON objects for machines. Nothing else of the process gets there.

What others wrote cannot end a line, steer a terminal or hide: see ``text.visible``.
"""

import ctypes
import json
import logging
import math
import sys
import threading
import time
from contextlib import suppress
from typing import Literal

from PIL import _imaging

from service.telemetry import request_id
from service.text import visible

Format = Literal["auto", "json", "text"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}

SELDOM_S = 60.0
"""After a warning of GDAL's the next ones are left out for so long: there are several for each damaged file, and the
same again for its blocks."""

log = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, request id, and the fields passed as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record; exceptions become one string field."""
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        line |= _fields(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return visible(json.dumps(line, ensure_ascii=False, default=str))


class TextFormatter(logging.Formatter):
    """A line to read: local time, level, logger, message, and the fields as ``name=value``; below it, an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        text = visible(f"{at} {record.levelname:7} {record.name.removeprefix('service.')}: {_message(record)}{fields}")
        if record.exc_info:
            text += "".join(f"\n    {visible(line)}" for line in self.formatException(record.exc_info).split("\n"))
        return text


class GdalSeldom(logging.Filter):
    """Lets one warning of GDAL's through in ``SELDOM_S``, and all that others say."""

    def __init__(self) -> None:
        super().__init__()
        self._quiet_until = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is to be written."""
        if not record.name.startswith("rasterio"):
            return True
        now = time.monotonic()
        heard = now >= self._quiet_until
        if heard:
            self._quiet_until = now + SELDOM_S
        return heard


def configure_logging(level: str, style: Format = "auto") -> None:
    """Send all logs of the process to stderr, and what libraries would print there by themselves.

    Those are uvicorn's lines, Python's warnings, errors in threads and finalizers, and what Pillow's TIFF library says.

    Args:
        level: the least severe that is written.
        style: ``auto`` is ``text`` on a terminal and ``json`` elsewhere.
    """
    handler = logging.StreamHandler(sys.stderr)
    for_people = sys.stderr.isatty() if style == "auto" else style == "text"
    handler.setFormatter(TextFormatter() if for_people else JsonFormatter())
    handler.addFilter(GdalSeldom())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    threading.excepthook = _log_thread
    sys.unraisablehook = _log_unraisable
    logging.getLogger("uvicorn.access").disabled = True  # access_log says it with the request id and duration
    for chatty in ("httpx", "faiss.loader", "rasterio"):  # an error of rasterio's is raised as well
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a line for every damaged body, which is answered
    _silence_libtiff()


def _message(record: logging.LogRecord) -> str:
    """The message; of a warning of Python without the line of source that follows."""
    text = record.getMessage()
    return text.partition("\n")[0] if record.name == "py.warnings" else text


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """The request's id and what was passed as ``extra``."""
    current = request_id.get()
    fields: dict[str, object] = {} if current is None else {"request_id": current}
    return fields | {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _log_thread(failed: threading.ExceptHookArgs) -> None:
    name = "" if failed.thread is None else failed.thread.name
    error = failed.exc_value or failed.exc_type()
    log.error("the thread %s ended with an error", name, exc_info=error)


def _log_unraisable(failed: "sys.UnraisableHookArgs") -> None:
    log.error("%s: %r", failed.err_msg or "an error that nobody can catch", failed.object, exc_info=failed.exc_value)


def _silence_libtiff() -> None:
    """Stop the TIFF library in Pillow from writing to stderr; what it cannot read, Pillow raises as well."""
    library = ctypes.CDLL(_imaging.__file__)  # what it is linked to is found through it
    for handler in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        with suppress(AttributeError):  # a Pillow that was built without, or has it inside
            getattr(library, handler)(None)
