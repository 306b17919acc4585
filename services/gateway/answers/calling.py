"""Answers whose text may hold calls of functions: each choice's sink gets one in front that finds them.

Owns nothing but the parsers.
"""

from typing import cast

from services.gateway.prompts.chats import Calling
from services.gateway.relay.calls import Answer
from services.gateway.relay.record import Sink
from services.gateway.tools.parsers import open_parser
from services.gateway.tools.sink import CallSink, ParsedChoice


class CallingAnswer:
    """An answer in front of an answer."""

    def __init__(self, inner: Answer, calling: Calling, *, streamed: bool) -> None:
        self._inner = inner
        self._calling = calling
        self._streamed = streamed

    def sink(self, choice: int, request_id: str) -> Sink:
        """Make the sink of the next choice."""
        calling = self._calling
        parser = open_parser(calling.form, calling.names, eager=self._streamed, single=calling.single, whose=request_id)
        return ParsedChoice(cast("CallSink", self._inner.sink(choice, request_id)), parser)
