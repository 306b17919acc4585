"""Server-sent events, written straight to a client's connection.

Owns the framing of one streamed answer: chunk sizes, event ids, keep-alive comments, the bound on what a slow reader
may leave unsent. Each choice's events are preformatted; a token adds its number and its text.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

from services.gateway.answers.positions import END, Position
from services.gateway.answers.shapes import ChatShape, Shape, encode
from services.gateway.tools.said import CallPiece
from shared.messages import Finish, Logprobs

DONE: Final = b"data: [DONE]\n\n"
PING: Final = b": ping\n\n"
KEEP_ALIVE_S: Final = 15.0
LAST_WORDS_S: Final = 2.0
"""For a client that was cut off to take what it was sent."""
LAST_WORDS_BYTES: Final = 65_536
"""For the error that a client which was cut off gets beyond its bound."""


class Writer(Protocol):
    """The part of a transport that streams need. Each write is one whole chunk of a chunked body."""

    def write(self, data: bytes) -> object:
        """Send or buffer; never waits."""
        ...

    def get_write_buffer_size(self) -> int:
        """Count what the peer has not taken yet."""
        ...


class _Waiting:
    """Holds what is written before the status line is out."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.size = 0

    def write(self, data: bytes) -> None:
        self.chunks.append(data)
        self.size += len(data)

    def get_write_buffer_size(self) -> int:
        return self.size


class _Unchunked:
    """For HTTP/1.0, whose bodies end with the connection: takes the chunk's framing off again."""

    def __init__(self, transport: Writer) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        body = data[data.index(b"\r\n") + 2 : -2]
        if body:
            self._transport.write(body)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()


class _Gone:
    """Where writes go once the client is gone or cut off."""

    def write(self, data: bytes) -> None:
        """Drop."""

    def get_write_buffer_size(self) -> int:
        return 0


def _nothing() -> None:
    """Before there is anybody to tell."""


class SseStream:
    """One streamed answer: the connection, and what is common to its choices."""

    __slots__ = ("_behind", "_stuck_s", "_unsent", "max_unsent", "on_cut", "patience_s", "quiet_s", "transport")

    def __init__(self, max_unsent: int, send_timeout_s: float) -> None:
        self.transport: Writer = _Waiting()
        self.max_unsent = max_unsent
        self.on_cut: Callable[[], None] = _nothing
        self.quiet_s = 0.0
        self._behind: Writer | None = None  # of a client that was cut off while it still took something
        self.patience_s = send_timeout_s  # with a client that takes nothing
        self._unsent = 0  # at the last sweep
        self._stuck_s = 0.0

    @property
    def gone(self) -> bool:
        """Whether nothing that is written arrives any more."""
        return isinstance(self.transport, _Gone)

    def has_room(self) -> bool:
        """Whether the client takes what is written fast enough for more."""
        return self.transport.get_write_buffer_size() <= self.max_unsent // 4

    def attach(self, transport: Writer, *, chunked: bool) -> None:
        """Send what was held, and from now on each event at once. The headers must be out."""
        held = self.transport
        if isinstance(held, _Waiting):
            self.transport = transport if chunked else _Unchunked(transport)
            for chunk in held.chunks:
                self.transport.write(chunk)

    def event(self, body: bytes) -> None:
        """Write one event, given whole."""
        self.chunk(b"%x\r\n%b\r\n" % (len(body), body))

    def chunk(self, chunk: bytes) -> None:
        """Write one event, given with its chunk's framing."""
        self.quiet_s = 0.0
        try:
            self.transport.write(chunk)
        except RuntimeError:  # the transport is closed, and its owner is about to hear of it
            self.transport = _Gone()
        if self.transport.get_write_buffer_size() > self.max_unsent:
            self.cut()

    def sweep(self, elapsed_s: float) -> None:
        """Say that we are still here, after a long silence; cut off a client that takes nothing."""
        self.quiet_s += elapsed_s
        if self.quiet_s >= KEEP_ALIVE_S:
            self.event(PING)
        unsent = self.transport.get_write_buffer_size()
        self._stuck_s = self._stuck_s + elapsed_s if 0 < self._unsent <= unsent else 0.0
        self._unsent = unsent
        if self._stuck_s >= self.patience_s:
            self.cut()
            self._behind = None

    def cut(self) -> None:
        """Write no more of the answer to a client that does not keep up, and tell the owner."""
        self._behind, self.transport = self.transport, _Gone()
        self.on_cut()

    def last_words(self) -> None:
        """Let a client that was cut off for being slow hear why, if it gets that far; one that takes nothing cannot."""
        if self._behind is not None:
            self.transport, self._behind = self._behind, None
            self.patience_s = min(self.patience_s, LAST_WORDS_S)
            self.max_unsent += self.transport.get_write_buffer_size() + LAST_WORDS_BYTES


