"""What a service tells those who watch it."""

import asyncio
import json
import logging

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from service.ground.index.gpu import FaissGpuIndex
from service.http.door import Stage
from service.logs import JsonFormatter
from service.watch.tracing import Tracer

LONG = 60  # seconds; no test waits that long
STEPS = {"body", "decode", "queue", "encode", "search", "rerank", "refine", "respond"}


async def numbers(http):
    """Every sample of ``/metrics`` by name and labels."""
    text = (await http.get("/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}


async def test_metrics_tell_the_whole_path(http, tile_request, photo):
    await http.post("/gallery", **tile_request(1, 2))
    for _ in range(3):
        await http.post("/localize", files={"image": ("p.jpg", photo(1))})
    await http.post("/localize", files={"image": ("p.jpg", b"no image")})
    await http.get("/nowhere/at/all")
    seen = await numbers(http)
    assert seen["aerofix_request_duration_seconds_count", "/localize", "200", "POST"] == 3
    assert seen["aerofix_request_duration_seconds_count", "/localize", "415", "POST"] == 1
    assert seen["aerofix_request_duration_seconds_count", "(none)", "404", "GET"] == 1
    for step in STEPS | {"store"}:
        assert seen["aerofix_step_duration_seconds_count", step] >= 1, step
    assert seen["aerofix_step_duration_seconds_count", "search"] == 3
    assert seen["aerofix_batch_images_sum",] == 5
    assert seen["aerofix_batches_total", "idle"] >= 3
    assert (seen["aerofix_index_tiles",], seen["aerofix_gallery_generation",]) == (2, 1)
    assert (seen["aerofix_queue_images",], seen["aerofix_in_flight_requests",]) == (0, 0)
    info = next(labels for name, *labels in seen if name == "aerofix_info")
    assert {"CPUExecutionProvider", "cpu", "tiny-0"} <= set(info)


async def test_what_the_door_refuses_is_counted_by_route(start, photo):
    async with start(max_in_flight=1) as http:
        http.app.state.door.admit(Stage.INSIDE)
        await http.post("/localize", files={"image": ("p.jpg", photo(1))})
        await http.post("/secret/path/7", content=b"")
        await http.post("/tracks/7/localize", content=b"")
        await http.delete("/gallery/tiles/a/b/image")
        await http.get("/gallery/tiles/a/b/image")
        seen = await numbers(http)
    assert seen["aerofix_request_duration_seconds_count", "/localize", "429", "POST"] == 1
    assert seen["aerofix_request_duration_seconds_count", "/tracks/{track_id}/localize", "429", "POST"] == 1
    assert seen["aerofix_request_duration_seconds_count", "/gallery/tiles/{tile_id}", "429", "DELETE"] == 1
    assert seen["aerofix_request_duration_seconds_count", "/gallery/tiles/{tile_id}/image", "429", "GET"] == 1
    assert seen["aerofix_request_duration_seconds_count", "(none)", "429", "POST"] == 1


async def test_timings_are_a_table_to_read(http, tile_request, photo):
    await http.post("/gallery", **tile_request(1))
    await http.post("/localize", files={"image": ("p.jpg", photo(1))})
    answer = await http.get("/timings")
    assert answer.headers["content-type"].startswith("text/plain")
    rows = [line.split() for line in answer.text.splitlines()]
    assert {row[2] for row in rows if row[:2] == ["POST", "/localize"]} == STEPS | {"total"}


async def test_every_request_has_a_line_with_its_id(http, caplog):
    with caplog.at_level(logging.INFO, "service.access"):
        await http.get("/livez", headers={"X-Request-ID": "mission-7"})
    record = next(record for record in caplog.records if record.name == "service.access")
    line = json.loads(JsonFormatter().format(record))
    assert (line["path"], line["status"], line["method"]) == ("/livez", 200, "GET")


async def test_devices_are_shown(http):
    for path in ("/model", "/readyz"):
        answer = (await http.get(path)).json()
        assert (answer["provider"], answer["index_device"]) == ("CPUExecutionProvider", "cpu")


async def test_the_index_is_where_it_is_searched_now(start, tile_request, photo, monkeypatch):
    lost = False

    class OnGpu:
        """A flat index on a GPU that may be lost."""

        def __init__(self, flat):
            self.flat = flat

        def search(self, queries, k):
            if lost:
                raise RuntimeError("CUDA error 700 an illegal memory access was encountered")
            return self.flat.search(queries, k)

    async def index_device(http):
        answers = [(await http.get(path)).json()["index_device"] for path in ("/model", "/readyz")]
        labels = next(labels for name, *labels in await numbers(http) if name == "aerofix_info")
        assert answers == [answers[0]] * 2
        assert answers[0] in labels
        return answers[0]

    monkeypatch.setattr("service.watch.health.FRESH_S", -1.0)
    monkeypatch.setattr(
        "service.ground.gallery.make_index", lambda dim, device: FaissGpuIndex(dim, 3, OnGpu, rebuild_at=1)
    )
    async with start() as http:
        await http.post("/gallery", **tile_request(1))
        assert await index_device(http) == "cpu"  # too few for a copy
        await http.post("/gallery", **tile_request(2))
        async with asyncio.timeout(LONG):
            while (await http.get("/gallery")).json()["index"]["rebuilding"]:  # noqa: ASYNC110 - a thread copies
                await asyncio.sleep(0.001)
        assert await index_device(http) == "cuda:3"
        lost = True
        answer = await http.post("/localize", files={"image": ("p.jpg", photo(2))})
        assert answer.json()["candidates"][0]["tile_id"] == "map/2"
        assert await index_device(http) == "cpu"


@pytest.fixture
def spans(monkeypatch):
    """Let the service trace into memory; what the collector would get."""
    exporter = InMemorySpanExporter()
    asked = []

    def tracer(endpoint):
        asked.append(endpoint)
        return Tracer(SimpleSpanProcessor(exporter))

    monkeypatch.setattr("service.app.otlp", tracer)
    return asked, exporter.get_finished_spans


async def test_tracing_is_off_unless_configured(start, spans):
    asked, finished = spans
    async with start() as http:
        await http.get("/livez")
    assert (asked, finished()) == ([], ())


async def test_a_request_becomes_a_trace(start, spans, tile_request, photo):
    asked, finished = spans
    async with start(otlp_endpoint="http://127.0.0.1:9/v1/traces") as http:
        await http.post("/gallery", **tile_request(1))
        headers = {"X-Request-ID": "mission-7"}
        await http.post("/localize", files={"image": ("p.jpg", photo(1))}, headers=headers)
    assert asked == ["http://127.0.0.1:9/v1/traces"]
    request = next(span for span in finished() if span.name == "POST /localize")
    assert request.attributes["aerofix.request_id"] == "mission-7"
    below = {span.name for span in finished() if span.parent and span.parent.span_id == request.context.span_id}
    assert below == STEPS
