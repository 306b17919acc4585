"""A line of things in order of rank. Joining, leaving, both ends and any place are cheap at some thousands."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

R = TypeVar("R", bound=tuple[Any, ...])
T = TypeVar("T")


class Line(Generic[R, T]):
    """One thing a rank; smaller ranks go first."""

    def __init__(self) -> None:
        self._ranks: list[R] = []
        self._things: dict[R, T] = {}

    def __len__(self) -> int:
        return len(self._ranks)

    def __iter__(self) -> Iterator[T]:
        """In order; the line must not change meanwhile."""
        return (self._things[rank] for rank in self._ranks)

    def __contains__(self, rank: R) -> bool:
        return rank in self._things

    def add(self, rank: R, thing: T) -> None:
        """Let it in at its place."""
        insort(self._ranks, rank)
        self._things[rank] = thing

    def drop(self, rank: R) -> bool:
        """Let it go; False: it was not in."""
        if self._things.pop(rank, None) is None:
            return False
        del self._ranks[bisect_left(self._ranks, rank)]
        return True

    def ahead(self, rank: R) -> int:
        """Count those that go before this rank."""
        return bisect_left(self._ranks, rank)

    def at(self, place: int) -> T:
        """Name the one at a place; negative ones count from the end."""
        return self._things[self._ranks[place]]
