"""The simulator's time: what happens next happens now. Equal moments keep the order in which they were set.

A calendar: one heap of what comes within this slot of time, and a list for each later slot, which becomes the heap when
its time has come. One heap of a hundred thousand events would cost more with each of them, most of it for fetching its
entries from all over the memory.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

SLOTS_PER_S: Final = 1024.0
"""A power of two, so that multiplying is exact and a moment never falls between two slots."""

Entry = tuple[float, int, Callable[..., None], tuple[object, ...]]
"""When, which one of those set then, and what."""


class Clock:
    """Simulated seconds from 0. `call(*args)` runs when its moment has come; nothing runs by itself meanwhile."""

    __slots__ = ("_edge", "_going", "_later", "_near", "_set", "_slots", "happened", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.happened = 0  # events so far
        self._going = False
        self._set = 0
        self._near: list[Entry] = []  # heap of all before the edge
        self._edge = 0.0  # the end of the slot that was opened last
        self._later: dict[int, list[Entry]] = {}  # by slot
        self._slots: list[int] = []  # heap of them

    def at(self, moment: float, call: Callable[..., None], *args: object) -> None:
        """Let it happen then; one that lies in the past happens next. There is no taking back: let `call` look."""
        self._set += 1
        if moment < self._edge:
            heappush(self._near, (moment, self._set, call, args))
            return
        slot = int(moment * SLOTS_PER_S)
        entries = self._later.get(slot)
        if entries is None:
            self._later[slot] = [(moment, self._set, call, args)]
            heappush(self._slots, slot)
        else:
            entries.append((moment, self._set, call, args))

    def after(self, seconds: float, call: Callable[..., None], *args: object) -> None:
        """Let it happen so much later."""
        self.at(self.now + seconds, call, *args)

    def run(self, until: float = inf) -> None:
        """Let everything happen up to that moment, or until nothing is left, or until `stop`."""
        self._going = True
        near = self._near
        while self._going:
            if not near:
                if not self._slots:
                    break
                near = self._open()
            if near[0][0] > until:
                break
            moment, _, call, args = heappop(near)
            self.now = max(self.now, moment)
            self.happened += 1
            call(*args)
        if self._going and until < inf:
            self.now = max(self.now, until)

    def _open(self) -> list[Entry]:
        slot = heappop(self._slots)
        self._near = self._later.pop(slot)
        self._edge = (slot + 1) / SLOTS_PER_S
        heapify(self._near)
        return self._near

    def stop(self) -> None:
        """Let `run` return after what happens now."""
        self._going = False
