"""A streamed response: its events, numbered, in the order that the API has.

Owns the sequence numbers and the output so far, which the last event repeats. The connection is an `SseStream`'s; a
token's event differs from the one before in two numbers and one string.
"""

from typing import Final

from services.gateway.answers.response_growth import FunctionCall, Message
from services.gateway.answers.responses import Events, Json, ResponseShape, event, status
from services.gateway.answers.shapes import Usage, encode
from services.gateway.answers.sse import PING, SseStream
from services.gateway.refusals import answer, told
from services.gateway.tools.said import CallPiece
from shared.errors import BadRequest, BatonError
from shared.messages import Finish, Logprobs

_FIRST: Final = 2
"""The events before are `created` and `in_progress`, written when a worker has the request."""


class ResponseEvents:
    """One streamed response, and the sink of its one choice."""

    def __init__(self, shape: ResponseShape, max_unsent: int, send_timeout_s: float, seen: int = -1) -> None:
        self.stream = SseStream(max_unsent, send_timeout_s)
        self._shape = shape
        self._output: list[Json] = []  # items that are complete
        self._message: Message | None = None  # at most one item is open
        self._call: FunctionCall | None = None
        self._number = _FIRST  # of the next event
        self._seen = seen  # number of the last event that the client has: a resumed response goes on behind it
        self._last = -1
        self._reason = Finish.STOP
        self._around = shape.logprobs()
        self._pending: list[Logprobs] = []
        self._head = b"id: %b:" % shape.id.encode()
        self._middle = self._between = self._tail = b""  # around a delta's numbers and its text
        self._fixed = 0  # bytes of a delta's chunk but for its numbers, what is between them, and its text

    def sink(self, choice: int, request_id: str) -> "ResponseEvents":  # noqa: ARG002  there is only one choice
        """Make the sink of the one choice."""
        return self

    def opening(self) -> bytes:
        """Make what a client sees first, once it is admitted."""
        body = self._shape.body("in_progress", [])
        kinds = ("response.created", "response.in_progress")
        events = [self._numbered(n, event(kind, sequence_number=n, response=body)) for n, kind in enumerate(kinds)]
        return b"".join(events[self._seen + 1 :]) or PING

    # ---- the sink ----------------------------------------------------------------------------------------------------

    def text(self, index: int, text: str) -> None:
        """Write one event: the hot path."""
        message = self._message
        if message is None:
            message = self._begin()
        message.texts.append(text)
        self._last = index
        number = self._number
        self._number = number + 1
        if number <= self._seen:
            return
        numbers = b"%d%b%d" % (number, self._middle, number)
        words = encode(text)
        size = self._fixed + len(numbers) + len(words)
        self.stream.chunk(b"%x\r\n%b%b%b%b%b" % (size, self._head, numbers, self._between, words, self._tail))

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        """Write a token with its logprobs, and those of the tokens whose text was held until now."""
        if logprobs is not None:
            self._pending.append(logprobs)
        if text:
            self._piece(index, text)

    def calls(self, index: int, text: str, calls: list[CallPiece]) -> None:
        """Write pieces of calls, and the words before them. Only words have logprobs here."""
        if text and self._pending:
            self._piece(index, text)
        elif text:
            self.text(index, text)
        self._pending.clear()
        self._last = index
        for piece in calls:
            if piece.name is not None or self._call is None:
                self._close("completed")
                self._call = FunctionCall(self._shape, len(self._output), piece)
                self._write(self._call.begin())
            self._write(self._call.grow(piece.arguments))

    def finish(self, reason: Finish) -> None:
        """Close what is open. Logprobs of tokens that a stop swallowed are swallowed too."""
        if self._pending and self._message is not None and reason is not Finish.STOP:
            self._piece(self._last + 1, "")
        self._reason = reason
        if not self._output and self._call is None and self._message is None:
            self._begin()  # an empty answer is a message too
        self._close(status(reason))

    # ---- the answer --------------------------------------------------------------------------------------------------

    def end(self, usage: Usage) -> None:
        """Write the last event, which holds the whole response."""
        body = self._shape.whole(self._output, usage, self._reason)
        self._write([(f"response.{body['status']}", {"response": body})])

    def fail(self, error: BatonError) -> None:
        """Write what went wrong, then the response as far as it came."""
        if (item := self._call or self._message) is not None:
            self._output.append(item.item("incomplete"))
        param = error.param if isinstance(error, BadRequest) else None
        failed = self._shape.body("failed", self._output, error=error)
        self._write(
            [
                ("error", {"code": answer(error).code, "message": told(error), "param": param}),
                ("response.failed", {"response": failed}),
            ]
        )

    # ---- events ------------------------------------------------------------------------------------------------------

    def _begin(self) -> Message:
        """Open a message, of which a client hears before its text."""
        self._close("completed")
        place = len(self._output)
        self._message = Message(self._shape, place)
        before, self._between, after = self._shape.around_delta(place)
        self._middle, self._tail = b"\n" + before, after + b"\n\n\r\n"
        self._fixed = len(self._head) + len(self._between) + len(self._tail) - 2  # the chunk's line end does not count
        self._write(self._message.begin())
        return self._message

    def _close(self, state: str) -> None:
        """Close the item that is open."""
        open_item = self._call or self._message
        if open_item is None:
            return
        item = open_item.item(state)
        self._write(open_item.end(item))
        self._output.append(item)
        self._call = self._message = None

    def _piece(self, index: int, text: str) -> None:
        """Write a delta with logprobs."""
        message = self._message or self._begin()
        for one in self._pending:
            self._around.add(one)
        self._pending.clear()
        made = (self._around.take() or {}).get("content", [])
        message.logprobs += made
        message.texts.append(text)
        self._last = index
        fields = {**self._shape.text_place(message.place), "logprobs": made, "delta": text}
        self._write([("response.output_text.delta", fields)])

    def _write(self, events: Events) -> None:
        for kind, fields in events:
            number = self._number
            self._number = number + 1
            if number > self._seen:
                self.stream.event(self._numbered(number, event(kind, sequence_number=number, **fields)))

    def _numbered(self, number: int, body: bytes) -> bytes:
        return b"%b%d\n%b\n\n" % (self._head, number, body)
