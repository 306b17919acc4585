"""What all requests that generate have in common.

A field that is not here, or a value that nobody downstream can honour, is refused by name; nothing is dropped in
silence. Knows nothing of workers, tokens or connections.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from services.gateway.api.structure import Demanded, Schema, StructuredOutputs, Words, of_outputs, only_one
from shared.errors import BadRequest

MAX_CHOICES: Final = 128
"""Choices of one client request in all: n times the number of prompts."""

Penalty = Annotated[float, Meta(ge=-2, le=2)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Natural = Annotated[int, Meta(ge=1, le=2**31 - 1)]
LogitBias = Annotated[dict[TokenId, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)]
StopStrings = Annotated[list[Annotated[str, Meta(min_length=1, max_length=1024)]], Meta(max_length=4)]
Metadata = Annotated[dict[str, Any], Meta(max_length=64)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What else a stream carries."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # accepted: this server never pads events
    continuous_usage_stats: bool | None = None  # usage so far on every chunk


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
    timeout: Seconds | None = None  # for the whole answer; the scenario's own time, where that is less
    # forms of the text in vLLM's words; at most one
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | None = None
    guided_regex: str | None = None
    guided_choice: Words | None = None
    guided_grammar: str | None = None
    # accepted for the client's own books; nothing here depends on them
    user: Annotated[str, Meta(max_length=512)] | None = None
    safety_identifier: Annotated[str, Meta(max_length=512)] | None = None
    metadata: Metadata | None = None
    store: bool | None = None  # nothing is stored, whatever it says

    def demands(self) -> list[Demanded]:
        """What the text must be. Raises BadRequest."""
        guided = StructuredOutputs(
            json=self.guided_json, regex=self.guided_regex, choice=self.guided_choice, grammar=self.guided_grammar
        )
        return of_outputs(self.structured_outputs, "structured_outputs.") + of_outputs(guided, "guided_")

    @property
    def choices(self) -> int:
        """Choices to generate for each prompt."""
        return self.n or 1

    @property
    def bound(self) -> int | None:
        """Tokens to generate at most; None where the client does not say."""
        return self.max_tokens

    def check(self) -> None:
        """Apply the rules that hold between fields. Raises BadRequest."""
        if self.stream_options is not None and not self.stream:
            raise BadRequest("stream_options is only allowed with stream: true", "stream_options")
        if self.min_tokens and self.min_tokens > (self.bound or self.min_tokens):
            raise BadRequest("min_tokens is greater than max_tokens", "min_tokens")
        only_one(self.demands())
