"""The gateway's Prometheus metrics and span attributes. docs/operations.md lists the names.

Labels come from configuration, routes and codes alone, never from what a client sent. Nothing here is called per token.
"""

from typing import Any

from opentelemetry.trace import Span, Status, StatusCode
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.gateway.answers.shapes import Usage
from services.gateway.api.chat import ChatRequest
from services.gateway.api.parameters import Parameters
from shared import telemetry as names
from shared.errors import BatonError

_FAST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)
_SLOW = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_EACH = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.4, 0.8)


class Metrics:
    """All of them, in one instance's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter("baton_gateway_requests", "answers sent", ["route", "status"], registry=registry)
        self.refusals = Counter("baton_gateway_refusals", "bad endings by code", ["code"], registry=registry)
        self.in_flight = Gauge("baton_gateway_in_flight", "client requests being answered", registry=registry)
        self.streams = Gauge("baton_gateway_streams", "choices not ended yet", registry=registry)
        self.waiting = Gauge("baton_gateway_waiting", "choices without a worker", ["scenario"], registry=registry)
        self.attempts = Counter("baton_gateway_attempts", "offers made", ["scenario", "cause"], registry=registry)
        self.withdrawn = Counter(
            "baton_gateway_withdrawn", "attempts cancelled", ["scenario", "cause"], registry=registry
        )
        self.cut = Counter("baton_gateway_slow_readers", "clients cut off for not reading", registry=registry)
        self.tokens = Counter(
            "baton_gateway_usage_tokens", "tokens of ended requests", ["scenario", "type"], registry=registry
        )
        self.first = Histogram(
            "baton_gateway_time_to_first_token_seconds",
            "arrival to first token",
            ["scenario"],
            buckets=_FAST,
            registry=registry,
        )
        self.duration = Histogram(
            "baton_gateway_request_seconds", "arrival to ending", ["scenario"], buckets=_SLOW, registry=registry
        )
        self.each = Histogram(
            "baton_gateway_time_per_output_token_seconds",
            "mean of a request's tokens after the first",
            ["scenario"],
            buckets=_EACH,
            registry=registry,
        )

    def ended(self, scenario: str, usage: Usage, elapsed_s: float, first_token_s: float | None) -> None:
        """Count a call that ended, well or badly."""
        self.duration.labels(scenario).observe(elapsed_s)
        self.tokens.labels(scenario, "input").inc(usage.prompt_tokens)
        self.tokens.labels(scenario, "output").inc(usage.completion_tokens)
        self.tokens.labels(scenario, "cached").inc(usage.cached_tokens)
        if first_token_s is not None and usage.completion_tokens > 1:
            self.each.labels(scenario).observe((elapsed_s - first_token_s) / (usage.completion_tokens - 1))


def operation_of(request: Parameters) -> str:
    """Name the operation as the GenAI conventions do."""
    return "chat" if isinstance(request, ChatRequest) else "text_completion"


def request_attributes(request: Parameters, request_id: str, scenario: str, model: str) -> dict[str, Any]:
    """Describe the request for its span, in the words of the GenAI conventions. No prompt text."""
    said = {
        names.GEN_AI_OPERATION: operation_of(request),
        names.GEN_AI_SYSTEM: "baton",
        names.GEN_AI_REQUEST_MODEL: scenario,
        names.GEN_AI_RESPONSE_MODEL: model,
        names.REQUEST_ID: request_id,
        names.SCENARIO: scenario,
        names.GEN_AI_MAX_TOKENS: request.max_tokens,
        names.GEN_AI_TEMPERATURE: request.temperature,
        names.GEN_AI_TOP_P: request.top_p,
        names.GEN_AI_SEED: request.seed,
        "gen_ai.request.choice.count": request.n,
    }
    return {name: value for name, value in said.items() if value is not None}


def describe_end(span: Span, usage: Usage, reasons: list[str], error: BatonError | None) -> None:
    """Put a call's ending on its span."""
    span.set_attribute(names.GEN_AI_INPUT_TOKENS, usage.prompt_tokens)
    span.set_attribute(names.GEN_AI_OUTPUT_TOKENS, usage.completion_tokens)
    span.set_attribute(names.GEN_AI_FINISH_REASONS, reasons)
    if error is not None:
        span.set_attribute(names.ERROR_TYPE, str(error.code))
        span.set_status(Status(StatusCode.ERROR, str(error)[:200]))
