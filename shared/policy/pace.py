"""How fast those who wait get slots: what a wait will take, as far as it can be known."""

from typing import Final

SAMPLES: Final = 8
"""Slots seen to come free, one after another, before the pace is believed."""
WEIGHT: Final = 0.2
"""Of the newest slot in the means."""


class Pace:
    """The mean time and cost of a slot that a waiting request got, while some were left waiting all the time."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._interval_s = 0.0
        self._cost = 1.0
        self._samples = 0

    def got(self, now: float, cost: float, *, others_wait: bool) -> None:
        """Count a slot that went to a request of this cost."""
        if self._last is not None:
            weight = max(WEIGHT, 1.0 / (self._samples + 1))
            self._interval_s += weight * (now - self._last - self._interval_s)
            self._cost += weight * (cost - self._cost)
            self._samples += 1
        self._last = now if others_wait else None
        if not others_wait:
            self._samples = 0

    @property
    def known(self) -> bool:
        """Whether enough was seen to say anything."""
        return self._samples >= SAMPLES

    def takes_s(self, cost: float) -> float | None:
        """Estimate how long requests of this cost, all together, take to get their slots; None: nothing is known."""
        return self._interval_s * cost / self._cost if self.known else None
