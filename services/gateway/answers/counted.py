"""Streams whose every chunk carries the usage so far (`continuous_usage_stats`).

Owns the counting. Only requests that ask for it pay for it: plain streams have other sinks.
"""

from dataclasses import dataclass

from services.gateway.answers.shapes import Shape, encode
from services.gateway.answers.sse import PING, SseAnswer, SseChoice, SseStream


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


class CountedChoice(SseChoice):
    """One choice of such a stream."""

    __slots__ = ("_after", "_before", "_count", "_mine")

    def __init__(self, stream: SseStream, shape: Shape, choice: int, request_id: str, count: Count) -> None:
        super().__init__(stream, shape, choice, request_id)
        before, after = shape.around(choice)
        self._before, self._after = before, _open(after)
        self._count = count
        self._mine = 0

    def text(self, index: int, text: str) -> None:
        """Write one event with the usage up to this token."""
        self._last = index
        self._to(index + 1)
        chunk = b"%b%b%b%b" % (self._before, encode(text), self._after, _usage(self._count))
        self._stream.event(b"id: %b:%d\ndata: %b\n\n" % (self._id, index, chunk))

    def _event(self, index: int, body: bytes) -> None:
        self._to(max(self._mine, min(index, self._last) + 1))
        super()._event(index, _open(body) + _usage(self._count))

    def _to(self, tokens: int) -> None:
        self._count.completion += tokens - self._mine
        self._mine = tokens


def _usage(count: Count) -> bytes:
    numbers = (count.prompt, count.completion, count.prompt + count.completion)
    return b',"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}' % numbers


class CountedAnswer(SseAnswer):
    """A whole such stream. Whoever has the prompt's tokens counts them with `expect`, before the first chunk."""

    def __init__(self, shape: Shape, max_unsent: int, send_timeout_s: float) -> None:
        super().__init__(shape, max_unsent, send_timeout_s)
        self._count = Count()

    def expect(self, prompt_tokens: int) -> None:
        """Note what the prompts cost."""
        self._count.prompt = prompt_tokens

    def sink(self, choice: int, request_id: str) -> CountedChoice:
        """Make the sink of the next choice."""
        self._choices = choice + 1
        return CountedChoice(self.stream, self._shape, choice, request_id, self._count)

    def opening(self) -> bytes:
        """Make the first chunk of each choice, with the prompt's usage."""
        usage = _usage(Count(self._count.prompt))
        chunks = [self._shape.opening(choice) for choice in range(self._choices)]
        return b"".join(b"data: %b%b\n\n" % (_open(chunk), usage) for chunk in chunks if chunk is not None) or PING
