"""What a client has seen of a stream is not shown again: between the workers' text and a resumed answer's own sinks.

Owns the counting down. The text before it is made anew from the stream's first token, so that whatever reads along
(calls, moderation) is in the state in which it was.
"""

from typing import Protocol, cast

import msgspec

from services.gateway.answers.positions import Position
from services.gateway.relay.calls import Answer
from services.gateway.relay.record import Sink
from services.gateway.tools.said import CallPiece
from services.gateway.tools.sink import CallSink
from shared.messages import Finish, Logprobs


class ResumedSink(CallSink, Protocol):
    """A sink of an answer that can be resumed."""

    def resume_at(self, seen: Position) -> None:
        """Go on behind what a client has seen."""
        ...

    def pass_over(self, logprobs: Logprobs) -> None:
        """Count a token that it has seen."""
        ...


class SkippingAnswer:
    """An answer in front of an answer. `seen`: how far its client is, by choice; none: it has seen nothing."""

    def __init__(self, inner: Answer, seen: list[Position]) -> None:
        self._inner = inner
        self._seen = seen

    def sink(self, choice: int, request_id: str) -> Sink:
        """Make the sink of the next choice."""
        sink = cast("ResumedSink", self._inner.sink(choice, request_id))
        seen = self._seen[choice] if choice < len(self._seen) else Position()
        if seen == Position():
            return sink
        sink.resume_at(seen)
        return SkippingChoice(sink, seen)


class SkippingChoice:
    """One choice, of which a client has seen the beginning."""

    __slots__ = ("_entries", "_exact", "_index", "_inner", "_over", "_units")

    def __init__(self, inner: ResumedSink, seen: Position) -> None:
        self._inner = inner
        self._index = seen.index
        self._over = seen.over
        self._exact = seen.units is not None
        self._units, self._entries = seen.units or 0, seen.entries

    def text(self, index: int, text: str) -> None:
        """Show what was not seen."""
        if not self._over and (text := self._rest(index, text)):
            self._inner.text(index, text)

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        """Show what was not seen of the text, and of the logprobs."""
        if self._over:
            return
        if logprobs is not None and (self._entries or (not self._exact and index <= self._index)):
            self._entries = max(0, self._entries - 1)
            self._inner.pass_over(logprobs)
            logprobs = None
        text = self._rest(index, text)
        if text or logprobs is not None:
            self._inner.token(index, text, logprobs)

    def calls(self, index: int, text: str, calls: list[CallPiece]) -> None:
        """Show what was not seen of words and calls."""
        if self._over:
            return
        text = self._rest(index, text)
        left = [piece for piece in map(self._unseen, calls) if piece is not None]
        if left:
            self._inner.calls(index, text, left)
        elif text:
            self._inner.text(index, text)

    def finish(self, reason: Finish) -> None:
        """Show the ending, unless it was seen."""
        if not self._over:
            self._inner.finish(reason)

    def _rest(self, index: int, text: str) -> str:
        if not self._exact:
            return text if index > self._index else ""
        skipped = min(self._units, len(text))
        self._units -= skipped
        return text[skipped:]

    def _unseen(self, piece: CallPiece) -> CallPiece | None:
        begins = piece.name is not None
        if not self._units:
            return piece
        if begins:
            self._units -= 1
        skipped = min(self._units, len(piece.arguments))
        self._units -= skipped
        left = piece.arguments[skipped:]
        return msgspec.structs.replace(piece, id=None, name=None, arguments=left) if left else None
