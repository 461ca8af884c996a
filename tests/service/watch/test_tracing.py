import builtins
import threading

import pytest
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from service.errors import ConfigurationInvalid
from service.telemetry import RequestRecord, TimedStep
from service.watch.tracing import Tracer, otlp


@pytest.fixture
def exported():
    exporter = InMemorySpanExporter()
    tracer = Tracer(SimpleSpanProcessor(exporter))
    yield lambda record: tracer.on_request(record) or {span.name: span for span in exporter.get_finished_spans()}
    tracer.close()


def record(**overrides):
    fields = {"route": "/localize", "status": 200, "ended": 102.0} | overrides
    steps = [TimedStep("decode", 100.5, 101.0), TimedStep("encode", 101.0, 101.75)]
    return RequestRecord("abc", "POST", 100.0, steps=steps, **fields)


def test_a_request_is_a_span_and_its_steps_lie_below(exported):
    spans = exported(record())
    request = spans["POST /localize"]
    assert (request.end_time - request.start_time) / 1e9 == pytest.approx(2.0, abs=1e-6)
    assert request.attributes["aerofix.request_id"] == "abc"
    assert request.attributes["http.response.status_code"] == 200
    for name, offset, duration in (("decode", 0.5, 0.5), ("encode", 1.0, 0.75)):
        step = spans[name]
        assert step.parent.span_id == request.context.span_id
        assert (step.start_time - request.start_time) / 1e9 == pytest.approx(offset, abs=1e-6)
        assert (step.end_time - step.start_time) / 1e9 == pytest.approx(duration, abs=1e-6)


def test_the_callers_trace_goes_on(exported):
    # the example of the W3C recommendation, section 3.2.2
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    request = exported(record(parent=parent))["POST /localize"]
    assert f"{request.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{request.parent.span_id:016x}" == "b7ad6b7169203331"


@pytest.mark.parametrize("parent", ["", "nonsense", "00-xyz-abc-01"])
def test_a_strange_parent_is_none(exported, parent):
    assert exported(record(parent=parent))["POST /localize"].parent is None


@pytest.mark.parametrize(("status", "code"), [(422, StatusCode.UNSET), (503, StatusCode.ERROR)])
def test_only_what_the_service_does_wrong_is_an_error(exported, status, code):
    assert exported(record(status=status))["POST /localize"].status.status_code == code


def test_without_the_packages_the_fix_is_named(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("opentelemetry.exporter"):
            raise ImportError(name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigurationInvalid, match=r"pip install 'aerofix\[otel\]'"):
        otlp("http://127.0.0.1:9/v1/traces")


def test_a_collector_that_does_not_answer_holds_nobody_up(monkeypatch, caplog):
    monkeypatch.setattr("service.watch.tracing.CLOSE_S", 0.01)
    answers = threading.Event()

    class Silent(InMemorySpanExporter):
        def export(self, spans):
            answers.wait(60)
            return super().export(spans)

    exporter = Silent()
    tracer = Tracer(BatchSpanProcessor(exporter))
    tracer.on_request(record())
    tracer.close()
    assert exporter.get_finished_spans() == ()
    assert "AEROFIX_OTLP_ENDPOINT" in caplog.text
    answers.set()


def test_what_is_left_is_sent_at_the_end():
    exporter = InMemorySpanExporter()
    tracer = Tracer(BatchSpanProcessor(exporter))
    tracer.on_request(record())
    tracer.close()
    assert len(exporter.get_finished_spans()) == 3
