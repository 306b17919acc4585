"""The public shapes of answers: chat completions and text completions, whole and in pieces.

Owns every byte between the braces. A stream's events differ in one JSON string only, so the bytes around it are made
once per choice.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Protocol

import msgspec

from services.gateway.answers.logprobs import Around, ChatLogprobs, CompletionLogprobs
from services.gateway.tools.said import CallPiece
from shared.messages import Finish

encode: Final = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Usage:
    """What a request has cost. The prompt counts once, however many choices it has."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Make OpenAI's usage object."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


@dataclass(slots=True)
class Whole:
    """One choice, complete."""

    text: str
    reason: Finish
    logprobs: dict[str, Any] | None = None
    calls: list[CallPiece] = field(default_factory=list)


class Shape(Protocol):
    """How one route's answer looks."""

    @property
    def id(self) -> str:
        """Of the call."""
        ...

    def opening(self, choice: int) -> bytes | None:
        """Make the first chunk of a choice; None where the shape has none."""
        ...

    def around(self, choice: int) -> tuple[bytes, bytes]:
        """Make what stands before and after the JSON string of a choice's text."""
        ...

    def piece(self, choice: int, text: str, logprobs: dict[str, Any] | None) -> bytes:
        """Make a chunk with text and logprobs."""
        ...

    def closing(self, choice: int, reason: Finish) -> bytes:
        """Make the last chunk of a choice."""
        ...

    def usage(self, usage: Usage) -> bytes | None:
        """Make the chunk after all choices; None where the client did not ask for it."""
        ...

    def whole(self, choices: list[Whole], usage: Usage) -> bytes:
        """Make the answer of a request that is not streamed."""
        ...

    def logprobs(self) -> Around:
        """Make an empty collector."""
        ...


@dataclass(frozen=True, slots=True)
class _Answer:
    """What both shapes share."""

    id: str
    created: int
    model: str
    include_usage: bool = False

    def _chunk(self, kind: str, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        body = {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}
        if self.include_usage:
            body["usage"] = usage
        return encode(body)

    def _answer(self, kind: str, choices: list[dict[str, Any]], usage: Usage) -> bytes:
        body = {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}
        return encode(body | {"usage": usage.as_dict()})


_MARK: Final = "\x00text\x00"


def _cut(chunk: bytes) -> tuple[bytes, bytes]:
    before, after = chunk.split(encode(_MARK))
    return before, after


@dataclass(frozen=True, slots=True)
class ChatShape(_Answer):
    """POST /v1/chat/completions."""

    kind: ClassVar = "chat.completion.chunk"
    calling: bool = False  # functions may be called: there may be no text at all

    def opening(self, choice: int) -> bytes | None:
        """Make the chunk that names the role, with which a client knows that its request was admitted."""
        return self._delta(choice, {"role": "assistant", "content": None if self.calling else ""})

    def around(self, choice: int) -> tuple[bytes, bytes]:
        """Cut a chunk where its text stands."""
        return _cut(self._delta(choice, {"content": _MARK}))

    def piece(self, choice: int, text: str, logprobs: dict[str, Any] | None) -> bytes:
        """Make a chunk with logprobs."""
        return self._delta(choice, {"content": text}, logprobs=logprobs)

    def calls(self, choice: int, text: str, calls: list[CallPiece], logprobs: dict[str, Any] | None) -> bytes:
        """Make a chunk with pieces of calls, and the words before them."""
        delta: dict[str, Any] = {"content": text} if text else {}
        return self._delta(choice, {**delta, "tool_calls": [one.delta() for one in calls]}, logprobs=logprobs)

    def closing(self, choice: int, reason: Finish) -> bytes:
        """Make the chunk that says why the choice ended."""
        return self._delta(choice, {}, reason=reason)

    def usage(self, usage: Usage) -> bytes | None:
        """Make the chunk without choices."""
        return self._chunk(self.kind, [], usage.as_dict()) if self.include_usage else None

    def whole(self, choices: list[Whole], usage: Usage) -> bytes:
        """Make the whole answer."""
        made = [
            {
                "index": index,
                "message": _message(one),
                "logprobs": one.logprobs,
                "finish_reason": one.reason,
            }
            for index, one in enumerate(choices)
        ]
        return self._answer("chat.completion", made, usage)

    def logprobs(self) -> Around:
        """Make an empty collector."""
        return ChatLogprobs()

    def _delta(
        self,
        choice: int,
        delta: dict[str, Any],
        *,
        logprobs: dict[str, Any] | None = None,
        reason: Finish | None = None,
    ) -> bytes:
        one = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self._chunk(self.kind, [one])


def _message(one: Whole) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": one.text, "refusal": None}
    if one.calls:
        message |= {"content": one.text or None, "tool_calls": [call.whole() for call in one.calls]}
    return message


@dataclass(frozen=True, slots=True)
class CompletionShape(_Answer):
    """POST /v1/completions."""

    kind: ClassVar = "text_completion"
    echoes: list[str] = field(default_factory=list)  # the prompt of each choice, where it goes before the text

    def opening(self, choice: int) -> bytes | None:
        """Text completions have no role to tell; a prompt that is wanted back comes first."""
        return self.piece(choice, self.echoes[choice], None) if self.echoes else None

    def around(self, choice: int) -> tuple[bytes, bytes]:
        """Cut a chunk where its text stands."""
        return _cut(self.piece(choice, _MARK, None))

    def piece(self, choice: int, text: str, logprobs: dict[str, Any] | None) -> bytes:
        """Make a chunk with logprobs."""
        return self._chunk(self.kind, [_choice(choice, text, logprobs, None)])

    def closing(self, choice: int, reason: Finish) -> bytes:
        """Make the chunk that says why the choice ended."""
        return self._chunk(self.kind, [_choice(choice, "", None, reason)])

    def usage(self, usage: Usage) -> bytes | None:
        """Make the chunk without choices."""
        return self._chunk(self.kind, [], usage.as_dict()) if self.include_usage else None

    def whole(self, choices: list[Whole], usage: Usage) -> bytes:
        """Make the whole answer."""
        before = self.echoes or [""] * len(choices)
        made = [_choice(k, before[k] + one.text, one.logprobs, one.reason) for k, one in enumerate(choices)]
        return self._answer(self.kind, made, usage)

    def logprobs(self) -> Around:
        """Make an empty collector."""
        return CompletionLogprobs()


def _choice(index: int, text: str, logprobs: dict[str, Any] | None, reason: Finish | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
