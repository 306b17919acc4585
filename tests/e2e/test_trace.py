"""One request, one trace: its spans come out of three processes and hang together. Metrics are pushed beside them."""

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.local_cluster import LocalCluster


class Collector:
    """An OTLP/HTTP endpoint that keeps what it is sent: (service, span), and (service, metric)."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        self.metrics: list[tuple[str, Any]] = []
        taken, measured = self.spans, self.metrics

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path == "/v1/metrics":
                    for told in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                        service = service_of(told.resource)
                        measured.extend((service, metric) for scope in told.scope_metrics for metric in scope.metrics)
                else:
                    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                        service = service_of(resource.resource)
                        taken.extend((service, span) for scope in resource.scope_spans for span in scope.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def pushed(self) -> bool:
        """Whether each of the services has sent its metrics, the gateway's with a request in them."""
        seen = {service for service, _ in list(self.metrics)}
        answered = any(
            metric.name == "gen_ai.server.request.duration" and metric.histogram.data_points
            for _, metric in list(self.metrics)
        )
        return answered and seen >= {"baton-gateway", "baton-prefill", "baton-decode", "baton-monitor"}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join(5)


def service_of(resource: Any) -> str:
    return str(next(one.value.string_value for one in resource.attributes if one.key == "service.name"))


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def test_the_spans_of_gateway_prefill_and_decode_form_one_trace(tmp_path: Path, collector: Collector) -> None:
    cluster = LocalCluster(tmp_path)
    cluster.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{collector.server.server_port}"
    cluster.environ["OTEL_BSP_SCHEDULE_DELAY"] = "100"
    cluster.environ["OTEL_METRIC_EXPORT_INTERVAL"] = "200"
    try:
        cluster.start()
        cluster.chat("hello")
        deadline = time.monotonic() + 20
        while (len(collector.spans) < 4 or not collector.pushed()) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        cluster.close()
    assert sorted((service, span.name) for service, span in collector.spans) == [
        ("baton-decode", "decode"),
        ("baton-gateway", "chat chat"),
        ("baton-prefill", "kv push"),
        ("baton-prefill", "prefill"),
    ]
    by_name = {span.name: span for _, span in collector.spans}
    assert len({span.trace_id for span in by_name.values()}) == 1
    assert by_name["prefill"].parent_span_id == by_name["chat chat"].span_id
    assert by_name["kv push"].parent_span_id == by_name["prefill"].span_id
    assert by_name["decode"].parent_span_id == by_name["prefill"].span_id
    shown = {one.key: one.value for one in by_name["chat chat"].attributes}
    assert shown["gen_ai.operation.name"].string_value == "chat"
    assert shown["gen_ai.usage.output_tokens"].int_value == 8
    assert "hello" not in repr(collector.spans)
    assert collector.pushed()
    assert_pushed(collector.metrics)


def assert_pushed(metrics: list[tuple[str, Any]]) -> None:
    """The gateway's metrics have the conventions' names; others have the names of /metrics."""
    last = {metric.name: metric for service, metric in metrics if service == "baton-gateway"}
    duration = last["gen_ai.server.request.duration"]
    (point,) = duration.histogram.data_points
    assert (duration.unit, point.count, sum(point.bucket_counts)) == ("s", 1, 1)
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    assert {one.key: one.value.string_value for one in point.attributes} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "baton",
        "gen_ai.request.model": "chat",
        "gen_ai.response.model": "gemma-3-270m",
    }
    usage = last["gen_ai.client.token.usage"].histogram.data_points
    assert sum(one.sum for one in usage if any(said.value.string_value == "output" for said in one.attributes)) == 8
    requests = last["baton_gateway_requests"].sum
    assert requests.is_monotonic
    assert sum(one.as_double for one in requests.data_points) >= 1
    assert last["baton_gateway_in_flight"].HasField("gauge")
