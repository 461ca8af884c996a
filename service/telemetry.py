"""Logs as JSON lines on stderr, each with the id of the request that it belongs to."""

import json
import logging
import sys
import time
from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that the current task serves; set by the request middleware."""

access_log = logging.getLogger("service.access")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, request id, and the fields passed as ``extra``."""

    _STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}

    def format(self, record: logging.LogRecord) -> str:
        """Render a record; exceptions become one string field."""
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (current := request_id.get()) is not None:
            line["request_id"] = current
        line |= {key: value for key, value in vars(record).items() if key not in self._STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure_logging(level: str) -> None:
    """Send all logs of the process, uvicorn's included, to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("uvicorn.access").disabled = True  # access_log says it with the request id and duration
    for chatty in ("httpx", "faiss.loader"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class Stopwatch:
    """Milliseconds of named steps that follow each other, and their total."""

    def __init__(self) -> None:
        self._started = self._last = time.perf_counter()
        self.ms: dict[str, float] = {}

    def lap(self, step: str) -> None:
        """End a step: what passed since the last one counts for it."""
        now = time.perf_counter()
        self.ms[step] = (now - self._last) * 1e3
        self._last = now

    def total_ms(self) -> float:
        """Milliseconds since the start."""
        return (time.perf_counter() - self._started) * 1e3
