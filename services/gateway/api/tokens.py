"""Tokens of a text and text of tokens, as clients ask for them."""

from typing import Annotated

import msgspec
from msgspec import Meta

from services.gateway.api.messages import ChatMessage, TemplateVariables, check_turns, check_variables
from services.gateway.api.parameters import TokenId
from services.gateway.api.tools import MOST_TOOLS, FunctionTool, allowed


class TokenizeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /tokenize: of a prompt, or of messages after the chat template."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=10_000)] | None = None
    add_special_tokens: bool | None = None
    # of a conversation
    tools: Annotated[list[FunctionTool], Meta(max_length=MOST_TOOLS)] | None = None
    chat_template_kwargs: TemplateVariables | None = None
    add_generation_prompt: bool | None = None

    def check(self) -> None:
        """Apply the rules of a conversation. Raises BadRequest."""
        check_variables(self.chat_template_kwargs)
        allowed(self.tools or [], None)
        if self.messages is not None:
            check_turns(self.messages)


class DetokenizeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /detokenize."""

    tokens: list[TokenId]
    model: str | None = None
