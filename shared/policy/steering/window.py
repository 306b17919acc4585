"""Counters that only grow, over a sliding window: a bounded row of samples, thinned, the newest always at its end."""

from collections import deque
from typing import Final, Generic, TypeVar

STEPS: Final = 8
"""Samples kept per window."""
WINDOWS: Final = 4
"""A row is that many windows long, for those who need more than one to see enough."""

V = TypeVar("V")


class Row(Generic[V]):
    """Samples of one owner's counters. It never sees them shrink: who restarts gets a new row."""

    def __init__(self, window_s: float) -> None:
        self._step_s = window_s / STEPS
        self._keep_s = window_s * WINDOWS
        self._samples: deque[tuple[float, V]] = deque()
        self.last: V | None = None
        self.at = 0.0  # of the last

    def add(self, value: V, now: float) -> None:
        """Take the newest value."""
        self.last, self.at = value, now
        if self._samples and now - self._samples[-1][0] < self._step_s:
            return
        self._samples.append((now, value))
        while now - self._samples[0][0] > self._keep_s:
            self._samples.popleft()

    def since(self, at: float) -> tuple[V, V, float] | None:
        """Return the value at that time, or the first after it, the newest, and when the former was. None: too few."""
        if self.last is None:
            return None
        first: tuple[float, V] | None = None
        for sample in reversed(self._samples):
            if sample[0] < at - self._step_s / 2:
                break
            first = sample
        return (first[1], self.last, first[0]) if first is not None and self.at > first[0] else None
