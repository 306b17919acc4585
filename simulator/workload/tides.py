"""Days: a rate that follows the hour, and requests that follow the rate."""

from collections.abc import Callable, Iterator, Sequence
from math import cos, pi
from random import Random
from typing import Final

DAY_S: Final = 86_400.0
Rate = Callable[[float], float]
"""Requests per second at a time of day in seconds."""


def sinus(night: float, day: float, *, peak_h: float = 15.0, day_s: float = DAY_S) -> Rate:
    """From the night's rate to the day's and back, once a day; the peak is at that hour."""
    return lambda at: night + (day - night) * (1 + cos(2 * pi * (at / day_s - peak_h / 24.0))) / 2


def by_hour(rates: Sequence[float], *, day_s: float = DAY_S) -> Rate:
    """One rate for each of as many equal parts of the day as there are rates."""
    return lambda at: rates[int(at / day_s * len(rates)) % len(rates)]


def tide(rate: Rate, most: float, seconds: float, *, seed: int) -> Iterator[float]:
    """Poisson with a rate that changes, by thinning; `most` is a rate that it never exceeds.

    Source: Lewis and Shedler 1979. Raises ValueError where the rate exceeds it.
    """
    rng, at = Random(f"tide {seed}"), 0.0
    while (at := at + rng.expovariate(most)) < seconds:
        now = rate(at)
        if now > most * (1 + 1e-9):
            raise ValueError(f"the rate is {now:.3g}/s at {at:.0f} s, above {most:.3g}")
        if rng.random() * most < now:
            yield at
