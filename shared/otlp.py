"""Where traces and metrics are sent: OpenTelemetry's exporters, chosen by the standard OTEL_* variables.

Metrics are counted once, in the instance's Prometheus registry; `RegistryPusher` sends the same numbers over OTLP. What
the GenAI conventions name is told by those names there, for Prometheus cannot write their dots.
"""

import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Final

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ConsoleMetricExporter,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from shared.errors import ConfigError

GEN_AI_METRICS: Final = {
    "gen_ai_server_request_duration_seconds": ("gen_ai.server.request.duration", "s"),
    "gen_ai_server_time_to_first_token_seconds": ("gen_ai.server.time_to_first_token", "s"),
    "gen_ai_server_time_per_output_token_seconds": ("gen_ai.server.time_per_output_token", "s"),
    "gen_ai_client_token_usage": ("gen_ai.client.token.usage", "{token}"),
}
"""From the name in Prometheus to the conventions' name and unit."""
GEN_AI_LABELS: Final = (
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "gen_ai.token.type",
    "error.type",
)
DEFAULT_INTERVAL_MS: Final = 60_000
LAST_PUSH_S: Final = 2.0
_DOTTED: Final = {name.replace(".", "_"): name for name in GEN_AI_LABELS}
_STANDARD: Final = AggregationTemporality.CUMULATIVE

log = logging.getLogger(__name__)


def span_exporter(environ: Mapping[str, str] = os.environ) -> SpanExporter | None:
    """Choose where spans go; None: nowhere. Raises ConfigError."""
    match _wanted(environ, "TRACES", ("otlp", "console", "none")):
        case "otlp":
            # loaded only where it is used: it brings requests and protobuf
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

            return OTLPSpanExporter()
        case "console":
            return ConsoleSpanExporter(out=sys.stderr)
        case _:
            return None


def metric_exporter(environ: Mapping[str, str] = os.environ) -> MetricExporter | None:
    """Choose where metrics are pushed; None: nowhere, they are only served on /metrics. Raises ConfigError."""
    match _wanted(environ, "METRICS", ("otlp", "console", "prometheus", "none")):
        case "otlp":
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415

            return OTLPMetricExporter()
        case "console":
            return ConsoleMetricExporter(out=sys.stderr)
        case _:
            return None


def _wanted(environ: Mapping[str, str], signal: str, known: tuple[str, ...]) -> str:
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return "none"
    endpoint = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    wanted = environ.get(f"OTEL_{signal}_EXPORTER") or ("otlp" if endpoint else "none")
    if wanted not in known:
        raise ConfigError([f"OTEL_{signal}_EXPORTER is {wanted!r}; give {', '.join(known[:-1])} or {known[-1]}"])
    return wanted


class RegistryPusher:
    """Sends a registry every OTEL_METRIC_EXPORT_INTERVAL milliseconds, and once more at `close`. Owns its thread."""

    def __init__(self, registry: CollectorRegistry, resource: Resource, exporter: MetricExporter) -> None:
        self._registry = registry
        self._resource = resource
        self._exporter = exporter
        self._every_s = _interval_s(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", ""))
        self._began_ns = time.time_ns()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics push", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send the last numbers, if the receiver takes them soon. Blocks."""
        self._over.set()
        self._thread.join(LAST_PUSH_S)
        self._exporter.shutdown()  # ends a push that is still tried
        self._thread.join(LAST_PUSH_S)

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self._push()
        self._push()

    def _push(self) -> None:
        try:
            self._exporter.export(self._read())
        except Exception:  # whatever it is, the next numbers must be sent too
            log.exception("metrics not sent")

    def _read(self) -> MetricsData:
        metrics = [as_otlp(family, self._began_ns, time.time_ns()) for family in self._registry.collect()]
        scope = ScopeMetrics(InstrumentationScope("baton"), metrics, "")
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])


def _interval_s(given: str) -> float:
    if given and not given.isdecimal():
        raise ConfigError([f"OTEL_METRIC_EXPORT_INTERVAL is {given!r}; give milliseconds, such as 60000"])
    return max(1, int(given or DEFAULT_INTERVAL_MS)) / 1000


def as_otlp(family: Family, began_ns: int, now_ns: int) -> Metric:
    """Say a Prometheus family in OpenTelemetry's words."""
    name, unit = GEN_AI_METRICS.get(family.name, (family.name, family.unit))
    data: Sum | Gauge | Histogram
    if family.type == "histogram":
        data = Histogram(_histograms(family.samples, began_ns, now_ns), _STANDARD)
    else:
        total = f"{family.name}_total"
        counter = family.type == "counter"
        points = [
            NumberDataPoint(_attributes(sample.labels), began_ns, now_ns, sample.value)
            for sample in family.samples
            if not counter or sample.name == total
        ]
        data = Sum(points, _STANDARD, is_monotonic=True) if counter else Gauge(points)
    return Metric(name, family.documentation, unit, data)


def _histograms(samples: Iterable[Sample], began_ns: int, now_ns: int) -> list[HistogramDataPoint]:
    """Put the samples of equal labels together. Prometheus' buckets count all below a bound, OTLP's what is between."""
    bounds: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in samples:
        key = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        if sample.name.endswith("_bucket"):
            bounds.setdefault(key, []).append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_sum"):
            sums[key] = sample.value
    points = []
    for key, buckets in bounds.items():
        below = [0.0, *(count for _, count in buckets)]
        points.append(
            HistogramDataPoint(
                attributes=_attributes(dict(key)),
                start_time_unix_nano=began_ns,
                time_unix_nano=now_ns,
                count=int(below[-1]),
                sum=sums.get(key, 0.0),
                bucket_counts=[int(upper - lower) for lower, upper in itertools.pairwise(below)],
                explicit_bounds=[bound for bound, _ in buckets[:-1]],
                min=None,  # type: ignore[arg-type]  # optional on the wire, and not known here
                max=None,  # type: ignore[arg-type]
            )
        )
    return points


def _attributes(labels: Mapping[str, str]) -> dict[str, str]:
    """Give labels their dots back. An empty label is Prometheus' way to say that there is none."""
    return {_DOTTED.get(name, name): value for name, value in labels.items() if value}
