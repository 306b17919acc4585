"""Text on its way to a sink that is not known to be clean yet, token by token.

Owns the pieces that are held and hands them on in order, as far as they are freed. A token with logprobs goes as a
whole or not at all, since its logprobs show its text. Judges nothing.
"""

from collections import deque

from services.gateway.relay.record import Sink
from shared.messages import Finish, Logprobs

Piece = tuple[int, str, Logprobs | None, bool]


class Held:
    """Of one choice."""

    __slots__ = ("_free", "_pieces", "_sink", "_size")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._pieces: deque[Piece] = deque()  # index, text, logprobs, whether it came as a token
        self._free = 0  # characters that may go but belong to a token that may not yet
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def text(self, index: int, text: str, free: int) -> None:
        """Take text, and free so many characters of all that is held."""
        if free == len(text) and not self._pieces:
            self._sink.text(index, text)
            return
        self._pieces.append((index, text, None, False))
        self._size += len(text)
        self.release(free)

    def token(self, index: int, text: str, logprobs: Logprobs | None, free: int) -> None:
        """Take a token; its text may be empty."""
        self._pieces.append((index, text, logprobs, True))
        self._size += len(text)
        self.release(free)

    def release(self, free: int) -> None:
        """Hand on so many characters more."""
        self._free += free
        if not free:
            return
        said: list[str] = []
        last = -1
        while self._free and self._pieces:
            index, text, _, token = self._pieces[0]
            if token:
                if said:
                    self._sink.text(last, "".join(said))
                    said = []
                if not self._tokens():
                    break
                continue
            part = text[: self._free]
            said.append(part)
            last = index
            self._free -= len(part)
            self._size -= len(part)
            self._pieces.popleft()
            if len(part) < len(text):
                self._pieces.appendleft((index, text[len(part) :], None, False))
        if said:
            self._sink.text(last, "".join(said))

    def _tokens(self) -> bool:
        """Hand on the next token that has text, with those before it that have none. False where it is not free."""
        empty = 0
        for _, text, _, _ in self._pieces:
            if text:
                break
            empty += 1
        else:
            return False
        _, text, _, token = self._pieces[empty]
        if token and len(text) > self._free:
            return False
        for _ in range(empty + 1 if token else empty):
            index, text, logprobs, _ = self._pieces.popleft()
            self._sink.token(index, text, logprobs)
            self._free -= len(text)
            self._size -= len(text)
        return True

    def end(self, reason: Finish) -> None:
        """End the choice; everything was freed, or goes nowhere because of the reason."""
        if reason is Finish.CONTENT_FILTER:
            self._rest()
        else:
            while self._pieces:
                index, text, logprobs, token = self._pieces.popleft()
                if token:
                    self._sink.token(index, text, logprobs)
                else:
                    self._sink.text(index, text)
        self._pieces.clear()
        self._size = self._free = 0
        self._sink.finish(reason)

    def _rest(self) -> None:
        """Show the clean beginning of a token whose end is not: its text, without the logprobs."""
        for index, text, _, _ in self._pieces:
            if text and self._free:
                self._sink.text(index, text[: self._free])
                return
