"""The Responses API's shape: the response object, its output items, its events.

Owns every byte between the braces. Whoever streams numbers the events and says when they come.
"""

from typing import Any, Final

import msgspec

from services.gateway.answers.logprobs import Around
from services.gateway.answers.shapes import ChatShape, Usage, encode
from services.gateway.api.responses import ReasoningSettings, ResponsesRequest, TextSettings
from services.gateway.api.structure import AsText
from services.gateway.refusals import answer, told
from services.gateway.tools.said import CallPiece
from shared.errors import BatonError
from shared.messages import Finish

MARK: Final = "\x00text\x00"
_ECHOED: Final = (
    "instructions", "max_output_tokens", "prompt_cache_key", "safety_identifier", "temperature", "top_p",
    "user",
)  # fmt: skip
_WHY_INCOMPLETE: Final = {Finish.LENGTH: "max_output_tokens", Finish.CONTENT_FILTER: "content_filter"}
_RATE_LIMITED: Final = 429
_CLIENTS_FAULT: Final = range(400, 429)

Json = dict[str, Any]
Events = list[tuple[str, Json]]
"""Types and fields of events, before they are numbered."""


class ResponseShape:
    """How the answer to one request looks."""

    def __init__(self, call_id: str, created: int, model: str, asked: ResponsesRequest) -> None:
        self.id = call_id
        self.asked = asked
        self._created = created
        self._model = model
        self._echo = _echo(asked)

    def item_id(self, kind: str, place: int) -> str:
        """Name an output item; unique, as the response is."""
        return f"{kind}_{self.id.removeprefix('resp_')}{place:02x}"

    def body(
        self,
        status: str,
        output: list[Json],
        *,
        usage: Usage | None = None,
        reason: Finish | None = None,
        error: BatonError | None = None,
    ) -> Json:
        """Make the response object as it is at some moment."""
        why = None if reason is None else _WHY_INCOMPLETE.get(reason)
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None if error is None else {"code": _error_code(error), "message": told(error)},
            "incomplete_details": None if why is None else {"reason": why},
            "model": self._model,
            "output": output,
            "usage": None if usage is None else _usage(usage),
            **self._echo,
        }

    def whole(self, output: list[Json], usage: Usage, reason: Finish) -> Json:
        """Make the response object of a request that has ended well."""
        return self.body(status(reason), output, usage=usage, reason=reason)

    def message(self, place: int, state: str, content: list[Json]) -> Json:
        """Make a message item."""
        return {
            "id": self.item_id("msg", place),
            "type": "message",
            "status": state,
            "role": "assistant",
            "content": content,
        }

    def function_call(self, place: int, state: str, call: CallPiece, arguments: str) -> Json:
        """Make an item that calls a function."""
        return {
            "id": self.item_id("fc", place),
            "type": "function_call",
            "status": state,
            "call_id": call.id,
            "name": call.name,
            "arguments": arguments,
        }

    def around_delta(self, place: int) -> tuple[bytes, bytes, bytes]:
        """Cut a text event where its number and its text stand."""
        fields = {**self.text_place(place), "logprobs": [], "sequence_number": 0, "delta": MARK}
        made = event("response.output_text.delta", **fields)
        before, rest = made.split(b'"sequence_number":0', 1)
        between, after = rest.split(encode(MARK))
        return before + b'"sequence_number":', between, after

    def text_place(self, place: int) -> Json:
        """Say which text an event speaks of."""
        return {"item_id": self.item_id("msg", place), "output_index": place, "content_index": 0}

    @staticmethod
    def logprobs() -> Around:
        """Make an empty collector."""
        return ChatShape("", 0, "").logprobs()


def event(kind: str, **fields: Any) -> bytes:  # noqa: ANN401  whatever JSON can say
    """Make an event, but for the empty line that ends it."""
    return b"event: %b\ndata: %b" % (kind.encode(), encode({"type": kind, **fields}))


def text_part(text: str, logprobs: list[Json]) -> Json:
    """Make the part that holds a message's text."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def status(reason: Finish) -> str:
    """Say whether an item or a response is all there."""
    return "incomplete" if reason in _WHY_INCOMPLETE else "completed"


def _usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _error_code(error: BatonError) -> str:
    """Choose among the few codes that the API has for a response's error."""
    seen = answer(error).status
    if seen == _RATE_LIMITED:
        return "rate_limit_exceeded"
    return "invalid_prompt" if seen in _CLIENTS_FAULT else "server_error"


def _echo(asked: ResponsesRequest) -> Json:
    """Say again what was asked for."""
    said: Json = {name: getattr(asked, name) for name in _ECHOED}
    text, reasoning = asked.text or TextSettings(), asked.reasoning or ReasoningSettings()
    return said | {
        "background": False,
        "metadata": asked.metadata or {},
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": msgspec.to_builtins(reasoning),
        "service_tier": "default",
        "store": False,
        "text": {"format": msgspec.to_builtins(text.format or AsText()), "verbosity": text.verbosity},
        "tool_choice": "auto" if asked.tool_choice is None else msgspec.to_builtins(asked.tool_choice),
        "tools": msgspec.to_builtins(asked.tools or []),
        "top_logprobs": asked.top_logprobs or 0,
        "truncation": "disabled",
    }
