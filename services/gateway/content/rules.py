"""A compiled set of rules: words and patterns, looked for together in folded text.

Owns the two questions that a stream asks: where does the first match begin, and from where on may one be beginning. A
match counts only once the character behind it is known, or the text is over. Immutable; knows no files and no streams.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ahocorasick

from services.gateway.content.folding import Folder, in_word, is_mark
from services.gateway.content.patterns import BadPattern, Pattern, compiled, translate

LONGEST_WORD: Final = 1000
SHARD: Final = 10_000
"""Words of one automaton: the interpreter stands still while one is built, for 2 ms per thousand."""
WIDEST: Final = 4096
"""Folded characters that a bounded pattern may hold back; a wider one is treated as unbounded."""


@dataclass(frozen=True, slots=True)
class Match:
    """What was found in a folded text."""

    start: int
    category: str


class Words:
    """Word lists in automata, each small enough to be built while streams run."""

    def __init__(self, words: Iterable[tuple[str, str]], *, whole: bool) -> None:
        listed = sorted(words)
        self.longest = max(len(word) for word, _ in listed)
        self._whole = whole
        self._automata = [_automaton(listed[start : start + SHARD]) for start in range(0, len(listed), SHARD)]

    def first(self, text: str, base: int, *, final: bool) -> Match | None:
        """Find the match that begins first, not before `base`."""
        found: Match | None = None
        for automaton in self._automata:
            other = self._first(automaton, text, base, final=final)
            if found is None or (other is not None and other.start < found.start):
                found = other
        return found

    def pending(self, text: str, base: int) -> int:
        """Where the first match that may still become one begins; the length of the text where there is none."""
        whole, automata, size = self._whole, self._automata, len(text)
        first = max(base, size - self.longest)
        inside = whole and first > 0 and in_word(text[first - 1])
        for start in range(first, size):
            within = whole and in_word(text[start])
            if not (inside and within):
                tail = text[start:]
                for automaton in automata:
                    if automaton.match(tail):
                        return start
            inside = within
        return size

    def _first(self, automaton: Any, text: str, base: int, *, final: bool) -> Match | None:  # noqa: ANN401  no types
        found: Match | None = None
        size = len(text)
        for last, (length, category) in automaton.iter(text):
            start, end = last + 1 - length, last + 1
            if found is not None and start >= found.start:
                if last - found.start >= self.longest:
                    break  # whatever ends here or later begins later
                continue
            known = final or end < size
            if start >= base and known and self._stands(text, start, end):
                found = Match(start, category)
        return found

    def _stands(self, text: str, start: int, end: int) -> bool:
        """Whether a find is no mere part of a word, or of a letter."""
        if end < len(text):
            after = text[end]
            if is_mark(after) or (self._whole and in_word(after) and in_word(text[end - 1])):
                return False
        return not (self._whole and start and in_word(text[start - 1]) and in_word(text[start]))


def _automaton(words: list[tuple[str, str]]) -> Any:  # noqa: ANN401  the library has no types
    made = ahocorasick.Automaton()
    for word, category in words:
        made.add_word(word, (len(word), category))
    made.make_automaton()
    return made


class Patterns:
    """Patterns in one expression, and their beginnings in another."""

    def __init__(self, patterns: Sequence[tuple[Pattern, str]]) -> None:
        self._categories = [category for _, category in patterns]
        self._least = min(one.least for one, _ in patterns)
        self._full: Any = compiled("|".join(f"({one.full})" for one, _ in patterns))
        self._begun: Any = compiled(f"(?:{'|'.join(one.begun for one, _ in patterns)})\\z")

    def first(self, text: str, base: int, *, final: bool) -> Match | None:
        """Find the match that begins first, not before `base`."""
        end = len(text) if final else len(text) - 1
        if end - base < self._least:
            return None
        data = text.encode() if text.isascii() else text  # the same offsets, for less
        found = self._full.search(data, base, end)
        if found is None:
            return None
        group = next(number for number in range(1, len(self._categories) + 1) if found.start(number) >= 0)
        return Match(found.start(), self._categories[group - 1])

    def pending(self, text: str, base: int) -> int:
        """Where the first match that may still become one begins; the length of the text where there is none."""
        found = self._begun.search(text.encode() if text.isascii() else text, base)
        return len(text) if found is None else int(found.start())


class Rules:
    """What one moderator looks for. `folder` made the words and makes the texts."""

    def __init__(
        self, words: dict[str, str], patterns: list[tuple[Pattern, str]], *, folder: Folder, whole: bool, window: int
    ) -> None:
        self.folder = folder
        self.words = Words(words.items(), whole=whole) if words else None
        self.patterns = Patterns(patterns) if patterns else None
        widths = [int(one.width) for one, _ in patterns if one.width <= WIDEST]
        longest = self.words.longest if self.words else 0
        # a match and the character behind it
        self.window = 1 + max([longest, *widths, *([window] if len(widths) < len(patterns) else [])], default=0)

    def first(self, text: str, base: int, *, final: bool) -> Match | None:
        """Find the first match of all."""
        found = None if self.words is None else self.words.first(text, base, final=final)
        if self.patterns is not None:
            other = self.patterns.first(text, base, final=final)
            if found is None or (other is not None and other.start < found.start):
                return other
        return found

    def pending(self, text: str, base: int) -> int:
        """Where what must be held back begins."""
        start = len(text) if self.words is None else self.words.pending(text, base)
        return start if self.patterns is None else min(start, self.patterns.pending(text, base))


def compile_word(line: str, folder: Folder) -> str:
    """Read one line of a word file. Raises BadPattern."""
    word = folder.word(line)
    if not word:
        raise BadPattern("nothing is left of it but invisible characters")
    if len(word) > LONGEST_WORD:
        raise BadPattern(f"it has {len(word)} characters; the limit is {LONGEST_WORD}")
    return word


def compile_pattern(line: str, folder: Folder, *, ignore_case: bool) -> Pattern:
    """Read one line of a pattern file. Raises BadPattern."""
    return translate(line, folder, ignore_case=ignore_case)
