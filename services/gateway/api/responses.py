"""The Responses API, as clients ask for it; read here, then answered as the chat that it means.

Owns the way from items to messages. Nothing is kept between requests, so what refers to an earlier response is refused
by name.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from services.gateway.api.chat import ChatMessage, ChatRequest, TextPart
from services.gateway.api.parameters import Metadata, Natural, Penalty, Seconds, StopStrings
from shared.errors import BadRequest

LOGPROBS: Final = "message.output_text.logprobs"
Label = Annotated[str, Meta(max_length=512)]
Nothing: TypeAlias = None
"""The type of a parameter that this server knows and does not serve: only null is accepted."""

CHAT_NAMES: Final = {"messages": "input", "max_tokens": "max_output_tokens", "response_format": "text.format"}
"""Parameters of the chat that a client of this API knows by another name."""


class InputText(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="input_text", tag_field="type"):
    """What a user, a developer or a function says."""

    text: str


class OutputText(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="output_text", tag_field="type"):
    """What the assistant said earlier, as a client got it; only the text goes into the prompt."""

    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="refusal", tag_field="type"):
    """What the assistant refused earlier."""

    refusal: str

    @property
    def text(self) -> str:
        """Its words, which go into the prompt as any others."""
        return self.refusal


Parts = list[InputText | OutputText | Refusal]


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One item of the input: a message, a function call of the assistant's, or what the function returned."""

    type: Literal["message", "function_call", "function_call_output"] = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | Parts | None = None
    call_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    name: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    arguments: str | None = None
    output: str | list[InputText] | None = None
    id: Label | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None

    def check(self, where: str) -> None:
        """See that what its type needs is there, and nothing else. Raises BadRequest."""
        needed = _FIELDS[self.type]
        for name in ("role", "content", "call_id", "name", "arguments", "output"):
            given = getattr(self, name) is not None
            if given and name not in needed:
                raise BadRequest(f"'{where}.{name}' does not belong to an item of type {self.type}", f"{where}.{name}")
            if name in needed and not given:
                raise BadRequest(f"Missing required parameter: '{where}.{name}'", f"{where}.{name}")


_FIELDS: Final = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
}


class TextFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which form the text has."""

    type: Literal["text"] = "text"


class TextSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the text looks."""

    format: TextFormat | None = None
    verbosity: Nothing = None


class ResponseStreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What else a stream carries. Usage always comes with its last event."""

    include_obfuscation: bool | None = None  # accepted: this server never pads events


class ResponsesRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/responses."""

    input: str | Annotated[list[Item], Meta(min_length=1, max_length=10_000)]
    model: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    instructions: str | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    max_output_tokens: Natural | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    text: TextSettings | None = None
    include: Annotated[list[Literal["message.output_text.logprobs"]], Meta(max_length=8)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["disabled"] | None = None
    store: bool | None = None  # nothing is kept, so true is refused
    background: bool | None = None  # true is refused
    # accepted for the client's own books and shown in the answer; nothing here depends on them
    metadata: Metadata | None = None
    user: Label | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    # known to other servers, or to this one's chats
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Annotated[str, Meta(min_length=1, max_length=1024)] | StopStrings | None = None
    ignore_eos: bool | None = None
    priority: Annotated[int, Meta(ge=-100, le=100)] | None = None
    timeout: Seconds | None = None
    chat_template_kwargs: Annotated[dict[str, Any], Meta(max_length=64)] | None = None
    # of this API, not served here
    previous_response_id: Nothing = None
    conversation: Nothing = None
    prompt: Nothing = None
    reasoning: Nothing = None
    max_tool_calls: Nothing = None
    service_tier: Nothing = None

    def check(self) -> None:
        """Apply the rules that hold between fields. Raises BadRequest."""
        if isinstance(self.input, list):
            for place, item in enumerate(self.input):
                item.check(f"input[{place}]")
        if self.store:
            raise BadRequest("Unsupported parameter: 'store' must be false; responses are not kept here", "store")
        if self.background:
            raise BadRequest("Unsupported parameter: 'background' must be false", "background")
        if self.stream_options is not None and not self.stream:
            raise BadRequest("stream_options is only allowed with stream: true", "stream_options")
        if self.top_logprobs is not None and LOGPROBS not in (self.include or ()):
            raise BadRequest(f"top_logprobs is only allowed with include: ['{LOGPROBS}']", "top_logprobs")

    def as_chat(self) -> ChatRequest:
        """Say the same as a chat. Raises BadRequest."""
        logprobs = LOGPROBS in (self.include or ())
        return ChatRequest(
            messages=self._messages(),
            model=self.model,
            stream=self.stream,
            max_tokens=self.max_output_tokens,
            logprobs=logprobs,
            **{name: getattr(self, name) for name in _SAME},
        )

    def _messages(self) -> list[ChatMessage]:
        said = [] if self.instructions is None else [ChatMessage(role="system", content=self.instructions)]
        if isinstance(self.input, str):
            return [*said, ChatMessage(role="user", content=self.input)]
        return said + [_message(item, f"input[{place}]") for place, item in enumerate(self.input)]


@contextmanager
def in_its_words() -> Iterator[None]:
    """Let a refusal of the chat name the parameter as a client of this API knows it."""
    try:
        yield
    except BadRequest as error:
        error.param = CHAT_NAMES.get(error.param or "", error.param)
        raise


_SAME: Final = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed",
    "stop", "ignore_eos", "priority", "timeout", "top_logprobs", "metadata", "user", "safety_identifier",
    "chat_template_kwargs",
)  # fmt: skip
"""What has the same name and meaning in a chat."""


def _message(item: Item, where: str) -> ChatMessage:
    if item.type != "message" or item.role is None:
        raise BadRequest(f"Unsupported parameter: '{where}.type' must be message", f"{where}.type")
    if isinstance(item.content, list):
        return ChatMessage(role=item.role, content=[TextPart(text=part.text) for part in item.content])
    return ChatMessage(role=item.role, content=item.content)