class SseChoice:
    """One choice of a streamed answer; a record's sink."""

    __slots__ = (
        "_around",
        "_choice",
        "_fixed",
        "_head",
        "_id",
        "_last",
        "_middle",
        "_newest",
        "_pending",
        "_shape",
        "_stream",
        "_tail",
    )

    def __init__(self, stream: SseStream, shape: Shape, choice: int, request_id: str) -> None:
        before, after = shape.around(choice)
        self._stream = stream
        self._shape = shape
        self._choice = choice
        self._id = request_id.encode()
        self._head = b"\r\nid: %b:" % self._id
        self._middle = b"\ndata: %b" % before
        self._tail = b"%b\n\n\r\n" % after
        self._fixed = (
            len(self._head) + len(self._middle) + len(self._tail) - 4
        )  # the chunk's two line ends do not count
        self._last = self._newest = -1  # the last token shown, and the last that came with logprobs
        self._around = shape.logprobs()
        self._pending: list[Logprobs] = []

    def resume_at(self, seen: Position) -> None:
        """Go on behind what a client has seen."""
        self._last = self._newest = seen.index

    def pass_over(self, logprobs: Logprobs) -> None:
        """Count a token that a client has seen: the places of those that follow depend on it."""
        self._around.add(logprobs)
        self._around.take()

    def text(self, index: int, text: str) -> None:
        """Write one event: the hot path of the whole gateway."""
        stream = self._stream
        number = b"%d" % index
        words = encode(text)
        self._last = index
        stream.quiet_s = 0.0
        size = self._fixed + len(number) + len(words)
        transport = stream.transport
        try:
            transport.write(b"%x%b%b%b%b%b" % (size, self._head, number, self._middle, words, self._tail))
        except RuntimeError:  # closed, as in SseStream.event
            stream.transport = _Gone()
            return
        if transport.get_write_buffer_size() > stream.max_unsent:
            stream.cut()

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        """Write a token with its logprobs, and those of the tokens whose text was held until now."""
        self._newest = index
        if logprobs is not None:
            self._pending.append(logprobs)
        if text:
            self._piece(index, text)

    def calls(self, index: int, text: str, calls: list[CallPiece]) -> None:
        """Write pieces of calls, with the words before them and the logprobs that wait."""
        assert isinstance(self._shape, ChatShape)  # noqa: S101  functions belong to chats
        self._last = index
        self._event(index, self._shape.calls(self._choice, text, calls, self._waiting_logprobs()))

    def finish(self, reason: Finish) -> None:
        """Write why the choice ended. Logprobs of tokens that a stop swallowed are swallowed too."""
        if self._pending and reason is not Finish.STOP:
            self._piece(self._newest, "")
        self._end(self._shape.closing(self._choice, reason))

    def _piece(self, index: int, text: str) -> None:
        self._last = index
        self._event(index, self._shape.piece(self._choice, text, self._waiting_logprobs()))

    def _waiting_logprobs(self) -> dict[str, Any] | None:
        for one in self._pending:
            self._around.add(one)
        self._pending.clear()
        return self._around.take()

    def _event(self, index: int, body: bytes) -> None:
        self._stream.event(b"id: %b:%d\ndata: %b\n\n" % (self._id, index, body))

    def _end(self, body: bytes) -> None:
        self._stream.event(b"id: %b:%b\ndata: %b\n\n" % (self._id, END, body))
