"""A call's journal: what it tells the span and the metrics, and that an unsampled call costs no words."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span
from prometheus_client import CollectorRegistry

from services.gateway.answers.shapes import Usage
from services.gateway.api.chat import ChatRequest
from services.gateway.api.completion import CompletionRequest
from services.gateway.api.reading import parse
from services.gateway.journal import Journal
from services.gateway.metrics import OTHER, Metrics
from services.gateway.prompts.scenarios import Scenario
from services.gateway.spans import open_span
from shared.errors import Cancelled
from shared.messages import Finish
from shared.policy.dispatch_events import Cause
from shared.telemetry import Telemetry

SCENARIO = cast(Scenario, SimpleNamespace(name="talk", model="gemma"))
SECRET = "the words of the prompt"


class Traced:
    """A tracer that keeps what it is told."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.telemetry = Telemetry("gateway", "g", processor=SimpleSpanProcessor(self.exporter))

    def open(self, asked: ChatRequest | CompletionRequest) -> Span:
        place = ("127.0.0.1", 8000)
        return open_span(self.telemetry.tracer, Context(), asked, SCENARIO, call_id="chatcmpl-1", server=place)

    def one(self) -> Any:
        (span,) = self.exporter.get_finished_spans()
        return span


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traced]:
    monkeypatch.delenv("OTEL_TRACES_SAMPLER", raising=False)
    made = Traced()
    yield made
    made.telemetry.close()


def chat(**more: Any) -> ChatRequest:
    return ChatRequest(messages=[cast(Any, {"role": "user", "content": SECRET})], **more)


def at(instance: str, attempt: int) -> dict[str, Any]:
    return {"baton.attempt": attempt, "baton.instance": instance}


def journal(span: Span, metrics: Metrics | None = None) -> Journal:
    meters = (metrics or Metrics(CollectorRegistry())).of("chat", "talk", "gemma")
    return Journal(span, meters, 0.0)


def test_a_span_says_what_the_conventions_ask_of_a_request(traced: Traced) -> None:
    body = (
        b'{"model":"talk","messages":[{"role":"user","content":"the words of the prompt"}],"max_tokens":5,"seed":7,'
        b'"temperature":0.5,"top_p":0.9,"stop":["a","b"],"n":2,"user":"somebody"}'
    )
    traced.open(parse(body, ChatRequest)).end()
    span = traced.one()
    assert span.name == "chat talk"
    assert span.kind.name == "SERVER"
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "baton",
        "gen_ai.request.model": "talk",
        "gen_ai.response.model": "gemma",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.output.type": "text",
        "gen_ai.request.max_tokens": 5,
        "gen_ai.request.seed": 7,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.stop_sequences": ("a", "b"),
        "gen_ai.request.choice.count": 2,
        "server.address": "127.0.0.1",
        "server.port": 8000,
        "baton.request.id": "chatcmpl-1",
        "baton.scenario": "talk",
    }


def test_a_completion_is_told_as_one(traced: Traced) -> None:
    traced.open(CompletionRequest(prompt=SECRET, max_tokens=1)).end()
    assert traced.one().name == "text_completion talk"
    assert SECRET not in repr(traced.one().to_json())


def test_the_relay_shows_in_the_spans_events_and_the_ending_in_its_attributes(traced: Traced) -> None:
    told = journal(traced.open(chat()))
    told.started()
    told.offered("r", 0, "p1", Cause.ARRIVED, "fewest_streams")
    told.accepted(0, "p1")
    told.handed_off(0, "d1")
    told.first_token()
    told.withdrawn(0, Cause.LOST)
    told.offered("r", 1, "p2", Cause.LOST, "canary")
    told.answered()
    told.ended(Usage(3, 2, 1), [Finish.STOP], "acme", None)
    span = traced.one()
    assert [(event.name, dict(event.attributes)) for event in span.events] == [
        ("offered", {**at("p1", 0), "baton.cause": "arrived", "baton.route": "fewest_streams"}),
        ("accepted", {"baton.attempt": 0, "baton.instance": "p1"}),
        ("handed off", {"baton.attempt": 0, "baton.instance": "d1"}),
        ("first token", {}),
        ("withdrawn", {"baton.attempt": 0, "baton.cause": "lost"}),
        ("offered", {**at("p2", 1), "baton.cause": "lost", "baton.route": "canary"}),
    ]
    assert span.attributes["gen_ai.usage.input_tokens"] == 3
    assert span.attributes["gen_ai.usage.output_tokens"] == 2
    assert span.attributes["gen_ai.usage.cache_read.input_tokens"] == 1
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert span.attributes["baton.tenant"] == "acme"
    assert span.status.is_ok or span.status.is_unset


def test_a_bad_ending_has_its_code_as_error_type(traced: Traced) -> None:
    told = journal(traced.open(chat()))
    told.ended(Usage(), [], "acme", Cancelled("the client has left"))
    assert traced.one().attributes["error.type"] == "cancelled"
    assert not traced.one().status.is_ok


def test_of_an_unsampled_call_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    traced = Traced()

    class Unread(ChatRequest, frozen=True):
        def __getattribute__(self, name: str) -> Any:
            assert name == "__class__", f"{name} was read"
            return object.__getattribute__(self, name)

    span = traced.open(Unread(messages=[]))
    assert not span.is_recording()
    assert span.get_span_context().is_valid
    told = journal(span)
    told.offered("r", 0, "p1", Cause.ARRIVED, "fewest_streams")
    told.ended(Usage(1, 1, 0), [Finish.STOP], "acme", None)
    assert traced.exporter.get_finished_spans() == ()
    traced.telemetry.close()


def test_only_configured_tenants_are_labels_however_many_there_are() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, lambda: ["acme"])
    meters = metrics.of("chat", "talk", "gemma")
    for name in ("acme", "anonymous", *(f"subject-{number}" for number in range(1000))):
        meters.spent(name, Usage(1, 2, 0))
    found = {
        sample.labels["tenant"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "baton_gateway_usage_tokens_total" and sample.labels["type"] == "output"
    }
    assert found == {"acme": 2, "anonymous": 2, OTHER: 2000}
    assert len(metrics._spent) == 3
