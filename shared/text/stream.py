"""The text of one stream, token by token: whole characters only, and nothing of a stop string.

Owns what is held back: the bytes of an unfinished character, and text that may be the beginning of a stop string. The
outcome depends on the bytes alone, never on how they are cut into tokens.

A stop string matches at the first character that completes one; where several end there, the longest counts.
"""

from codecs import getincrementaldecoder
from collections.abc import Callable
from typing import Final

from shared.messages import Stopping
from shared.text.tokenizer import Tokenizer

_UTF8: Final = getincrementaldecoder("utf-8")


class TextStream:
    """Turns tokens into text that may be shown. Rebuilding one from the tokens so far gives the same state."""

    __slots__ = ("_count", "_decoder", "_finders", "_first", "_held", "_min_tokens", "_shown", "matched")

    def __init__(self, tokenizer: Tokenizer, stopping: Stopping, generated: list[int]) -> None:
        self._shown = _showing(tokenizer, stopping.shown_token_ids) if stopping.shown_token_ids else tokenizer.shown
        self._decoder = _UTF8("replace")
        self._finders = [_Finder(stop) for stop in dict.fromkeys(stopping.stop) if stop]
        self._first = frozenset(finder.stop[0] for finder in self._finders)
        self._held = ""
        self._count = 0
        self._min_tokens = stopping.min_tokens
        self.matched: str | None = None
        for token_id in generated:
            self.push(token_id)

    def push(self, token_id: int) -> str:
        """Text that may be shown now; possibly none, possibly text held back before. Nothing once a stop matched."""
        self._count += 1
        text = self._decoder.decode(self._shown(token_id))
        if not self._finders:
            return text
        return self._release(text)

    def flush(self) -> str:
        """What is still held back, when the stream ends without a stop string: an unfinished character is U+FFFD."""
        text = self._release(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return text if self.matched is not None else text + held

    def _release(self, text: str) -> str:
        """Look for stop strings in `text`, the continuation of what is held; keep what may yet become one."""
        if self.matched is not None:
            return ""
        if not self._held and self._first.isdisjoint(text):  # the common case: no stop string can begin here
            return text
        allowed = self._count >= self._min_tokens
        whole = self._held + text
        for end, character in enumerate(text, start=len(self._held) + 1):
            longest = 0
            for finder in self._finders:
                if finder.feed(character) and allowed and len(finder.stop) > longest:
                    longest, self.matched = len(finder.stop), finder.stop
            if longest:
                self._held = ""
                return whole[: end - longest]
        keep = max(finder.length for finder in self._finders)
        self._held = whole[len(whole) - keep :]
        return whole[: len(whole) - keep]


def _showing(tokenizer: Tokenizer, wanted: list[int]) -> Callable[[int], bytes]:
    """What tokens add to a text that shows some special tokens by their names."""
    names = {token: tokenizer.piece(token)[1] for token in wanted}
    return lambda token: names.get(token) or tokenizer.shown(token)


class _Finder:
    """Knuth, Morris and Pratt: looks for one string in a text that comes character by character."""

    __slots__ = ("_fall", "length", "stop")

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.length = 0  # of the longest end of the text that is a beginning of the string, itself excluded
        self._fall = [0] * len(stop)  # where to go on when the character after so many matching ones differs
        matching = 0
        for place in range(1, len(stop)):
            while matching and stop[place] != stop[matching]:
                matching = self._fall[matching - 1]
            matching += stop[place] == stop[matching]
            self._fall[place] = matching

    def feed(self, character: str) -> bool:
        """Take the next character; true when the string is complete with it."""
        length, stop = self.length, self.stop
        while length and stop[length] != character:
            length = self._fall[length - 1]
        length += stop[length] == character
        complete = length == len(stop)
        self.length = self._fall[length - 1] if complete else length
        return complete
