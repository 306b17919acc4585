"""The candidates of one kind with the best on top, at any number of them."""

from collections.abc import Collection
from enum import IntEnum
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

SLACK: Final = 64
"""Stale heap entries that are always tolerated; beyond it as many as candidates."""


class Tier(IntEnum):
    """How willingly a candidate is asked."""

    FREE = 0
    FULL = 1
    SUSPECT = 2
    SUSPECT_FULL = 3


class Standing(NamedTuple):
    """A candidate's place in the order; smaller is asked first."""

    tier: Tier
    streams: int
    kv_used: int  # less room comes later; 0 where it does not matter
    turn: int  # of its last offer: among equals the one that waited longest
    tie: int  # differs between observers, so that they do not all prefer the same one
    instance: str


class Pool:
    """A heap of standings. A changed one is pushed anew; the stale entry is skipped when it comes up."""

    __slots__ = ("_heap", "_standings")

    def __init__(self) -> None:
        self._standings: dict[str, Standing] = {}
        self._heap: list[Standing] = []

    def __len__(self) -> int:
        return len(self._standings)

    def put(self, instance: str, standing: Standing | None) -> None:
        """The candidate stands here from now on; None: it is none any more."""
        standings = self._standings
        if standing is None:
            standings.pop(instance, None)
            return
        if standings.get(instance) == standing:
            return
        standings[instance] = standing
        heappush(self._heap, standing)
        if len(self._heap) > 2 * len(standings) + SLACK:
            self._heap = list(standings.values())
            heapify(self._heap)

    def standing(self, instance: str) -> Standing | None:
        """Where a candidate stands; None: it is none."""
        return self._standings.get(instance)

    def first(self, exclude: Collection[str] = ()) -> Standing | None:
        """The first that has room; a suspect only where nobody else is left, not merely nobody free."""
        aside: list[Standing] = []
        found: Standing | None = None
        while self._heap:
            top = self._heap[0]
            if self._standings.get(top.instance) != top:
                heappop(self._heap)
                continue
            if not self._may_be_asked(top, aside):
                break
            if top.instance not in exclude:
                found = top
                break
            aside.append(heappop(self._heap))
        for standing in aside:
            heappush(self._heap, standing)
        return found

    def next(self, exclude: Collection[str] = ()) -> Standing | None:
        """The first that is not excluded, however willing; costs a look at those excluded before it."""
        aside: list[Standing] = []
        found: Standing | None = None
        while self._heap and found is None:
            top = self._heap[0]
            if self._standings.get(top.instance) != top:
                heappop(self._heap)
            elif top.instance in exclude:
                aside.append(heappop(self._heap))
            else:
                found = top
        for standing in aside:
            heappush(self._heap, standing)
        return found

    @staticmethod
    def _may_be_asked(top: Standing, aside: list[Standing]) -> bool:
        if top.tier is Tier.FREE:
            return True
        return top.tier is Tier.SUSPECT and all(standing.tier is Tier.SUSPECT for standing in aside)
