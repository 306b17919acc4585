"""A ring of instances on which each key has its place: observers that know nothing of each other agree on it.

Consistent hashing; an instance that comes or goes moves only the keys beside it.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Final
from zlib import crc32

POINTS: Final = 4
"""Of each instance, so that its neighbours share what it leaves."""


class Ring:
    """Instances at places that their names give."""

    def __init__(self) -> None:
        self._points: list[tuple[int, str]] = []
        self._names: set[str] = set()

    def add(self, instance: str) -> None:
        """Let it in. Idempotent."""
        if instance not in self._names:
            self._names.add(instance)
            for point in _points_of(instance):
                insort(self._points, (point, instance))

    def drop(self, instance: str) -> None:
        """Let it go. Idempotent."""
        if instance in self._names:
            self._names.remove(instance)
            for point in _points_of(instance):
                del self._points[bisect_left(self._points, (point, instance))]

    def walk(self, key: int, most: int) -> Iterator[str]:
        """Name the instances behind a key's place, each once, `most` at most."""
        start, count = bisect_left(self._points, (key, "")), len(self._points)
        met: set[str] = set()
        for step in range(count):
            if len(met) >= most:
                return
            instance = self._points[(start + step) % count][1]
            if instance not in met:
                met.add(instance)
                yield instance


def _points_of(instance: str) -> list[int]:
    return [crc32(f"{instance}|{number}".encode()) for number in range(POINTS)]
