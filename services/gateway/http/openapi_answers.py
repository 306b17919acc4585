"""What answers look like, as the OpenAPI document tells it.

Owns the description only: `answers/` makes the bytes. Schemathesis holds one to the other in the tests.
"""

from typing import Any, Literal

import msgspec
from msgspec import Struct


class ErrorDetail(Struct):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(Struct):
    """The body of every answer that is not a success, and the data of an event that ends a broken stream."""

    error: ErrorDetail


class CachedTokens(Struct):
    """Where the prompt's tokens came from."""

    cached_tokens: int


class CompletionUsage(Struct):
    """What a request has cost."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens | msgspec.UnsetType = msgspec.UNSET  # not in the usage so far of a stream


class ShownToken(Struct):
    """A token that might have come."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(ShownToken):
    """A token that came, and what might have."""

    top_logprobs: list[ShownToken]


class ChatLogprobs(Struct):
    """Of each token of a message."""

    content: list[ChosenToken]
    refusal: None


class ShownFunction(Struct):
    """Which function the model calls, and with what."""

    name: str
    arguments: str


class ShownCall(Struct):
    """One call."""

    id: str
    type: Literal["function"]
    function: ShownFunction


class AssistantMessage(Struct):
    """What the model says. Content is null where it only calls functions."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[ShownCall] | msgspec.UnsetType = msgspec.UNSET


Reason = Literal["stop", "length", "tool_calls", "content_filter"]


class ChatChoice(Struct):
    """One of n answers."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: Reason


class ChatCompletion(Struct):
    """The answer to a chat."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage


class ChatChunkChoice(Struct):
    """What is new in one of n answers."""

    index: int
    delta: dict[str, Any]  # role, content, tool_calls: what is new of them
    logprobs: ChatLogprobs | None
    finish_reason: Reason | None


class ChatCompletionChunk(Struct):
    """One event of a streamed chat."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: CompletionUsage | msgspec.UnsetType | None = msgspec.UNSET  # with stream_options alone


class CompletionLogprobs(Struct):
    """Of each token of a completion."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(Struct):
    """One completion, or what is new of it in a stream."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Reason | None


class Completion(Struct):
    """Completions of prompts; streamed, each event is one of these too."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | msgspec.UnsetType | None = msgspec.UNSET


class Model(Struct):
    """A scenario, under the name that requests call it by."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    max_model_len: int


class Models(Struct):
    """What this key may use."""

    object: Literal["list"]
    data: list[Model]


class Tokens(Struct):
    """The tokens of a text."""

    count: int
    max_model_len: int
    tokens: list[int]


class Words(Struct):
    """The text of tokens."""

    prompt: str


class Judgment(Struct):
    """Of one text."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[str]]


class Moderations(Struct):
    """What the built-in rules say of texts."""

    id: str
    model: str
    results: list[Judgment]
