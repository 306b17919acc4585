"""Deadlines in order, one per key. Cheap to set, to move and to drop at any number of keys."""

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

SLACK: Final = 64
"""Stale heap entries that are always tolerated; beyond it as many as live ones."""


class Deadlines(Generic[K]):
    """A heap whose entries are looked at again when they come up: moving a deadline later costs nothing until then.

    `first`: no deadline is sooner. Who asks at every event reads it and is done, nearly always.
    """

    __slots__ = ("_at", "_entries", "_heap", "_queued", "first")

    def __init__(self) -> None:
        self.first = inf
        self._at: dict[K, float] = {}
        self._queued: dict[K, int] = {}  # which heap entry is the key's own; others are stale
        self._heap: list[tuple[float, int, K]] = []
        self._entries = 0

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, key: K) -> bool:
        return key in self._at

    def get(self, key: K) -> float | None:
        """The key's deadline."""
        return self._at.get(key)

    def set(self, key: K, at: float) -> None:
        """The key's deadline from now on."""
        before = self._at.get(key)
        self._at[key] = at
        if before is None or at < before or key not in self._queued:
            self._push(key, at)

    def drop(self, key: K) -> None:
        """The key has none any more."""
        self._at.pop(key, None)
        self._queued.pop(key, None)

    def due(self, now: float) -> list[K]:
        """The keys whose deadline has come, and forget these."""
        due: list[K] = []
        while self._heap and self._heap[0][0] <= now:
            _, entry, key = heappop(self._heap)
            if self._queued.get(key) != entry:
                continue
            del self._queued[key]
            at = self._at[key]
            if at <= now:
                del self._at[key]
                due.append(key)
            else:
                self._push(key, at)
        self.first = self._heap[0][0] if self._heap else inf
        return due

    def next(self) -> float | None:
        """The earliest deadline."""
        while self._heap:
            queued_at, entry, key = self._heap[0]
            if self._queued.get(key) == entry and self._at[key] <= queued_at:
                return queued_at
            heappop(self._heap)
            if self._queued.get(key) == entry:
                self._push(key, self._at[key])
        return None

    def _push(self, key: K, at: float) -> None:
        self._entries += 1
        self._queued[key] = self._entries
        heappush(self._heap, (at, self._entries, key))
        self.first = min(self.first, at)
        if len(self._heap) > 2 * len(self._at) + SLACK:
            self._heap = [entry for entry in self._heap if self._queued.get(entry[2]) == entry[1]]
            heapify(self._heap)
