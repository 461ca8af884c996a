"""What every request passes first: its id, its record and log line, and the last resort for errors.

Pure ASGI, as are ``access`` and ``admission``.
"""

import re
import time
import uuid
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.problems import problem_response
from service.telemetry import RequestRecord, access_log, current_request, record_step, request_id

HEADER = "X-Request-ID"
_ACCEPTABLE_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)  # anything else could forge log lines or headers


class RequestContext:
    """Give each request an id, record and log it, and turn an error that nothing else caught into a problem document.

    A caller's ``X-Request-ID`` is kept when it is plain; the answer carries the id in any case.

    Args:
        observers: told of each request when it is over.
        routes: what requests may be routed to.
    """

    def __init__(
        self,
        app: ASGIApp,
        observers: Sequence[Callable[[RequestRecord], None]] = (),
        routes: Sequence[BaseRoute] = (),
    ) -> None:
        self.app = app
        self.observers = observers
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; only HTTP requests are touched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(HEADER, "")
        id_ = given if _ACCEPTABLE_ID.fullmatch(given) else uuid.uuid4().hex
        record = RequestRecord(id_, scope["method"], time.perf_counter(), headers.get("traceparent", ""))
        tokens = request_id.set(id_), current_request.set(record)
        answering_since = 0.0

        async def send_with_id(message: Message) -> None:
            nonlocal answering_since
            if message["type"] == "http.response.start":
                record.status, answering_since = message["status"], time.perf_counter()
                MutableHeaders(scope=message)[HEADER] = id_
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            if record.status:  # the answer has begun: nothing can be told any more
                raise
            await problem_response(error)(scope, receive, send_with_id)
        finally:
            record.ended, record.route = time.perf_counter(), self._route(scope)
            if answering_since:
                record_step("respond", answering_since, record.ended)
            record.open = False
            self._tell(record, scope)
            request_id.reset(tokens[0])
            current_request.reset(tokens[1])

    def _tell(self, record: RequestRecord, scope: Scope) -> None:
        fields: dict[str, Any] = {"method": record.method, "path": scope["path"], "status": record.status}
        fields["duration_ms"] = round((record.ended - record.started) * 1e3, 1)
        access_log.info("request", extra=fields)
        for observe in self.observers:
            observe(record)

    def _route(self, scope: Scope) -> str:
        """The path template that a request was routed to, or would have been had it not been refused before."""
        route = scope.get("route")
        if route is None:  # the router's choice: the first that fits, or the first but for its method
            fits = [(route.matches(scope)[0].value, route) for route in self.routes]
            best, route = max(fits, key=itemgetter(0), default=(Match.NONE.value, None))
            if best == Match.NONE.value:
                return "(none)"
        return str(getattr(route, "path_format", "(none)"))
