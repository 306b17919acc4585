"""Choices whose events say more than a token's number: those of several, and those whose text comes in other pieces.

Owns the marks in their event ids. Plain streams of one choice have `SseChoice`, which costs less.
"""

from typing import Any

from services.gateway.answers.positions import END, Mark, Marks, Position, units
from services.gateway.answers.shapes import Shape, encode
from services.gateway.answers.sse import SseChoice, SseStream
from services.gateway.tools.said import CallPiece
from shared.messages import Logprobs


class MarkedChoice(SseChoice):
    """One choice of such a stream. Its event ids begin with the call's id, whichever choice it is."""

    __slots__ = ("_after", "_before", "_entries", "_mark", "_marks", "_place", "_units")

    def __init__(self, stream: SseStream, shape: Shape, choice: int, call_id: str, marks: Marks) -> None:
        super().__init__(stream, shape, choice, call_id)
        self._before, self._after = shape.around(choice)
        self._marks = marks
        self._mark = Mark(exact=marks.exact)
        self._place = marks.open()
        self._units = self._entries = 0  # that the next event shows

    def resume_at(self, seen: Position) -> None:
        """Go on behind what a client has seen."""
        super().resume_at(seen)
        self._marks.put(self._place, self._mark.resume(seen))

    def text(self, index: int, text: str) -> None:
        """Write one event."""
        self._last = index
        self._units += len(text)
        self._event(index, b"%b%b%b" % (self._before, encode(text), self._after))

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        """Write a token with its logprobs, and those of the tokens whose text was held until now."""
        self._units += len(text)
        super().token(index, text, logprobs)

    def calls(self, index: int, text: str, calls: list[CallPiece]) -> None:
        """Write pieces of calls, with the words before them and the logprobs that wait."""
        self._units += units(text, calls)
        super().calls(index, text, calls)

    def _waiting_logprobs(self) -> dict[str, Any] | None:
        self._entries += len(self._pending)
        return super()._waiting_logprobs()

    def _event(self, index: int, body: bytes) -> None:
        mark = self._mark.show(index, self._units, self._entries)
        self._units = self._entries = 0
        self._write(self._marks.put(self._place, mark), body)

    def _end(self, body: bytes) -> None:
        self._write(self._marks.put(self._place, END), body)

    def _write(self, mark: bytes, body: bytes) -> None:
        self._stream.event(b"id: %b:%b\ndata: %b\n\n" % (self._id, mark, body))
