"""Between a record and the answer's own sink: finds the calls in a choice's text.

Only requests with functions pay for it; others have no such sink.
"""

from typing import Protocol

from services.gateway.relay.record import Sink
from services.gateway.tools.parser import Parser
from services.gateway.tools.said import CallPiece, Said
from shared.messages import Finish, Logprobs


class CallSink(Sink, Protocol):
    """A sink of an answer that can show calls."""

    def calls(self, index: int, text: str, calls: list[CallPiece]) -> None:
        """Show pieces of calls, and the text before them; `index` is the last token that they come from."""
        ...


class ParsedChoice:
    """One choice whose text may hold calls; a record's sink."""

    __slots__ = ("_inner", "_last", "_late", "_parser", "_rich")

    def __init__(self, inner: CallSink, parser: Parser) -> None:
        self._inner = inner
        self._parser = parser
        self._last = -1  # token that brought text
        self._rich = False  # tokens come with their logprobs
        self._late: list[tuple[int, Logprobs | None]] = []  # tokens whose text has not come: a stop may swallow them

    def text(self, index: int, text: str) -> None:
        """Show what can be told so far."""
        self._last = index
        for said in self._parser.feed(text):
            self._show(said)

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        """Show what can be told so far; logprobs go with the words or the call that their token belongs to."""
        self._rich = True
        self._late.append((index, logprobs))
        if not text:
            return
        self._last = index
        self._pass_late()
        for said in self._parser.feed(text):
            self._show(said)

    def finish(self, reason: Finish) -> None:
        """Show the rest, and say whether the answer ended with calls."""
        for said in self._parser.finish(cut=reason is not Finish.STOP):
            self._show(said)
        if reason is not Finish.STOP:
            self._pass_late()
        calls = reason is Finish.STOP and self._parser.teller.complete > 0
        self._inner.finish(Finish.TOOL_CALLS if calls else reason)

    def _pass_late(self) -> None:
        for index, logprobs in self._late:
            self._inner.token(index, "", logprobs)
        self._late.clear()

    def _show(self, said: Said) -> None:
        if said.calls:
            self._inner.calls(self._last, said.text, said.calls)
        elif self._rich:
            self._inner.token(self._last, said.text, None)
        else:
            self._inner.text(self._last, said.text)
