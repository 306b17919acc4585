"""The Responses API, as clients ask for it; read here, then answered as the chat that it means.

Owns the way from items to messages. Nothing is kept between requests, so what refers to an earlier response is refused
by name.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from services.gateway.api.chat import ChatRequest, Effort
from services.gateway.api.messages import ChatMessage
from services.gateway.api.parameters import Metadata, Natural, Penalty, Seconds, StopStrings
from services.gateway.api.response_items import Item, Label, check_items, turns_of
from services.gateway.api.structure import AsObject, AsSchema, AsText, ResponseFormat, SchemaFormat
from services.gateway.api.tools import (
    MOST_TOOLS,
    AllowedChoice,
    AllowedTools,
    FunctionName,
    FunctionSpec,
    FunctionTool,
    NamedChoice,
    NamedFunction,
)
from shared.errors import BadRequest

LOGPROBS: Final = "message.output_text.logprobs"
Nothing: TypeAlias = None
"""The type of a parameter that this server knows and does not serve: only null is accepted."""

CHAT_NAMES: Final = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
    "reasoning_effort": "reasoning.effort",
}
"""Parameters of the chat that a client of this API knows by another name."""


class SchemaOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="json_schema", tag_field="type"):
    """JSON that fits a schema."""

    name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}(?!\n)$")]
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class TextSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the text looks."""

    format: AsText | AsObject | SchemaOutput | None = None
    verbosity: Literal["low", "medium", "high"] | None = None

    def as_format(self) -> ResponseFormat | None:
        """Say the format as chats do."""
        if isinstance(self.format, SchemaOutput):
            given = self.format
            return AsSchema(SchemaFormat(given.name, given.schema, given.description, given.strict))
        return self.format


class ReasoningSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much a model that reasons does so."""

    effort: Effort | None = None
    summary: Nothing = None


class FlatFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="function", tag_field="type"):
    """A function that may be called."""

    name: FunctionName
    parameters: dict[str, Any] | None = None  # a JSON Schema; none: no parameters
    strict: bool | None = None
    description: str | None = None

    def as_tool(self) -> FunctionTool:
        """Say it as chats do."""
        return FunctionTool(FunctionSpec(self.name, self.description, self.parameters, self.strict))


class FunctionChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="function", tag_field="type"):
    """This function must be called."""

    name: FunctionName

    def as_choice(self) -> NamedChoice:
        """Say it as chats do."""
        return NamedChoice(NamedFunction(self.name))


class SomeFunctions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="allowed_tools", tag_field="type"):
    """Only these functions may be called, or one of them must."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[FunctionChoice], Meta(min_length=1, max_length=MOST_TOOLS)]

    def as_choice(self) -> AllowedChoice:
        """Say it as chats do."""
        return AllowedChoice(AllowedTools(self.mode, [one.as_choice() for one in self.tools]))


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
    reasoning: ReasoningSettings | None = None
    tools: Annotated[list[FlatFunction], Meta(max_length=MOST_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice | SomeFunctions | None = None
    include: Annotated[list[Literal["message.output_text.logprobs"]], Meta(max_length=8)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["disabled"] | None = None
    service_tier: Literal["auto", "default"] | None = None
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
    max_tool_calls: Nothing = None

    def check(self) -> None:
        """Apply the rules that hold between fields. Raises BadRequest."""
        if isinstance(self.input, list):
            check_items(self.input)
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
        text, reasoning, choice = self.text or TextSettings(), self.reasoning or ReasoningSettings(), self.tool_choice
        made = ChatRequest(
            messages=self._turns(),
            max_tokens=self.max_output_tokens,
            logprobs=LOGPROBS in (self.include or ()),
            response_format=text.as_format(),
            verbosity=text.verbosity,
            reasoning_effort=reasoning.effort,
            tools=None if self.tools is None else [one.as_tool() for one in self.tools],
            tool_choice=choice if choice is None or isinstance(choice, str) else choice.as_choice(),
            **{name: getattr(self, name) for name in _SAME},
        )
        with in_its_words():
            made.check()
        return made

    def _turns(self) -> list[ChatMessage]:
        said = [] if self.instructions is None else [ChatMessage(role="system", content=self.instructions)]
        if isinstance(self.input, str):
            return [*said, ChatMessage(role="user", content=self.input)]
        return said + turns_of(self.input)


@contextmanager
def in_its_words() -> Iterator[None]:
    """Let a refusal of the chat name the parameter as a client of this API knows it."""
    try:
        yield
    except BadRequest as error:
        name = re.split(r"[.\[]", error.param or "", maxsplit=1)[0]
        if name == "tools" and error.param is not None:  # whose functions are flat here
            error.param = error.param.replace("].function.", "].", 1)
        error.param = CHAT_NAMES.get(name, error.param)
        raise


_SAME: Final = (
    "model", "stream", "parallel_tool_calls", "service_tier", "prompt_cache_key", "temperature", "top_p", "top_k",
    "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed", "stop", "ignore_eos", "priority",
    "timeout", "top_logprobs", "metadata", "user", "safety_identifier", "chat_template_kwargs",
)  # fmt: skip
"""What has the same name and meaning in a chat."""
