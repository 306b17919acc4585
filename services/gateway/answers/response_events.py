"""A streamed response: its events, numbered, in the order that the API has.

Owns the sequence numbers and the text so far, which the last events repeat. The connection is an `SseStream`'s; a
token's event differs from the one before in two numbers and one string.
"""

from typing import Any, Final

from services.gateway.answers.responses import Json, ResponseShape, event, status, text_part
from services.gateway.answers.shapes import Usage, encode
from services.gateway.answers.sse import SseStream
from services.gateway.refusals import answer, told
from shared.errors import BadRequest, BatonError
from shared.messages import Finish, Logprobs

_FIRST: Final = 2
"""The events before are `created` and `in_progress`, written when a worker has the request."""


class ResponseEvents:
    """One streamed response, and the sink of its one choice."""

    def __init__(self, shape: ResponseShape, max_unsent: int, send_timeout_s: float) -> None:
        self.stream = SseStream(max_unsent, send_timeout_s)
        self._shape = shape
        self._output: list[Json] = []  # items that are complete
        self._number = _FIRST  # of the next event
        self._around = shape.logprobs()
        self._pending: list[Logprobs] = []
        self._logprobs: list[Json] = []
        self._texts: list[str] = []
        self._head = self._middle = self._between = self._tail = b""  # around a delta's numbers and its text
        self._speaking = False  # a message is open
        self._reason = Finish.STOP
        self._last = -1

    def sink(self, choice: int, request_id: str) -> "ResponseEvents":  # noqa: ARG002  there is only one choice
        """Make the sink of the one choice."""
        self._head = b"id: %b:" % request_id.encode()
        return self

    def opening(self) -> bytes:
        """Make what a client sees first, once it is admitted."""
        body = self._shape.body("in_progress", [])
        kinds = ("response.created", "response.in_progress")
        return b"".join(event(kind, sequence_number=n, response=body) + b"\n\n" for n, kind in enumerate(kinds))

    # ---- the sink ----------------------------------------------------------------------------------------------------

    def text(self, index: int, text: str) -> None:
        """Write one event: the hot path."""
        if not self._speaking:
            self._begin()
        self._texts.append(text)
        self._last = index
        number = self._number
        self._number = number + 1
        pieces = (self._head, index, self._middle, number, self._between, encode(text), self._tail)
        self.stream.event(b"%b%d%b%d%b%b%b" % pieces)

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        """Write a token with its logprobs, and those of the tokens whose text was held until now."""
        if logprobs is not None:
            self._pending.append(logprobs)
        if text:
            self._piece(index, text)

    def finish(self, reason: Finish) -> None:
        """Close the message. Logprobs of tokens that a stop swallowed are swallowed too."""
        if self._pending and reason is not Finish.STOP:
            self._piece(self._last + 1, "")
        self._reason = reason
        if not self._speaking:
            self._begin()
        self._close(status(reason))

    # ---- the answer --------------------------------------------------------------------------------------------------

    def end(self, usage: Usage) -> None:
        """Write the last event, which holds the whole response."""
        body = self._shape.whole(self._output, usage, self._reason)
        self._write(f"response.{body['status']}", response=body)

    def fail(self, error: BatonError) -> None:
        """Write what went wrong, then the response as far as it came."""
        if self._speaking:
            self._output.append(self._message("incomplete"))
        param = error.param if isinstance(error, BadRequest) else None
        self._write("error", code=answer(error).code, message=told(error), param=param)
        self._write("response.failed", response=self._shape.body("failed", self._output, error=error))

    # ---- events ------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Open a message, of which a client hears before its text."""
        shape, place = self._shape, len(self._output)
        self._speaking = True
        self._texts, self._logprobs = [], []
        before, self._between, after = shape.around_delta(place)
        self._middle, self._tail = b"\n" + before, after + b"\n\n"
        self._write("response.output_item.added", output_index=place, item=shape.message(place, "in_progress", []))
        self._write("response.content_part.added", **shape.text_place(place), part=text_part("", []))

    def _close(self, state: str) -> None:
        """Close the message that is open."""
        shape, place = self._shape, len(self._output)
        message = self._message(state)
        (part,) = message["content"]
        where = shape.text_place(place)
        self._write("response.output_text.done", **where, text=part["text"], logprobs=self._logprobs)
        self._write("response.content_part.done", **where, part=part)
        self._write("response.output_item.done", output_index=place, item=message)
        self._output.append(message)
        self._speaking = False

    def _message(self, state: str) -> Json:
        part = text_part("".join(self._texts), self._logprobs)
        return self._shape.message(len(self._output), state, [part])

    def _piece(self, index: int, text: str) -> None:
        """Write a delta with logprobs."""
        if not self._speaking:
            self._begin()
        for one in self._pending:
            self._around.add(one)
        self._pending.clear()
        made = (self._around.take() or {}).get("content", [])
        self._logprobs += made
        self._texts.append(text)
        self._last = index
        fields = self._shape.text_place(len(self._output))
        delta = self._numbered("response.output_text.delta", **fields, logprobs=made, delta=text)
        self.stream.event(b"%b%d\n%b" % (self._head, index, delta))

    def _write(self, kind: str, **fields: Any) -> None:  # noqa: ANN401  whatever JSON can say
        self.stream.event(self._numbered(kind, **fields))

    def _numbered(self, kind: str, **fields: Any) -> bytes:  # noqa: ANN401
        number = self._number
        self._number = number + 1
        return event(kind, sequence_number=number, **fields) + b"\n\n"
