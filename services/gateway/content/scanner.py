"""Reads a text as it comes and says how much of it may go out.

Owns the few characters that may be the beginning of a match, and the place of the first match. Reads its rules anew at
each piece, so that a reloaded list counts from the next piece on. Delivers nothing.
"""

from typing import Protocol

from services.gateway.content.folding import FIRST_MARK, ordered, settled
from services.gateway.content.rules import Match, Rules


class Source(Protocol):
    """Where the rules that count now are found."""

    @property
    def rules(self) -> Rules:
        """May change at any time."""
        ...


class Scanner:
    """One text. `feed` until the text is over, then `finish`; once `match` is set, neither."""

    __slots__ = ("_base", "_held", "_source", "_starts", "_text", "match")

    def __init__(self, source: Source) -> None:
        self.match: Match | None = None
        self._source = source
        self._text = ""  # folded: one character for context, once there is one, and what is held
        self._base = 0  # where the held text begins in it
        self._held = 0  # original characters that are held
        self._starts: list[int] | None = None  # for each folded one its place among them; None: all in place

    def feed(self, text: str) -> int:
        """Take the next piece; how many more characters of the whole are now known to be clean."""
        rules = self._source.rules
        self._take(text, rules)
        folded = self._text
        hold = rules.pending(folded, self._base)
        if folded[-1:] >= FIRST_MARK and (sure := max(self._base, settled(folded))) < len(folded):
            folded = folded[:sure]  # other marks may come between those behind it
            begun = rules.pending(folded, self._base)
            hold = min(hold, begun) if begun < sure else hold
        found = rules.first(folded, self._base, final=False)
        hold = max(hold, len(self._text) - rules.window)
        if found is not None and found.start <= hold:
            self.match = found
            return self._before(found.start)
        return self._release(hold)

    def finish(self) -> int:
        """Take the end of the text; how many more characters are clean: all that are held, without a match."""
        found = self._source.rules.first(self._text, self._base, final=True)
        if found is not None:
            self.match = found
            return self._before(found.start)
        return self._release(len(self._text))

    def _take(self, text: str, rules: Rules) -> None:
        folded, starts = rules.folder.fold(text, after_space=self._text[-1:] == " ")
        if starts is not None or self._starts is not None:
            if self._starts is None:
                self._starts = list(range(self._held))
            shift = self._held
            self._starts += range(shift, shift + len(text)) if starts is None else [shift + one for one in starts]
        if folded[:1] >= FIRST_MARK and not settled(folded[:1]):  # a mark: it may belong before those that are here
            begin = max(self._base, settled(self._text))
            self._text = ordered(self._text + folded, begin)
        else:
            self._text += folded
        self._held += len(text)

    def _before(self, place: int) -> int:
        """Count the original characters before a place in the folded text."""
        index = place - self._base
        return index if self._starts is None else self._starts[index]

    def _release(self, hold: int) -> int:
        """Keep what stands from a place on, and the character before it."""
        if hold >= len(self._text):
            free, self._starts = self._held, None
        else:
            free = self._before(hold)
            if self._starts is not None:
                self._starts = [one - free for one in self._starts[hold - self._base :]]
        self._held -= free
        if hold > 0:
            self._text, self._base = self._text[hold - 1 :], 1
        return free
