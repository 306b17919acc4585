"""Which form an answer takes: by route, streamed or whole, and by what the client asked for beside the text.

Owns the choice alone; the forms are in their own files.
"""

import secrets
import time
from typing import Protocol

from services.gateway.answers.best import BestAnswer
from services.gateway.answers.counted import Count, CountedAnswer
from services.gateway.answers.maps import NatsAnswer, Send
from services.gateway.answers.positions import Marks, Position
from services.gateway.answers.response_events import ResponseEvents
from services.gateway.answers.response_whole import WholeResponse
from services.gateway.answers.responses import ResponseShape
from services.gateway.answers.shapes import ChatShape, CompletionShape, Shape, Usage
from services.gateway.answers.sse import SseStream
from services.gateway.answers.streamed import SseAnswer
from services.gateway.answers.whole import WholeAnswer
from services.gateway.api.chat import ChatRequest
from services.gateway.api.completion import CompletionRequest
from services.gateway.api.responses import ResponsesRequest
from services.gateway.prompts.scenarios import Scenario
from services.gateway.relay.record import Sink
from shared.config import GatewaySettings
from shared.errors import BatonError

Asked = ChatRequest | CompletionRequest | ResponsesRequest


class Whole(Protocol):
    """An answer that is sent at once."""

    def sink(self, choice: int, request_id: str) -> Sink:
        """Make the sink of the next choice."""
        ...

    def body(self, usage: Usage) -> bytes:
        """Make the JSON body; every choice is complete."""
        ...


class Streamed(Protocol):
    """An answer that is sent as it comes."""

    @property
    def stream(self) -> SseStream:
        """Its connection."""
        ...

    def sink(self, choice: int, request_id: str) -> Sink:
        """Make the sink of the next choice."""
        ...

    def opening(self) -> bytes:
        """Make what a client sees first, once it is admitted."""
        ...

    def end(self, usage: Usage) -> None:
        """Write what follows the last choice."""
        ...

    def fail(self, error: BatonError) -> None:
        """Write that the answer is not complete, and why."""
        ...


def name_call(asked: Asked) -> str:
    """Draw the id of a new call."""
    return f"{_prefix(asked)}{secrets.token_hex(16)}"


async def whole(asked: Asked, call_id: str, scenario: Scenario) -> Whole:
    """Make an empty whole answer. Raises BadRequest."""
    created = int(time.time())
    if isinstance(asked, ResponsesRequest):
        return WholeResponse(ResponseShape(call_id, created, scenario.name, asked))
    shape = await _shape(asked, call_id, scenario, created)
    return _best(asked, shape) or WholeAnswer(shape)


async def streamed(
    asked: Asked,
    call_id: str,
    scenario: Scenario,
    settings: GatewaySettings,
    *,
    created: int,
    seen: list[Position] | None = None,
) -> Streamed:
    """Make an empty streamed answer. `seen`: how far its client is, where it is resumed. Raises BadRequest."""
    bounds = (settings.max_unsent_bytes, settings.send_timeout_s)
    if isinstance(asked, ResponsesRequest):
        return ResponseEvents(
            ResponseShape(call_id, created, scenario.name, asked), *bounds, seen[0].index if seen else -1
        )
    shape = await _shape(asked, call_id, scenario, created)
    marks = marks_of(asked, scenario)
    if asked.stream_options and asked.stream_options.continuous_usage_stats:
        return CountedAnswer(shape, *bounds, marks or Marks(exact=False), opened=bool(seen))
    return SseAnswer(shape, *bounds, marks, opened=bool(seen))


def choices_of(asked: Asked) -> int:
    """Count the choices of all prompts."""
    match asked:
        case ResponsesRequest():
            return 1
        case CompletionRequest():
            return len(asked.prompts()) * asked.choices
        case _:
            return asked.choices


def marks_of(asked: ChatRequest | CompletionRequest, scenario: Scenario) -> Marks | None:
    """Say how far events bring a client; None where the number of their last token is all there is to say."""
    exact = is_exact(asked, scenario)
    return Marks(exact=exact) if exact or choices_of(asked) > 1 else None


def is_exact(asked: ChatRequest | CompletionRequest, scenario: Scenario) -> bool:
    """Whether text comes in other pieces than tokens bring, so that positions count what was shown."""
    return scenario.guarded or (isinstance(asked, ChatRequest) and bool(asked.tools))


async def over_nats(asked: ChatRequest | CompletionRequest, call_id: str, scenario: Scenario, send: Send) -> NatsAnswer:
    """Make an empty answer of maps. Raises BadRequest."""
    counted = asked.stream_options is not None and asked.stream_options.continuous_usage_stats
    return NatsAnswer(
        call_id,
        send,
        streamed=bool(asked.stream),
        echoes=await _echoes(asked, scenario),
        best=_best(asked, ChatShape(call_id, 0, "")),
        count=Count() if counted else None,
        exact=is_exact(asked, scenario),
    )


def _best(asked: ChatRequest | CompletionRequest, shape: Shape) -> BestAnswer | None:
    keep = asked.n or 1
    if not isinstance(asked, CompletionRequest) or asked.choices == keep:
        return None
    return BestAnswer(shape, of=asked.choices, keep=keep, show_logprobs=asked.logprobs is not None)


async def _echoes(asked: Asked, scenario: Scenario) -> list[str]:
    """Make what comes before each choice's text: its prompt, where the client wants to see it. Raises BadRequest."""
    if not isinstance(asked, CompletionRequest) or not asked.echo:
        return []
    prompts = asked.prompts()
    words = [one if isinstance(one, str) else await scenario.prompter.words(one, "prompt") for one in prompts]
    return [text for text in words for _ in range(asked.n or 1)]


def _prefix(asked: Asked) -> str:
    match asked:
        case ChatRequest():
            return "chatcmpl-"
        case CompletionRequest():
            return "cmpl-"
        case ResponsesRequest():
            return "resp_"


async def _shape(asked: ChatRequest | CompletionRequest, call_id: str, scenario: Scenario, created: int) -> Shape:
    include = bool(asked.stream_options and asked.stream_options.include_usage)
    known = (call_id, created, scenario.name, include)
    if isinstance(asked, ChatRequest):
        return ChatShape(*known, calling=bool(asked.tools) and asked.tool_choice != "none")
    return CompletionShape(*known, echoes=await _echoes(asked, scenario))
