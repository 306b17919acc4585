"""Answers that are not streamed: the choices are collected and become one JSON body.

Owns the text of each choice until it is complete.
"""

from services.gateway.answers.shapes import Shape, Usage, Whole
from services.gateway.tools.said import CallPiece
from shared.messages import Finish, Logprobs


class Collected:
    """One choice, growing; a record's sink."""

    __slots__ = ("_calls", "_pending", "_shown", "_texts", "reason")

    def __init__(self) -> None:
        self.reason: Finish | None = None
        self._calls: list[CallPiece] = []
        self._texts: list[str] = []
        self._shown: list[Logprobs] = []
        self._pending: list[Logprobs] = []

    def text(self, index: int, text: str) -> None:  # noqa: ARG002  sinks that write events need the index
        """Keep the text."""
        self._texts.append(text)

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        """Keep text and logprobs."""
        if logprobs is not None:
            self._pending.append(logprobs)
        if text:
            self.text(index, text)
            self._shown += self._pending
            self._pending = []

    def calls(self, index: int, text: str, calls: list[CallPiece]) -> None:
        """Keep calls, each of them whole, and the words before them."""
        if text:
            self.text(index, text)
        self._calls += calls
        self._shown += self._pending
        self._pending = []

    def finish(self, reason: Finish) -> None:
        """Complete the choice. Logprobs of tokens that a stop swallowed are swallowed too."""
        self.reason = reason
        if reason is not Finish.STOP:
            self._shown += self._pending

    def whole(self, shape: Shape) -> Whole:
        """Make the choice as its shape wants it; `finish` was called."""
        around = shape.logprobs()
        for one in self._shown:
            around.add(one)
        return Whole("".join(self._texts), self.reason or Finish.STOP, around.take(), self._calls)


class WholeAnswer:
    """A whole answer, to be sent once."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._choices: list[Collected] = []

    def sink(self, choice: int, request_id: str) -> Collected:  # noqa: ARG002  streamed answers need them
        """Make the sink of the next choice."""
        made = Collected()
        self._choices.append(made)
        return made

    def body(self, usage: Usage) -> bytes:
        """Make the JSON body; every choice is complete."""
        return self._shape.whole([one.whole(self._shape) for one in self._choices], usage)
