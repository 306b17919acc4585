"""Log probabilities in OpenAI's forms, collected until a chunk or a whole answer takes them."""

from codecs import IncrementalDecoder, getincrementaldecoder
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from shared.messages import Logprobs, TokenLogprob

LEAST: Final = -9999.0
"""A log probability of minus infinity, which JSON cannot say."""


class Around(Protocol):
    """Collects the logprobs of a choice in the form that its shape wants."""

    def add(self, logprobs: Logprobs) -> None:
        """Take one more token."""
        ...

    def take(self) -> dict[str, Any] | None:
        """Hand over what came since the last call; None when nothing did."""
        ...


@dataclass(slots=True)
class ChatLogprobs:
    """In chats and responses."""

    entries: list[dict[str, Any]] = field(default_factory=list)

    def add(self, logprobs: Logprobs) -> None:
        """Take one more token."""
        entry = _chat_token(logprobs.token)
        entry["top_logprobs"] = [_chat_token(other) for other in logprobs.top]
        self.entries.append(entry)

    def take(self) -> dict[str, Any] | None:
        """Hand over what came since the last call."""
        entries, self.entries = self.entries, []
        return {"content": entries, "refusal": None} if entries else None


@dataclass(slots=True)
class CompletionLogprobs:
    """In text completions: lists beside each other."""

    offset: int = 0  # where the next token's text begins, in characters: one may be cut over several tokens
    decoder: IncrementalDecoder = field(default_factory=lambda: getincrementaldecoder("utf-8")("replace"))
    entries: list[Logprobs] = field(default_factory=list)

    def add(self, logprobs: Logprobs) -> None:
        """Take one more token."""
        self.entries.append(logprobs)

    def take(self) -> dict[str, Any] | None:
        """Hand over what came since the last call."""
        entries, self.entries = self.entries, []
        if not entries:
            return None
        offsets = []
        for one in entries:
            offsets.append(self.offset)
            self.offset += len(self.decoder.decode(one.token.raw))
        return {
            "tokens": [one.token.text for one in entries],
            "token_logprobs": [_finite(one.token.logprob) for one in entries],
            "top_logprobs": [{other.text: _finite(other.logprob) for other in one.top} for one in entries],
            "text_offset": offsets,
        }


def _finite(logprob: float) -> float:
    return max(logprob, LEAST)


def _chat_token(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.text, "logprob": _finite(token.logprob), "bytes": list(token.raw)}
