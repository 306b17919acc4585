"""A response that is not streamed: collected, and sent as one JSON body.

Owns the output until it is complete. It has the items that a stream of the same text has, in the same states.
"""

from services.gateway.answers.response_growth import FunctionCall, Message
from services.gateway.answers.responses import Json, ResponseShape, status
from services.gateway.answers.shapes import Usage, encode
from services.gateway.tools.said import CallPiece
from shared.messages import Finish, Logprobs


class WholeResponse:
    """One whole response, to be sent once, and the sink of its one choice."""

    def __init__(self, shape: ResponseShape) -> None:
        self._shape = shape
        self._items: list[Message | FunctionCall] = []
        self._reason = Finish.STOP
        self._around = shape.logprobs()  # of tokens whose text has not come

    def sink(self, choice: int, request_id: str) -> "WholeResponse":  # noqa: ARG002  there is only one choice
        """Make the sink of the one choice."""
        return self

    def text(self, index: int, text: str) -> None:  # noqa: ARG002  sinks that write events need the index
        """Keep the text."""
        self._message().texts.append(text)

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        """Keep text and logprobs."""
        if logprobs is not None:
            self._around.add(logprobs)
        if text:
            self.text(index, text)
            self._message().logprobs += self._waiting()

    def calls(self, index: int, text: str, calls: list[CallPiece]) -> None:
        """Keep calls, and the words before them. Only words have logprobs here."""
        self.token(index, text, None)
        self._around.take()
        for piece in calls:
            last = self._items[-1] if self._items else None
            if piece.name is not None or not isinstance(last, FunctionCall):
                last = FunctionCall(self._shape, len(self._items), piece)
                self._items.append(last)
            last.grow(piece.arguments)

    def finish(self, reason: Finish) -> None:
        """Complete the choice. Logprobs of tokens that a stop swallowed are swallowed too."""
        self._reason = reason
        if self._items and isinstance(self._items[-1], Message) and reason is not Finish.STOP:
            self._message().logprobs += self._waiting()

    def body(self, usage: Usage) -> bytes:
        """Make the JSON body; the choice is complete."""
        if not self._items:
            self._message()  # an empty answer is a message too
        *before, last = self._items
        output = [*(one.item("completed") for one in before), last.item(status(self._reason))]
        return encode(self._shape.whole(output, usage, self._reason))

    def _message(self) -> Message:
        """The message that is growing; only what stands last grows."""
        last = self._items[-1] if self._items else None
        if not isinstance(last, Message):
            last = Message(self._shape, len(self._items))
            self._items.append(last)
        return last

    def _waiting(self) -> list[Json]:
        made: list[Json] = (self._around.take() or {}).get("content", [])
        return made
