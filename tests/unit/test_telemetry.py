"""Traces, metrics and logs of one instance."""

import contextvars
import io
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.bus import Delivery, extract
from shared.config import TelemetrySettings
from shared.errors import ConfigError
from shared.telemetry import Telemetry, configure_logging, extract_context, speak_of, trace_headers
from tests.fakes import Hub
from tests.waiting import until


@pytest.fixture
def untouched_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


async def test_one_trace_goes_through_gateway_prefill_and_decode() -> None:
    exporter, hub = InMemorySpanExporter(), Hub()
    gateway, prefill, decode = (
        Telemetry(role, f"{role}-1", processor=SimpleSpanProcessor(exporter))
        for role in ("gateway", "prefill", "decode")
    )
    bus = hub.bus()
    arrived: list[Delivery] = []
    await bus.subscribe(">", arrived.append)
    with gateway.tracer.start_as_current_span("chat"):
        await bus.publish("prefill", b"")
    await until(lambda: len(arrived) == 1, "prefill hears")
    with prefill.tracer.start_as_current_span("prefill", context=extract(arrived[0])):
        await bus.publish("decode", b"")
    await until(lambda: len(arrived) == 2, "decode hears")
    with decode.tracer.start_as_current_span("decode", context=extract(arrived[1])):
        pass
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert len({span.context.trace_id for span in spans.values() if span.context}) == 1
    for child, parent in (("decode", "prefill"), ("prefill", "chat")):
        above, context = spans[child].parent, spans[parent].context
        assert above is not None
        assert context is not None
        assert above.span_id == context.span_id
    assert spans["decode"].resource.attributes["service.name"] == "baton-decode"
    assert spans["decode"].resource.attributes["service.instance.id"] == "decode-1"
    for telemetry in (gateway, prefill, decode):
        telemetry.close()


def test_without_an_exporter_the_clients_trace_still_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    telemetry = Telemetry("gateway", "gateway-1")
    given = {"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    with telemetry.tracer.start_as_current_span("chat", context=extract_context(given)):
        assert trace_headers() == {"traceparent": given["Traceparent"]}
    assert trace_headers() is None
    telemetry.close()


@pytest.mark.parametrize("headers", [{}, {"traceparent": ""}, {"traceparent": "x" * 1000}, {"traceparent": "00-0-0-0"}])
def test_headers_that_are_no_trace_give_none(headers: dict[str, str]) -> None:
    assert not trace.get_current_span(extract_context(headers)).get_span_context().is_valid


def test_the_exporter_is_chosen_by_the_standard_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(ConfigError, match="OTEL_TRACES_EXPORTER is 'zipkin'; give otlp, console or none"):
        Telemetry("gateway", "g")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert not Telemetry("gateway", "g").tracer.start_span("x").is_recording()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    telemetry = Telemetry("gateway", "g")
    telemetry.tracer.start_span("a-span").end()
    telemetry.close()
    assert '"name": "a-span"' in written.getvalue()


def test_counters_are_read_when_they_are_asked_for() -> None:
    @dataclass
    class Stats:
        published: int = 0

    telemetry, stats = Telemetry("gateway", "g"), Stats()
    telemetry.expose("baton_bus", stats)
    stats.published = 7
    text = telemetry.exposition().decode()
    assert "baton_bus_published_total 7.0" in text
    assert "process_cpu_seconds_total" in text


def test_two_instances_in_one_process_count_apart() -> None:
    @dataclass
    class Stats:
        published: int = 0

    one, other = Telemetry("gateway", "g1"), Telemetry("gateway", "g2")
    one.expose("baton_bus", Stats(1))
    other.expose("baton_bus", Stats(2))
    assert b"baton_bus_published_total 1.0" in one.exposition()
    assert b"baton_bus_published_total 2.0" in other.exposition()


@pytest.mark.usefixtures("untouched_logging")
def test_logs_are_json_lines_with_identity_fields_trace_and_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    configure_logging(TelemetrySettings(log_format="auto"), "decode", "decode-1")  # no terminal: JSON
    telemetry = Telemetry("decode", "decode-1", processor=SimpleSpanProcessor(InMemorySpanExporter()))
    with telemetry.tracer.start_as_current_span("x") as span:
        logging.getLogger("baton").info("two\nlines %s", "ü", extra={"request": "r1", "odd": object})
    try:
        int("broken")
    except ValueError:
        logging.getLogger("baton").exception("it failed")
    logging.getLogger("baton").debug("not shown")
    first, second = map(json.loads, written.getvalue().splitlines())
    assert (first["message"], first["level"], first["instance"], first["role"]) == (
        "two\nlines ü",
        "info",
        "decode-1",
        "decode",
    )
    assert first["request"] == "r1"
    assert first["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert "ValueError: invalid literal" in second["exception"]
    assert "trace_id" not in second
    telemetry.close()


@pytest.mark.usefixtures("untouched_logging")
def test_a_log_line_comes_out_whatever_is_put_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    configure_logging(TelemetrySettings(log_format="json"), "decode", "decode-1")
    logging.getLogger("baton").info(
        "half a pair: %s", "\ud800", extra={"big": 2**80, "none": float("nan"), "odd": {1: {2}}}
    )
    (line,) = written.getvalue().splitlines()
    assert json.loads(line)["message"] == "half a pair: \ud800"


@pytest.mark.usefixtures("untouched_logging")
def test_a_line_about_a_request_names_it_and_its_trace_until_the_task_turns_to_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    configure_logging(TelemetrySettings(log_format="json"), "gateway", "g")
    telemetry = Telemetry("gateway", "g", processor=SimpleSpanProcessor(InMemorySpanExporter()))

    def told() -> None:
        span = telemetry.tracer.start_span("chat")
        speak_of("req-1", span)
        logging.getLogger("baton").info("one")
        span.end()
        speak_of("req-2")
        logging.getLogger("baton").info("two")
        logging.getLogger("baton").info("three", extra={"request": "its own"})

    contextvars.copy_context().run(told)
    logging.getLogger("baton").info("four")
    one, two, three, four = map(json.loads, written.getvalue().splitlines())
    assert one["request"] == "req-1"
    assert len(one["trace_id"]) == 32
    assert (two["request"], "trace_id" in two) == ("req-2", False)
    assert three["request"] == "its own"
    assert "request" not in four
    telemetry.close()


@pytest.mark.usefixtures("untouched_logging")
def test_plain_logs_are_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    configure_logging(TelemetrySettings(log_format="plain", log_level="debug"), "decode", "decode-1")
    logging.getLogger("baton").debug("ready", extra={"slots": 4})
    line = written.getvalue()
    assert line.count("\n") == 1
    assert line.endswith("debug   decode-1 ready slots=4\n")
