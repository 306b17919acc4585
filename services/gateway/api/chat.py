"""Chat completions, as clients ask for them."""

from typing import Annotated, Literal

from msgspec import Meta

from services.gateway.api.messages import (
    ChatMessage,
    RefusalPart,
    TemplateVariables,
    TextPart,
    check_turns,
    check_variables,
)
from services.gateway.api.parameters import Natural, Parameters
from services.gateway.api.structure import Demanded, ResponseFormat, of_format
from services.gateway.api.tools import MOST_TOOLS, FunctionTool, ToolChoice, allowed
from shared.errors import BadRequest

__all__ = ["ChatMessage", "ChatRequest", "RefusalPart", "TextPart"]

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class ChatRequest(Parameters, frozen=True, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=10_000)]
    max_completion_tokens: Natural | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[FunctionTool], Meta(max_length=MOST_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None  # says nothing where there are no tools
    # for the chat template; what it has no place for is refused
    chat_template_kwargs: TemplateVariables | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    reasoning_effort: Effort | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    # accepted where they ask for what is done anyway
    modalities: Annotated[list[Literal["text"]], Meta(min_length=1, max_length=1)] | None = None
    service_tier: Literal["auto", "default"] | None = None
    prompt_cache_key: Annotated[str, Meta(max_length=512)] | None = None

    def demands(self) -> list[Demanded]:
        """See Parameters."""
        return of_format(self.response_format) + super().demands()

    @property
    def bound(self) -> int | None:
        """Tokens to generate at most; the newer name wins."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def check(self) -> None:
        """Apply the rules that hold between fields. Raises BadRequest."""
        super().check()
        if self.top_logprobs is not None and not self.logprobs:
            raise BadRequest("top_logprobs is only allowed with logprobs: true", "top_logprobs")
        check_turns(self.messages)
        allowed(self.tools or [], self.tool_choice)
        check_variables(self.chat_template_kwargs)
        if self.continue_final_message:
            self._check_continued()

    def _check_continued(self) -> None:
        param = "continue_final_message"
        if self.add_generation_prompt:
            raise BadRequest("continue_final_message and add_generation_prompt exclude each other", param)
        last = self.messages[-1]
        if last.role != "assistant" or last.tool_calls or not last.text.strip():
            raise BadRequest("continue_final_message needs words of the assistant's as the last message", param)
