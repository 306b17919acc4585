"""Looks for stop strings in a text that comes piece by piece.

Owns the search and what was learnt of pieces that cannot matter; where a text stands is its stream's to keep. Pure.
"""

from functools import lru_cache
from typing import Final, NamedTuple

KEPT: Final = 64
"""Sets of strings that are kept ready: the requests of one client mostly stop at the same ones."""
KEPT_LENGTH: Final = 1024
"""Characters of the largest set that is."""
MOST_HARMLESS: Final = 2048
"""Pieces that a set remembers as harmless: most of any text is made of few."""

Place = tuple[int, ...]
"""Where a text stands: of each string, how many of its first characters the text ends with; never all of them."""


class Seen(NamedTuple):
    """What one piece brought. `stop` is complete at the piece's first `end` characters; empty: none is."""

    place: Place
    end: int
    stop: str


class Stops:
    """Some strings, none of them empty; the order does not matter. Shared by streams: it keeps no stream's state.

    A string matches at the first character that completes one; where several end there, the longest counts.
    """

    __slots__ = ("_falls", "_strings", "harmless", "start")

    def __init__(self, strings: tuple[str, ...]) -> None:
        self._strings = strings
        self._falls = tuple(map(_fall, strings))
        self.start: Place = (0,) * len(strings)
        self.harmless: set[str] = set()
        """Pieces that, coming where no string has begun, neither complete nor begin one."""

    def feed(self, place: Place, piece: str, *, allowed: bool) -> Seen:
        """Go on by one piece, which is not empty; strings that are complete before it is `allowed` do not count."""
        places: list[int] = []
        first, found = len(piece) + 1, ""
        for length, stop, fall in zip(place, self._strings, self._falls, strict=True):
            reached, end = _advance(stop, fall, length, piece, allowed=allowed)
            places.append(reached)
            if end and (end < first or (end == first and len(stop) > len(found))):
                first, found = end, stop
        if found:
            return Seen(self.start, first, found)
        learnt = allowed and not any(place) and not any(places)  # where it is not, one may have been complete
        if learnt and len(self.harmless) < MOST_HARMLESS:
            self.harmless.add(piece)
        return Seen(tuple(places), 0, "")


def stops_of(strings: list[str]) -> Stops | None:
    """The search for these; None where there is nothing to look for."""
    wanted = tuple(dict.fromkeys(filter(None, strings)))
    if not wanted:
        return None
    return _kept(wanted) if sum(map(len, wanted)) <= KEPT_LENGTH else Stops(wanted)


@lru_cache(maxsize=KEPT)
def _kept(strings: tuple[str, ...]) -> Stops:
    return Stops(strings)


def _fall(stop: str) -> list[int]:
    """Knuth, Morris and Pratt: where to go on when the character after so many matching ones differs."""
    fall = [0] * len(stop)
    matching = 0
    for place in range(1, len(stop)):
        while matching and stop[place] != stop[matching]:
            matching = fall[matching - 1]
        matching += stop[place] == stop[matching]
        fall[place] = matching
    return fall


def _advance(stop: str, fall: list[int], length: int, piece: str, *, allowed: bool) -> tuple[int, int]:
    """How much of `stop` the text ends with now, and after how many characters of the piece it was complete; or 0."""
    at = 0
    while at < len(piece):
        if not length:
            at = piece.find(stop[0], at)
            if at < 0:
                return 0, 0
        character = piece[at]
        while length and stop[length] != character:
            length = fall[length - 1]
        length += stop[length] == character
        at += 1
        if length == len(stop):
            if allowed:
                return 0, at
            length = fall[length - 1]
    return length, 0
