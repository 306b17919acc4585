"""Streams whose every chunk carries the usage so far (`continuous_usage_stats`).

Owns the counting. Only requests that ask for it pay for it: plain streams have other sinks.
"""

from dataclasses import dataclass

from services.gateway.answers.marked import MarkedChoice
from services.gateway.answers.positions import Marks
from services.gateway.answers.shapes import Shape
from services.gateway.answers.sse import PING, SseStream
from services.gateway.answers.streamed import SseAnswer


@dataclass(slots=True)
class Count:
    """Of one request. A completion's tokens count once their text, or the end, is written."""

    prompt: int = 0
    completion: int = 0

    def as_dict(self) -> dict[str, int]:
        """Make a usage object."""
        total = self.prompt + self.completion
        return {"prompt_tokens": self.prompt, "completion_tokens": self.completion, "total_tokens": total}


def _open(chunk: bytes) -> bytes:
    """Take off a chunk's end, and the null that stands for usage."""
    return chunk.removesuffix(b"}").removesuffix(b',"usage":null')


class CountedChoice(MarkedChoice):
    """One choice of such a stream."""

    __slots__ = ("_count", "_mine")

    def __init__(
        self, stream: SseStream, shape: Shape, choice: int, call_id: str, *, marks: Marks, count: Count
    ) -> None:
        super().__init__(stream, shape, choice, call_id, marks)
        self._count = count
        self._mine = 0

    def _write(self, mark: bytes, body: bytes) -> None:
        self._to(max(self._mine, self._last + 1))
        super()._write(mark, _open(body) + _usage(self._count))

    def _to(self, tokens: int) -> None:
        self._count.completion += tokens - self._mine
        self._mine = tokens


def _usage(count: Count) -> bytes:
    numbers = (count.prompt, count.completion, count.prompt + count.completion)
    return b',"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}' % numbers


class CountedAnswer(SseAnswer):
    """A whole such stream. Whoever has the prompt's tokens counts them with `expect`, before the first chunk."""

    def __init__(
        self, shape: Shape, max_unsent: int, send_timeout_s: float, marks: Marks, *, opened: bool = False
    ) -> None:
        super().__init__(shape, max_unsent, send_timeout_s, marks, opened=opened)
        self._count = Count()
        self._every = marks

    def expect(self, prompt_tokens: int) -> None:
        """Note what the prompts cost."""
        self._count.prompt = prompt_tokens

    def sink(self, choice: int, request_id: str) -> CountedChoice:  # noqa: ARG002  events bear the call's id
        """Make the sink of the next choice."""
        self._choices = choice + 1
        call_id = self._shape.id
        return CountedChoice(self.stream, self._shape, choice, call_id, marks=self._every, count=self._count)

    def opening(self) -> bytes:
        """Make the first chunk of each choice, with the prompt's usage."""
        usage = _usage(Count(self._count.prompt))
        chunks = [] if self._opened else [self._shape.opening(choice) for choice in range(self._choices)]
        return b"".join(b"data: %b%b\n\n" % (_open(chunk), usage) for chunk in chunks if chunk is not None) or PING
