"""Tokens of a text and text of tokens, as clients ask for them."""

from typing import Annotated

import msgspec
from msgspec import Meta

from services.gateway.api.messages import ChatMessage, check_turns
from services.gateway.api.parameters import TokenId


class TokenizeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /tokenize: of a prompt, or of messages after the chat template."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=10_000)] | None = None
    add_special_tokens: bool | None = None

    def check(self) -> None:
        """Apply the rules of a conversation. Raises BadRequest."""
        if self.messages is not None:
            check_turns(self.messages)


class DetokenizeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /detokenize."""

    tokens: list[TokenId]
    model: str | None = None
