"""How far a client is in a stream: what event ids and the maps' `at` say, and what it sends back to go on.

Owns the form. A choice is at `12`: the last token whose text was seen; at `12.57.3` where text is held back and let go
in other pieces than tokens bring (functions, moderation): characters and logprobs seen so far count then; at `end`;
at `-` before anything. Several choices are separated by commas.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from services.gateway.api.parameters import MAX_CHOICES
from services.gateway.tools.said import CallPiece
from shared.errors import BadRequest

END: Final = b"end"
NOTHING: Final = b"-"
CALL_ID: Final = re.compile(r"(chatcmpl-|cmpl-|resp_)[0-9a-f]{32}\Z")
_ONE: Final = re.compile(r"(?P<index>\d{1,9})(\.(?P<units>\d{1,12})\.(?P<entries>\d{1,12}))?\Z")


@dataclass(frozen=True, slots=True)
class Position:
    """How far a client is in one choice."""

    index: int = -1
    units: int | None = None  # None: the index says it all
    entries: int = 0  # of logprobs
    over: bool = False


def units(text: str, calls: Iterable[CallPiece] = ()) -> int:
    """Count what is shown: characters of words and of arguments, and each call's beginning."""
    return len(text) + sum(len(call.arguments) + (call.name is not None) for call in calls)


def read_event_id(text: str) -> tuple[str, list[Position]]:
    """Read the id of the last event that a client has seen: the call's id, and its position in each choice.

    Raises BadRequest.
    """
    call_id, colon, marks = text.strip().rpartition(":")
    if not colon or not CALL_ID.match(call_id):
        raise BadRequest("last-event-id must be the id of an event of a stream, as the events themselves say it")
    return call_id, read_positions(marks)


def read_positions(text: str) -> list[Position]:
    """Read positions, one for each choice. Raises BadRequest."""
    marks = text.split(",")
    if len(marks) > MAX_CHOICES:
        raise BadRequest(f"a stream has at most {MAX_CHOICES} choices, and so as many positions", "after")
    return [_read(mark) for mark in marks]


def _read(mark: str) -> Position:
    if mark == NOTHING.decode():
        return Position()
    if mark == END.decode():
        return Position(over=True)
    found = _ONE.match(mark)
    if found is None:
        raise BadRequest("a position in a stream is that of an event or map of it, unchanged", "after")
    exact = found["units"] is not None
    return Position(int(found["index"]), int(found["units"]) if exact else None, int(found["entries"] or 0))


class Marks:
    """Where each choice of a stream is, as its events say it."""

    __slots__ = ("_marks", "exact")

    def __init__(self, *, exact: bool) -> None:
        self.exact = exact
        self._marks: list[bytes] = []

    def open(self) -> int:
        """Take in another choice; its place."""
        self._marks.append(NOTHING)
        return len(self._marks) - 1

    def put(self, place: int, mark: bytes) -> bytes:
        """Note how far a choice is; what an event says of all."""
        self._marks[place] = mark
        return mark if len(self._marks) == 1 else b",".join(self._marks)


class Mark:
    """How far one choice is, counted as it is shown."""

    __slots__ = ("_entries", "_exact", "_units")

    def __init__(self, *, exact: bool) -> None:
        self._exact = exact
        self._units = self._entries = 0

    def resume(self, seen: Position) -> bytes:
        """Count from where a client is already; what events said of that."""
        self._units, self._entries = seen.units or 0, seen.entries
        if seen.over:
            return END
        return NOTHING if seen.index < 0 else self.show(seen.index, 0, 0)

    def show(self, index: int, shown: int, entries: int) -> bytes:
        """Note that text and so many logprobs up to a token were shown."""
        self._units += shown
        self._entries += entries
        return b"%d.%d.%d" % (index, self._units, self._entries) if self._exact else b"%d" % index
