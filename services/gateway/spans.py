"""The span of a client request: its name and what it says of the request, in the words of the GenAI conventions.

Never the prompt's text, the client's `user`, or a key.
"""

from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Tracer

from services.gateway.api.completion import CompletionRequest
from services.gateway.api.parameters import Parameters
from services.gateway.metrics import PROVIDER
from services.gateway.prompts.scenarios import Scenario
from shared import telemetry as names

_SAMPLING: Final = ("temperature", "top_p", "top_k", "seed", "frequency_penalty", "presence_penalty")


def operation_of(asked: Parameters) -> str:
    """Name the operation as the GenAI conventions do."""
    return "text_completion" if isinstance(asked, CompletionRequest) else "chat"


def open_span(
    tracer: Tracer, context: Context, asked: Parameters, scenario: Scenario, *, call_id: str, server: tuple[str, int]
) -> Span:
    """Begin the span of a call. Where it is not sampled, nothing is said of the request and so nothing is made."""
    span = tracer.start_span(f"{operation_of(asked)} {scenario.name}", context, kind=SpanKind.SERVER)
    if span.is_recording():
        span.set_attributes(_said(asked, scenario, call_id, server))
    return span


def _said(asked: Parameters, scenario: Scenario, call_id: str, server: tuple[str, int]) -> dict[str, Any]:
    said = {
        names.GEN_AI_OPERATION: operation_of(asked),
        names.GEN_AI_SYSTEM: PROVIDER,
        names.GEN_AI_REQUEST_MODEL: scenario.name,
        names.GEN_AI_RESPONSE_MODEL: scenario.model,
        names.GEN_AI_RESPONSE_ID: call_id,
        names.GEN_AI_OUTPUT_TYPE: "text",
        names.SERVER_ADDRESS: server[0],
        names.SERVER_PORT: server[1],
        names.REQUEST_ID: call_id,
        names.SCENARIO: scenario.name,
        names.GEN_AI_MAX_TOKENS: asked.bound,
        names.GEN_AI_CHOICE_COUNT: asked.n if asked.n != 1 else None,  # said where it is not 1
        names.GEN_AI_STOP_SEQUENCES: [asked.stop] if isinstance(asked.stop, str) else asked.stop,
        **{f"gen_ai.request.{name}": getattr(asked, name) for name in _SAMPLING},
    }
    return {name: value for name, value in said.items() if value is not None}
