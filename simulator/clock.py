"""The simulator's time: what happens next happens now. Equal moments keep the order in which they were set."""

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf


class Clock:
    """Simulated seconds from 0. `call(*args)` runs when its moment has come; nothing runs by itself meanwhile."""

    __slots__ = ("_going", "_heap", "_set", "happened", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.happened = 0  # events so far
        self._going = False
        self._set = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []

    def at(self, moment: float, call: Callable[..., None], *args: object) -> None:
        """Let it happen then; one that lies in the past happens next. There is no taking back: let `call` look."""
        self._set += 1
        heappush(self._heap, (moment, self._set, call, args))

    def after(self, seconds: float, call: Callable[..., None], *args: object) -> None:
        """Let it happen so much later."""
        self._set += 1
        heappush(self._heap, (self.now + seconds, self._set, call, args))

    def run(self, until: float = inf) -> None:
        """Let everything happen up to that moment, or until nothing is left, or until `stop`."""
        heap = self._heap
        self._going = True
        while self._going and heap and heap[0][0] <= until:
            moment, _, call, args = heappop(heap)
            self.now = max(self.now, moment)
            self.happened += 1
            call(*args)
        if self._going and until < inf:
            self.now = max(self.now, until)

    def stop(self) -> None:
        """Let `run` return after what happens now."""
        self._going = False
