"""The text of one stream, token by token: whole characters only, and nothing of a stop string.

Owns what is held back: the bytes of an unfinished character, and text that may be the beginning of a stop string. The
outcome depends on the bytes alone, never on how they are cut into tokens. `push` is on the path of every token: most
are whole characters, whose text is looked up, and most cannot matter to a stop string, which is looked up, too.
"""

from codecs import utf_8_decode
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from shared.messages import Stopping
from shared.text.stops import Place, stops_of
from shared.text.tokenizer import Tokenizer, whole

_NONE: Final[AbstractSet[str]] = frozenset()


class TextStream:
    """Turns tokens into text that may be shown. Rebuilding one from the tokens so far gives the same state."""

    __slots__ = (
        "_count",
        "_harmless",
        "_held",
        "_min_tokens",
        "_place",
        "_shown",
        "_stops",
        "_texts",
        "_unfinished",
        "matched",
    )

    def __init__(self, tokenizer: Tokenizer, stopping: Stopping, generated: list[int]) -> None:
        self._texts: Mapping[int, str | None] = tokenizer.texts
        self._shown: Callable[[int], bytes] = tokenizer.shown
        if stopping.shown_token_ids:
            self._texts = _Naming(tokenizer, stopping.shown_token_ids)
            self._shown = self._texts.shown
        self._stops = stops_of(stopping.stop)
        self._harmless: AbstractSet[str] = _NONE if self._stops is None else self._stops.harmless
        self._place: Place = () if self._stops is None else self._stops.start
        self._unfinished = b""
        self._held = ""
        self._count = 0
        self._min_tokens = stopping.min_tokens
        self.matched: str | None = None
        for token_id in generated:
            self.push(token_id)

    def push(self, token_id: int) -> str:
        """Text that may be shown now; possibly none, possibly text held back before. Nothing once a stop matched."""
        text = self._texts[token_id]
        if text is None or self._unfinished:
            data = self._unfinished + self._shown(token_id)
            text, length = utf_8_decode(data, "replace", False)
            self._unfinished = data[length:]
        if self._stops is None:
            return text
        self._count += 1
        if not self._held and text in self._harmless:
            return text
        return self._release(text)

    def flush(self) -> str:
        """What is still held back, when the stream ends without a stop string: an unfinished character is U+FFFD."""
        text, _ = utf_8_decode(self._unfinished, "replace", True)
        self._unfinished = b""
        text = self._release(text)
        held, self._held = self._held, ""
        return text if self.matched is not None else text + held

    def _release(self, text: str) -> str:
        """Look for stop strings in `text`, the continuation of what is held; keep what may yet become one."""
        if self.matched is not None:
            return ""
        if self._stops is None or not text:
            return text
        whole = self._held + text
        self._place, end, stop = self._stops.feed(self._place, text, allowed=self._count >= self._min_tokens)
        if stop:
            self.matched, self._harmless = stop, _NONE
            cut = len(self._held) + end - len(stop)
            self._held = ""
        else:
            cut = len(whole) - max(self._place)
            self._held = whole[cut:]
        return whole[:cut]


class _Naming(dict[int, str | None]):
    """The texts of a tokenizer, but for some special tokens, which are shown by their names."""

    def __init__(self, tokenizer: Tokenizer, wanted: list[int]) -> None:
        self._raw = {token: tokenizer.piece(token)[1] for token in wanted}
        super().__init__({token: whole(raw) for token, raw in self._raw.items()})
        self._tokenizer = tokenizer

    def __missing__(self, token_id: int) -> str | None:
        return self._tokenizer.texts[token_id]

    def shown(self, token_id: int) -> bytes:
        """The bytes that a token adds to the text."""
        return self._raw.get(token_id) or self._tokenizer.shown(token_id)
