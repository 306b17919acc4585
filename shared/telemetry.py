"""Telemetry of one instance: traces, metrics, logs, and the names they use.

Owns the tracer, the instance's own Prometheus registry and the log format. Must not be needed for anything: without
an exporter, spans cost next to nothing and trace context still passes through.
"""

import dataclasses
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Final

import msgspec
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from shared.config import TelemetrySettings
from shared.otlp import RegistryPusher, metric_exporter, span_exporter

GEN_AI_SYSTEM: Final = "gen_ai.provider.name"
GEN_AI_OPERATION: Final = "gen_ai.operation.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
GEN_AI_STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
GEN_AI_OUTPUT_TYPE: Final = "gen_ai.output.type"
GEN_AI_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
REQUEST_ID: Final = "baton.request.id"
ATTEMPT: Final = "baton.attempt"
SCENARIO: Final = "baton.scenario"
TENANT: Final = "baton.tenant"
CAUSE: Final = "baton.cause"
ROUTE: Final = "baton.route"
INSTANCE: Final = "baton.instance"
KV_BYTES: Final = "baton.kv.bytes"
KV_GROWING: Final = "baton.kv.growing"  # pushed while it was computed
KV_TRANSPORT: Final = "baton.kv.transport"
LOCAL: Final = "baton.local"  # computed at decode
ERROR_TYPE: Final = "error.type"

_PROPAGATOR = TraceContextTextMapPropagator()
_ABOUT: ContextVar[tuple[str, SpanContext | None]] = ContextVar("about", default=("", None))
_encode = msgspec.json.Encoder(enc_hook=str).encode
_PLAIN_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def trace_headers() -> dict[str, str] | None:
    """Return the current trace context as W3C headers; None where there is none."""
    if not trace.get_current_span().get_span_context().is_valid:
        return None
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers)
    return headers


def extract_context(headers: Mapping[str, str]) -> Context:
    """Read W3C headers, in whatever case they came. Nonsense gives an empty context."""
    return _PROPAGATOR.extract({name.lower(): value for name, value in headers.items()})


def speak_of(request: str, span: Span | None = None) -> None:
    """Say which request this task is about: from now on its logs carry the request's id and trace."""
    _ABOUT.set((request, None if span is None else span.get_span_context()))


def spoken_of() -> str:
    """Return the id of the request that this task is about; empty where it is about none."""
    return _ABOUT.get()[0]


class Telemetry:
    """Tracer and metrics of one instance."""

    def __init__(self, role: str, instance: str, *, processor: SpanProcessor | None = None) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        name = os.environ.get("OTEL_SERVICE_NAME", f"baton-{role}")
        resource = Resource.create({"service.name": name, "service.instance.id": instance})
        self._provider = _provider(resource, processor)
        source = self._provider or trace.NoOpTracerProvider()
        self.tracer = source.get_tracer("baton")
        pushed = metric_exporter()
        self._pusher = None if pushed is None else RegistryPusher(self.registry, resource, pushed)

    def expose(self, prefix: str, stats: object) -> None:
        """Show the whole-number fields of a dataclass as counters, read at each scrape: counting costs an addition."""
        self.registry.register(_Fields(prefix, stats))

    def exposition(self) -> bytes:
        """Render every metric in Prometheus' text format."""
        return generate_latest(self.registry)

    def close(self) -> None:
        """Send what is still held; bounded by the exporters' own timeouts. Blocks: call it in a thread."""
        if self._provider is not None:
            self._provider.shutdown()
        if self._pusher is not None:
            self._pusher.close()


class _Fields(Collector):
    def __init__(self, prefix: str, stats: object) -> None:
        self._prefix = prefix
        self._stats = stats

    def collect(self) -> Iterator[CounterMetricFamily]:
        for field in dataclasses.fields(self._stats):  # type: ignore[arg-type]
            value = getattr(self._stats, field.name)
            yield CounterMetricFamily(f"{self._prefix}_{field.name}", f"{field.name} since start", value=value)


def _provider(resource: Resource, processor: SpanProcessor | None) -> TracerProvider | None:
    if processor is None:
        exporter = span_exporter()
        if exporter is None:
            return None
        processor = BatchSpanProcessor(exporter)
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)  # samples as OTEL_TRACES_SAMPLER says
    provider.add_span_processor(processor)
    return provider


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message, instance, the trace where there is one, and the extra fields."""

    def __init__(self, identity: Mapping[str, str]) -> None:
        super().__init__()
        self._identity = dict(identity)
        self._second, self._shown = -1, ""

    def format(self, record: logging.LogRecord) -> str:
        """Render the record."""
        second = int(record.created)
        if second != self._second:
            self._second = second
            self._shown = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        entry: dict[str, object] = {
            "time": f"{self._shown}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._identity,
            **_request_fields(),
            **_extra(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        try:
            return _encode(entry).decode()
        except (TypeError, ValueError, OverflowError, RecursionError):  # such as half a surrogate pair
            return json.dumps(entry, default=str)


class PlainLines(logging.Formatter):
    """For people: time, level, instance, message, extra fields as name=value."""

    def __init__(self, identity: Mapping[str, str]) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)-7s", datefmt="%H:%M:%S")
        self._who = identity.get("instance", "")

    def format(self, record: logging.LogRecord) -> str:
        """Render the record."""
        told = {**_request_fields(), **_extra(record)}
        fields = "".join(f" {name}={value}" for name, value in told.items())
        head = f"{self.formatTime(record, self.datefmt)}.{int(record.msecs):03d} {record.levelname.lower():7}"
        text = f"{head} {self._who} {record.getMessage()}{fields}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in record.__dict__.items() if name not in _PLAIN_FIELDS}


def _request_fields() -> dict[str, str]:
    """Say which request this task is about, and its trace."""
    request, context = _ABOUT.get()
    current = trace.get_current_span().get_span_context()
    if current.is_valid:
        context = current
    fields = {"request": request} if request else {}
    if context is not None and context.is_valid:
        fields |= {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
    return fields


def configure_logging(settings: TelemetrySettings, role: str, instance: str) -> None:
    """Send all logs of this process to stderr, as configured. Called once, by `main`."""
    # no format here shows where a line was written or in which thread, so it need not be found out
    logging._srcfile = None  # noqa: SLF001  as the library's own page advises
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    plain = settings.log_format == "plain" or (settings.log_format == "auto" and sys.stderr.isatty())
    identity = {"role": role, "instance": instance}
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainLines(identity) if plain else JsonLines(identity))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for noisy in ("aiohttp.access", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
