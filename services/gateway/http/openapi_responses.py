"""What the Responses API answers, as the OpenAPI document tells it. See `openapi_answers.py`."""

from typing import Any, Literal

from msgspec import Struct

from services.gateway.http.openapi_answers import ChosenToken

State = Literal["in_progress", "completed", "incomplete"]


class OutputTextPart(Struct, tag="output_text", tag_field="type"):
    """What the model says."""

    text: str
    annotations: list[Any]
    logprobs: list[ChosenToken]


class OutputMessage(Struct, tag="message", tag_field="type"):
    """A message."""

    id: str
    status: State
    role: Literal["assistant"]
    content: list[OutputTextPart]


class OutputFunctionCall(Struct, tag="function_call", tag_field="type"):
    """A call of a function; `function_call_output` answers it under the same call_id."""

    id: str
    status: State
    call_id: str
    name: str
    arguments: str


class InputTokensDetails(Struct):
    """Where the input's tokens came from."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(Struct):
    """What the output's tokens were for."""

    reasoning_tokens: int


class ResponseUsage(Struct):
    """What a response has cost."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseError(Struct):
    """Why a response failed."""

    code: str
    message: str


class WhyIncomplete(Struct):
    """Why a response is not all that it might have been."""

    reason: Literal["max_output_tokens", "content_filter"]


class Response(Struct):
    """The answer, and what was asked for."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: ResponseError | None
    incomplete_details: WhyIncomplete | None
    model: str
    output: list[OutputMessage | OutputFunctionCall]
    usage: ResponseUsage | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, Any]
    prompt_cache_key: str | None
    safety_identifier: str | None
    temperature: float | None
    top_p: float | None
    user: str | None
    background: bool
    parallel_tool_calls: bool
    previous_response_id: None
    reasoning: dict[str, str | None]
    service_tier: str
    store: bool
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_logprobs: int
    truncation: Literal["disabled"]


class ResponseEvent(Struct):
    """The data of one event; what else it has depends on its type, as in OpenAI's API."""

    type: str
    sequence_number: int
