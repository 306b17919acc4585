"""A whole answer as server-sent events: its opening, its choices, its end.

Owns what stands around the choices. The connection and the events of a choice are in `sse.py`.
"""

from services.gateway.answers.marked import MarkedChoice
from services.gateway.answers.positions import Marks
from services.gateway.answers.shapes import Shape, Usage
from services.gateway.answers.sse import DONE, PING, SseChoice, SseStream
from services.gateway.refusals import as_json
from shared.errors import BatonError


class SseAnswer:
    """A whole streamed answer, to be written as its choices come."""

    def __init__(
        self, shape: Shape, max_unsent: int, send_timeout_s: float, marks: Marks | None = None, *, opened: bool = False
    ) -> None:
        self.stream = SseStream(max_unsent, send_timeout_s)
        self._shape = shape
        self._marks = marks  # None: one choice, whose text comes as tokens bring it
        self._choices = 0
        self._opened = opened  # its client has seen the opening, when the stream was another one's

    def sink(self, choice: int, request_id: str) -> SseChoice:
        """Make the sink of the next choice."""
        self._choices = choice + 1
        if self._marks is None:
            return SseChoice(self.stream, self._shape, choice, request_id)
        return MarkedChoice(self.stream, self._shape, choice, self._shape.id, self._marks)

    def opening(self) -> bytes:
        """Make what a client sees first, once it is admitted: the role of each choice, or a comment."""
        chunks = [] if self._opened else [self._shape.opening(choice) for choice in range(self._choices)]
        return b"".join(b"data: %b\n\n" % chunk for chunk in chunks if chunk is not None) or PING

    def end(self, usage: Usage) -> None:
        """Write what follows the last choice. The chunked body's own end is the response's business."""
        chunk = self._shape.usage(usage)
        if chunk is not None:
            self.stream.event(b"data: %b\n\n" % chunk)
        self.stream.event(DONE)

    def fail(self, error: BatonError) -> None:
        """Write the one event that says the answer is not complete."""
        self.stream.event(b"data: %b\n\n" % as_json(error))
