"""OpenTelemetry spans, for those who run a collector: one a request, and below it one a step.

Spans are made from the finished request's record, so the path of a request carries no tracing code.
"""

import logging
import threading
import time
from typing import TYPE_CHECKING

from service.errors import ConfigurationInvalid
from service.telemetry import RequestRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

log = logging.getLogger(__name__)

# Seconds. A collector that is there takes milliseconds; drain, last answers and the encoder have taken nearly all
# of the 30 that Kubernetes waits.
CLOSE_S = 1.0


class Tracer:
    """Turns finished requests into spans.

    Args:
        processor: where spans go; see ``otlp``.
    """

    def __init__(self, processor: "SpanProcessor") -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create({"service.name": "aerofix"})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("aerofix")
        self._parents = TraceContextTextMapPropagator()

    def on_request(self, record: RequestRecord) -> None:
        """Make the spans of a finished request; its parent is what ``traceparent`` names, if anything."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        epoch = time.time() - time.perf_counter()  # what turns a monotonic reading into a time of day

        def nanoseconds(reading: float) -> int:
            return int((epoch + reading) * 1e9)

        span = self._tracer.start_span(
            f"{record.method} {record.route}",
            context=self._parents.extract({"traceparent": record.parent}),
            kind=SpanKind.SERVER,
            start_time=nanoseconds(record.started),
            attributes={
                "http.request.method": record.method,
                "http.route": record.route,
                "http.response.status_code": record.status,
                "aerofix.request_id": record.id,
            },
        )
        if record.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        below = set_span_in_context(span)
        for step in record.steps:
            child = self._tracer.start_span(step.name, context=below, start_time=nanoseconds(step.started))
            child.end(nanoseconds(step.ended))
        span.end(nanoseconds(record.ended))

    def close(self) -> None:
        """Send what is left, if the collector takes it within ``CLOSE_S``."""
        # the exporter tries again for up to 10 s when nobody answers; its threads keep no process from ending
        closing = threading.Thread(target=self._provider.shutdown, name="tracer", daemon=True)
        closing.start()
        closing.join(CLOSE_S)
        if closing.is_alive():
            log.warning("the collector of AEROFIX_OTLP_ENDPOINT does not answer; the last spans are lost")


def otlp(endpoint: str) -> Tracer:
    """Return a tracer that sends spans to a collector, in the background.

    Args:
        endpoint: URL that takes OTLP over HTTP, such as ``http://collector:4318/v1/traces``.

    Raises:
        ConfigurationInvalid: the packages for it are not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigurationInvalid(
            f"AEROFIX_OTLP_ENDPOINT is set but {error.name} is not installed; `pip install 'aerofix[otel]'`, or unset "
            "it."
        ) from error
    return Tracer(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
