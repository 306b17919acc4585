"""The requests of one scenario that wait for a slot, and how fast they get one."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from heapq import merge
from itertools import islice
from typing import Final

from shared.policy.attempts import OpenRequest, Rank

SAMPLES: Final = 8
"""Slots seen to come free, one after another, before the pace is believed."""
WEIGHT: Final = 0.2
"""Of the newest interval in the mean."""


class Line:
    """Requests in order of rank. Joining, leaving and both ends are cheap at some thousands."""

    def __init__(self) -> None:
        self._ranks: list[Rank] = []
        self._requests: dict[Rank, OpenRequest] = {}

    def __len__(self) -> int:
        return len(self._ranks)

    def __iter__(self) -> Iterator[OpenRequest]:
        """In order; the line must not change meanwhile."""
        return (self._requests[rank] for rank in self._ranks)

    def __contains__(self, request: OpenRequest) -> bool:
        return request.rank in self._requests

    def add(self, request: OpenRequest) -> None:
        """Let it in at its place."""
        insort(self._ranks, request.rank)
        self._requests[request.rank] = request

    def discard(self, request: OpenRequest) -> None:
        """Let it go, if it is in."""
        if self._requests.pop(request.rank, None) is not None:
            del self._ranks[bisect_left(self._ranks, request.rank)]

    def ahead(self, request: OpenRequest) -> int:
        """Count those that go before it."""
        return bisect_left(self._ranks, request.rank)

    def last(self) -> OpenRequest:
        """Name the one that goes last."""
        return self._requests[self._ranks[-1]]


class Pace:
    """The mean time between two slots that waiting requests got, while some were left waiting all the time."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._interval_s = 0.0
        self._samples = 0

    def got(self, now: float, *, others_wait: bool) -> None:
        """Count a slot."""
        if self._last is not None:
            interval = now - self._last
            weight = max(WEIGHT, 1.0 / (self._samples + 1))
            self._interval_s += weight * (interval - self._interval_s)
            self._samples += 1
        self._last = now if others_wait else None
        if not others_wait:
            self._samples = 0

    def wait_s(self, ahead: int) -> float | None:
        """Estimate the wait of one with so many ahead of it; None: nothing is known."""
        return self._interval_s * (ahead + 1) if self._samples >= SAMPLES else None


class Waiting:
    """The wait of one scenario: new requests, which are bounded, and those that lost their worker, which are not lost.

    The latter are bounded by the number of open requests.
    """

    def __init__(self) -> None:
        self.pace = Pace()
        self.fresh = Line()
        self.resumed = Line()

    def __len__(self) -> int:
        return len(self.fresh) + len(self.resumed)

    def add(self, request: OpenRequest) -> None:
        """Let it wait at its place."""
        (self.resumed if request.accepted else self.fresh).add(request)

    def discard(self, request: OpenRequest) -> None:
        """Let it go, if it waits."""
        (self.resumed if request.accepted else self.fresh).discard(request)

    def first(self, number: int) -> list[OpenRequest]:
        """Name those that are served next."""
        return list(islice(merge(self.resumed, self.fresh, key=lambda request: request.rank), number))

    def wait_s(self, request: OpenRequest) -> float | None:
        """Estimate how long it will wait; None: nothing is known."""
        return self.pace.wait_s(self.fresh.ahead(request) + self.resumed.ahead(request))
