"""Chat completions, as clients ask for them."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from services.gateway.api.parameters import Natural, Parameters
from shared.errors import BadRequest


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

    def check(self) -> None:
        """Apply the rules that hold between fields. Raises BadRequest."""
        super().check()
        if self.top_logprobs is not None and not self.logprobs:
            raise BadRequest("top_logprobs is only allowed with logprobs: true", "top_logprobs")
