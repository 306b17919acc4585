"""One request, one trace: its spans come out of three processes and hang together."""

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.local_cluster import LocalCluster


class Collector:
    """An OTLP/HTTP endpoint that keeps what it is sent: (service, span)."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        taken = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    named = {one.key: one.value.string_value for one in resource.resource.attributes}
                    for scope in resource.scope_spans:
                        taken.extend((named["service.name"], span) for span in scope.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join(5)


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def test_the_spans_of_gateway_prefill_and_decode_form_one_trace(tmp_path: Path, collector: Collector) -> None:
    cluster = LocalCluster(tmp_path)
    cluster.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{collector.server.server_port}"
    cluster.environ["OTEL_BSP_SCHEDULE_DELAY"] = "100"
    try:
        cluster.start()
        cluster.chat("hello")
        deadline = time.monotonic() + 20
        while len(collector.spans) < 4 and time.monotonic() < deadline:
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
