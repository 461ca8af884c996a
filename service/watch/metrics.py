"""Numbers for Prometheus, and the table of where the time goes.

Each application has a registry of its own, so that several can live in one process.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from service.encoder.batcher import Batch
from service.telemetry import RequestRecord

disable_created_metrics()  # type: ignore[no-untyped-call]  # a third more lines that no query uses

# Seconds. A search takes tenths of a millisecond, a batch on a small CPU a second, a bulk upload more than ten.
STEP_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # a client may invent others

Labels = Callable[[], Mapping[str, str]]
Gauges = Callable[[], Mapping[str, tuple[str, float]]]


class Metrics:
    """Counts and times everything that is measured; all methods may be called from any thread.

    Args:
        info: read at every scrape: labels of the metric that says what runs, such as the model's id and the device.
        gauges: read at every scrape: name → (help text, value).
    """

    def __init__(self, info: Labels, gauges: Gauges) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._requests = Histogram(
            "aerofix_request_duration_seconds",
            "Requests by route template, method and status, from the first byte in to the last byte out.",
            ["route", "method", "status"],
            buckets=REQUEST_BUCKETS,
            registry=self.registry,
        )
        self._steps = Histogram(
            "aerofix_step_duration_seconds",
            "Steps of requests.",
            ["step"],
            buckets=STEP_BUCKETS,
            registry=self.registry,
        )
        self._batch_images = Histogram(
            "aerofix_batch_images", "Images in a batch.", buckets=BATCH_BUCKETS, registry=self.registry
        )
        self._batch_seconds = Histogram(
            "aerofix_batch_duration_seconds", "Encoding a batch.", buckets=STEP_BUCKETS, registry=self.registry
        )
        self._releases = Counter(
            "aerofix_batches",
            "Batches by why they were released: idle, gathered, full, or alone after a failure.",
            ["reason"],
            registry=self.registry,
        )
        self.registry.register(_ReadNow(info, gauges))

    def on_request(self, record: RequestRecord) -> None:
        """Count a finished request and its steps."""
        method = record.method if record.method in METHODS else "OTHER"
        labels = (record.route, method, str(record.status))
        self._requests.labels(*labels).observe(record.ended - record.started)
        for step in record.steps:
            self._steps.labels(step.name).observe(step.ended - step.started)

    def on_batch(self, batch: Batch) -> None:
        """Count a batch."""
        self._batch_images.observe(batch.size)
        self._batch_seconds.observe(batch.seconds)
        self._releases.labels(batch.reason).inc()

    def exposition(self) -> bytes:
        """Write all of it in Prometheus' text format."""
        return generate_latest(self.registry)


class _ReadNow(Collector):
    """Values that are read when somebody asks, rather than kept up to date."""

    def __init__(self, info: Labels, gauges: Gauges) -> None:
        self._info = info
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily("aerofix", "What runs here.", value=dict(self._info()))
        for name, (text, value) in self._gauges().items():
            yield GaugeMetricFamily(name, text, value=value)

    def describe(self) -> Iterable[Metric]:
        return []  # else registering would read them before everything is there


class Timings:
    """The last requests' durations: where does the time go, without a monitoring system.

    Args:
        kept: durations that are remembered for each route and step.
    """

    def __init__(self, kept: int = 1000) -> None:
        self._kept = kept
        self._ms: dict[tuple[str, str], deque[float]] = defaultdict(lambda: deque(maxlen=kept))

    def on_request(self, record: RequestRecord) -> None:
        """Remember a finished request and its steps."""
        if not 200 <= record.status < 300:
            return  # what is refused is quick, and would hide what is slow
        route = f"{record.method} {record.route}"
        self._ms[route, "total"].append((record.ended - record.started) * 1e3)
        for step in record.steps:
            self._ms[route, step.name].append((step.ended - step.started) * 1e3)

    def table(self) -> str:
        """Write milliseconds by route and step as a plain-text table, the steps in the order of their coming."""
        rows = {key: list(ms) for key, ms in list(self._ms.items())}
        routes = sorted({route for route, _ in rows})
        wide = max(map(len, ["route", *routes])) + 2
        head = f"milliseconds, last {self._kept} answered of each\n\n"
        head += f"{'route':<{wide}}{'step':<12}{'count':>7}{'p50':>10}{'p95':>10}{'p99':>10}\n"
        lines = []
        for route in routes:
            steps = [name for r, name in rows if r == route and name != "total"]
            for name in [*steps, "total"]:
                ms = rows[route, name]
                quantiles = "".join(f"{value:>10.2f}" for value in np.percentile(ms, (50, 95, 99)))
                lines.append(f"{route:<{wide}}{name:<12}{len(ms):>7}{quantiles}\n")
        return head + "".join(lines)
