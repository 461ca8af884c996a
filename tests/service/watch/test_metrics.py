import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.encoder.batcher import Batch
from service.telemetry import RequestRecord, TimedStep
from service.watch.metrics import Metrics, Timings


def record(route="/localize", status=200, duration=1.0, **steps):
    return RequestRecord(
        "id", "POST", 10.0, route=route, status=status, ended=10.0 + duration,
        steps=[TimedStep(name, 10.0, 10.0 + seconds) for name, seconds in steps.items()],
    )  # fmt: skip


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def metrics():
    return Metrics(lambda: {"provider": "CPU"}, lambda: {"aerofix_queue_images": ("Waiting.", 3)})


def test_requests_are_counted_by_route_method_and_status(metrics):
    metrics.on_request(record(duration=0.2))
    metrics.on_request(record(duration=0.4))
    metrics.on_request(record(status=429, duration=0.0))
    labels = {"route": "/localize", "method": "POST", "status": "200"}
    assert value(metrics, "aerofix_request_duration_seconds_count", **labels) == 2
    assert value(metrics, "aerofix_request_duration_seconds_sum", **labels) == pytest.approx(0.6)
    assert value(metrics, "aerofix_request_duration_seconds_bucket", le="0.25", **labels) == 1
    assert value(metrics, "aerofix_request_duration_seconds_count", **labels | {"status": "429"}) == 1


def test_steps_are_timed(metrics):
    metrics.on_request(record(decode=0.03, encode=0.2))
    assert value(metrics, "aerofix_step_duration_seconds_sum", step="decode") == pytest.approx(0.03)
    assert value(metrics, "aerofix_step_duration_seconds_count", step="encode") == 1


def test_invented_methods_make_no_new_series(metrics):
    for method in ("BREW", "BREW2"):
        invented = record()
        invented.method = method
        metrics.on_request(invented)
    labels = {"route": "/localize", "method": "OTHER", "status": "200"}
    assert value(metrics, "aerofix_request_duration_seconds_count", **labels) == 2


def test_batches(metrics):
    metrics.on_batch(Batch(5, "gathered", 0.5))
    metrics.on_batch(Batch(16, "full", 0.7))
    assert value(metrics, "aerofix_batch_images_sum") == 21
    assert value(metrics, "aerofix_batch_images_bucket", le="8.0") == 1
    assert value(metrics, "aerofix_batches_total", reason="full") == 1
    assert value(metrics, "aerofix_batch_duration_seconds_sum") == pytest.approx(1.2)


def test_what_runs_and_what_has_a_value_now():
    labels, gauges = {"index_device": "cuda:0"}, {"aerofix_queue_images": ("Waiting.", 3)}
    metrics = Metrics(lambda: labels, lambda: gauges)
    assert value(metrics, "aerofix_info", index_device="cuda:0") == 1
    assert value(metrics, "aerofix_queue_images") == 3
    labels["index_device"], gauges["aerofix_queue_images"] = "cpu", ("Waiting.", 4)
    assert value(metrics, "aerofix_info", index_device="cpu") == 1
    assert value(metrics, "aerofix_info", index_device="cuda:0") is None
    assert value(metrics, "aerofix_queue_images") == 4


def test_the_exposition_is_what_prometheus_reads(metrics):
    metrics.on_request(record(decode=0.03))
    families = {family.name for family in text_string_to_metric_families(metrics.exposition().decode())}
    assert {
        "aerofix_request_duration_seconds",
        "aerofix_step_duration_seconds",
        "process_resident_memory_bytes",
    } <= families


def test_several_live_side_by_side(metrics):
    other = Metrics(dict, dict)
    other.on_batch(Batch(1, "idle", 0.1))
    assert value(metrics, "aerofix_batch_images_count") == 0


def test_the_table_shows_percentiles_by_route_and_step():
    timings = Timings()
    for ms in range(1, 101):
        timings.on_request(record(duration=ms / 1e3, decode=ms / 2e3))
    timings.on_request(record(route="/gallery", duration=0.5))
    rows = [re.split(r"\s{2,}", line) for line in timings.table().splitlines()[3:]]
    # numpy's default: linear interpolation between the ranks
    assert rows == [
        ["POST /gallery", "total", "1", "500.00", "500.00", "500.00"],
        ["POST /localize", "decode", "100", "25.25", "47.52", "49.51"],
        ["POST /localize", "total", "100", "50.50", "95.05", "99.01"],
    ]


def test_a_long_route_does_not_run_into_its_steps():
    timings = Timings()
    timings.on_request(record(route="/gallery/snapshots/{name}/of/a/very/long/route", decode=0.1))
    rows = [re.split(r"\s{2,}", line) for line in timings.table().splitlines()[2:]]
    assert [row[:3] for row in rows] == [
        ["route", "step", "count"],
        ["POST /gallery/snapshots/{name}/of/a/very/long/route", "decode", "1"],
        ["POST /gallery/snapshots/{name}/of/a/very/long/route", "total", "1"],
    ]


def test_the_table_forgets_what_is_old_and_what_was_refused():
    timings = Timings(kept=3)
    for ms in (1, 2, 3, 4, 5):
        timings.on_request(record(duration=ms / 1e3))
    timings.on_request(record(status=429, duration=9.0))
    assert "3      4.00      4.90      4.98" in timings.table()


def test_an_empty_table_has_its_head():
    assert "p50" in Timings().table()
