"""A clock of silence: it does not run while nobody at all is heard.

When the bus is down, or our own process was frozen, everyone falls silent at once; that says something about us and
nothing about them. Measured on this clock, an instance is silent only for as long as others were heard, and once
somebody is heard again all the others have their full time to be heard too.
"""

from typing import Final

ROUNDING_S: Final = 1e-6
"""Added when asking what is due: a tick at exactly the time of a deadline finds it due, whatever floats do."""


class Hearing:
    """Runs with `now`, at most `deaf_after_s` past the last thing heard; after a longer gap it goes on from there."""

    def __init__(self, deaf_after_s: float) -> None:
        self._deaf_after_s = deaf_after_s
        self._last: float | None = None
        self._stood_s = 0.0

    def heard(self, now: float) -> None:
        """Something came over the bus."""
        if self._last is not None and now - self._last > self._deaf_after_s:
            self._stood_s += now - self._last
        self._last = now if self._last is None else max(now, self._last)

    def clock(self, now: float) -> float:
        """What the clock shows."""
        if self._last is None:
            return now
        return min(now, self._last + self._deaf_after_s) - self._stood_s

    def when(self, clock: float) -> float | None:
        """The time at which it will show that; None: only if somebody is heard before."""
        now = clock + self._stood_s
        return now if self._last is None or now <= self._last + self._deaf_after_s else None
