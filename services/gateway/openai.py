"""The public request shapes, validated once where they come in.

Owns what a client may say. A field that is not here, or a value that nobody downstream can honour, is refused by
name; nothing is dropped in silence. Knows nothing of workers, tokens or connections.
"""

import re
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from shared.errors import BadRequest

MAX_CHOICES: Final = 128
"""Choices of one client request in all: n times the number of prompts."""
MAX_PROMPT_LISTS: Final = 128

_UNSUPPORTED_NAMES: Final = (
    "audio background cache_salt continue_final_message documents function_call functions guided_json guided_regex "
    "guided_choice guided_grammar include_stop_str_in_output input instructions length_penalty modalities "
    "mm_processor_kwargs prediction prompt_cache_key prompt_logprobs reasoning reasoning_effort service_tier "
    "skip_special_tokens spaces_between_special_tokens structured_outputs timeout tool_calls tool_call_id "
    "truncate_prompt_tokens use_beam_search verbosity web_search_options add_generation_prompt chat_template "
    "continuous_usage_stats"
)
UNSUPPORTED: Final = frozenset(_UNSUPPORTED_NAMES.split())
"""Names other servers know and this one does not honour: told apart from a misspelling."""

Penalty = Annotated[float, Meta(ge=-2, le=2)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Natural = Annotated[int, Meta(ge=1, le=2**31 - 1)]
LogitBias = Annotated[dict[TokenId, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)]
StopStrings = Annotated[list[Annotated[str, Meta(min_length=1, max_length=1024)]], Meta(max_length=4)]
Metadata = Annotated[dict[str, Any], Meta(max_length=64)]

T = TypeVar("T")


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What else a stream carries."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # accepted: this server never pads events


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What chat and text completions have in common. None is "not given", also when the client says null."""

    model: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: Natural | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    stop: Annotated[str, Meta(min_length=1, max_length=1024)] | StopStrings | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=128)] | None = None
    ignore_eos: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    priority: Annotated[int, Meta(ge=-100, le=100)] | None = None
    # accepted for the client's own books; nothing here depends on them
    user: Annotated[str, Meta(max_length=512)] | None = None
    safety_identifier: Annotated[str, Meta(max_length=512)] | None = None
    metadata: Metadata | None = None
    store: bool | None = None


class TextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="text", tag_field="type"):
    """The one kind of content part that a text model reads."""

    text: str


class ChatMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    name: Annotated[str, Meta(max_length=256)] | None = None

    @property
    def text(self) -> str:
        """The content as one string; parts are joined by line ends."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class ResponseFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Only free text for now."""

    type: Literal["text"]


class ChatRequest(Parameters, frozen=True, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=10_000)]
    max_completion_tokens: Natural | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    chat_template_kwargs: Annotated[dict[str, Any], Meta(max_length=64)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Any], Meta(max_length=0)] | None = None
    tool_choice: Literal["none"] | None = None
    parallel_tool_calls: bool | None = None  # says nothing where there are no tools


class CompletionRequest(Parameters, frozen=True, kw_only=True):
    """POST /v1/completions."""

    prompt: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    suffix: str | None = None

    def prompts(self) -> list[str | list[int]]:
        """Each prompt, as text or as tokens. Raises BadRequest for a mixed list."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if all(isinstance(item, int) for item in self.prompt):
            return [[item for item in self.prompt if isinstance(item, int)]]
        mixed = "prompt is a string, a list of strings, a list of tokens or a list of lists of tokens, not a mixture"
        if len(self.prompt) > MAX_PROMPT_LISTS:
            raise BadRequest(f"at most {MAX_PROMPT_LISTS} prompts in one request, got {len(self.prompt)}", "prompt")
        kind = type(self.prompt[0])
        if any(type(item) is not kind for item in self.prompt):
            raise BadRequest(mixed, "prompt")
        return [item for item in self.prompt if not isinstance(item, int)]


class TokenizeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /tokenize: of a prompt, or of messages after the chat template."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=10_000)] | None = None
    add_special_tokens: bool | None = None


class DetokenizeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /detokenize."""

    tokens: list[TokenId]
    model: str | None = None


_PATH: Final = re.compile(r" - at (`key` in )?`\$\.?([^`]*)`$")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `([^`]*)`")
_MISSING: Final = re.compile(r"Object missing required field `([^`]*)`")


def parse(body: bytes, shape: type[T]) -> T:
    """Read a JSON body as `shape`. Raises BadRequest that names the parameter at fault."""
    try:
        request = msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise _fault(str(error)) from None
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not valid UTF-8: {error.reason} at byte {error.start} of a string") from None
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
    except ValueError as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from None
    return checked(request)


def convert(fields: dict[str, Any], shape: type[T]) -> T:
    """Read the fields of a message as `shape`. Raises BadRequest that names the parameter at fault."""
    try:
        request = msgspec.convert(fields, type=shape, str_keys=True, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise _fault(str(error)) from None
    except RecursionError:
        raise BadRequest("the message is nested too deeply") from None
    return checked(request)


def _fault(message: str) -> BadRequest:
    """Say what msgspec found, with the parameter's own name."""
    where = ""
    if path := _PATH.search(message):
        where = path[2]
        message = message[: path.start()]
    if unknown := _UNKNOWN.match(message):
        name = f"{where}.{unknown[1]}".lstrip(".")
        kind = "Unsupported" if unknown[1] in UNSUPPORTED else "Unknown"
        return BadRequest(f"{kind} parameter: '{name}'", name)
    if missing := _MISSING.match(message):
        name = f"{where}.{missing[1]}".lstrip(".")
        return BadRequest(f"Missing required parameter: '{name}'", name)
    if where.split(".")[0] in ("tools", "tool_choice", "response_format"):
        return BadRequest(f"Unsupported parameter: '{where}' has a value this server does not support yet", where)
    return BadRequest(
        f"Invalid value for '{where}': {message}" if where else f"Invalid request: {message}", where or None
    )


def checked(request: T) -> T:
    """Apply the rules that hold between fields. Raises BadRequest."""
    if isinstance(request, Parameters):
        if request.stream_options is not None and not request.stream:
            raise BadRequest("stream_options is only allowed with stream: true", "stream_options")
        if request.min_tokens and request.min_tokens > (request.max_tokens or request.min_tokens):
            raise BadRequest("min_tokens is greater than max_tokens", "min_tokens")
    if isinstance(request, ChatRequest) and request.top_logprobs is not None and not request.logprobs:
        raise BadRequest("top_logprobs is only allowed with logprobs: true", "top_logprobs")
    if isinstance(request, CompletionRequest):
        if request.echo:
            raise BadRequest("Unsupported parameter: 'echo' must be false", "echo")
        if request.suffix:
            raise BadRequest("Unsupported parameter: 'suffix' must be empty", "suffix")
        if request.best_of is not None and request.best_of != (request.n or 1):
            raise BadRequest("Unsupported parameter: 'best_of' must equal n", "best_of")
    return request
