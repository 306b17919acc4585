"""Which parallel strategy is best at which concurrency: ScaleLLM 2.5, learnt or configured.

Owns what each strategy was seen to do by band (concurrency in powers of two). What is kept is the speed of one stream,
tokens/s divided by streams: at one concurrency the strategy with the highest throughput is also the one with the
lowest latency per token, so one number says both.

A band in which a strategy was not measured is bounded by those in which it was: one stream does not become faster in
a larger batch, nor does the whole become faster with fewer streams. The bound is taken for the truth until measured,
so a strategy is tried exactly where it may be the best, and nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Final

SAMPLES: Final = 5
"""Observations in a band before they are believed."""
WEIGHT: Final = 0.2
"""Of the newest observation in the mean."""
MARGIN: Final = 0.1
"""By which another strategy must be better, and a configured edge be passed, before the first one changes."""
HOLD_S: Final = 5.0
"""For which the first one stays the first."""
REACH_S: Final = 30.0
"""After so long as the first, a strategy that holds fewer streams than there are cannot hold more."""
FORGET_S: Final = 3600.0
"""A measurement that old is made again."""
MOST_STRATEGIES: Final = 64
MOST_BAND: Final = 40


@dataclass(slots=True)
class _Seen:
    speed: float  # tokens/s of one stream
    count: int
    at: float


def band(streams: float) -> int:
    """Number the band of a concurrency: 1, 2-3, 4-7, ... are 0, 1, 2, ..."""
    return min(MOST_BAND, max(1, int(streams)).bit_length() - 1)


class Bands:
    """Ranks strategies at a concurrency. Several may be given a range of it; the others are learnt."""

    def __init__(self, configured: Mapping[str, tuple[int, int]]) -> None:
        """`configured`: by strategy the streams from and below which it is best; below 0: no end; both 0: learnt."""
        self._ranges = {name: edges for name, edges in configured.items() if edges != (0, 0)}
        self._seen: dict[str, dict[int, _Seen]] = {name: {} for name in configured}
        self._first = ""
        self._since = -inf
        self._asked = 1  # streams of the scenario, as `prefer` was told last

    def observe(self, strategy: str, streams: float, tokens_per_s: float, now: float) -> None:
        """Take down what a strategy's instances did together, with so many streams, since the last time."""
        if not (isfinite(streams) and isfinite(tokens_per_s)) or streams <= 0.0 or tokens_per_s < 0.0:
            return
        if strategy not in self._seen and len(self._seen) >= MOST_STRATEGIES:
            return
        if strategy == self._first and now - self._since >= REACH_S:
            streams = max(streams, self._asked)  # all would go there; those that do not found no room
        bands, number = self._seen.setdefault(strategy, {}), band(streams)
        speed, seen = tokens_per_s / streams, bands.get(number)
        if seen is None or now - seen.at > FORGET_S:
            bands[number] = _Seen(speed, 1, now)
            return
        seen.count += 1
        seen.speed += max(WEIGHT, 1.0 / seen.count) * (speed - seen.speed)
        seen.at = now

    def prefer(self, streams: int, now: float) -> tuple[str, ...]:
        """Name all strategies, the one to ask first ahead, for a scenario with so many open streams."""
        self._asked = max(1, streams)
        ranked = sorted(self._seen, key=lambda name: self._rank(name, streams, now))
        if not ranked:
            return ()
        if self._first in self._seen and (now - self._since < HOLD_S or self._stays(ranked[0], streams, now)):
            ranked.remove(self._first)
            return (self._first, *ranked)
        if ranked[0] != self._first:
            self._first, self._since = ranked[0], now
        return tuple(ranked)

    def speed(self, strategy: str, streams: int, now: float) -> float:
        """Tokens/s of one stream at that concurrency, measured or at most; inf: nothing is known."""
        asked, best = max(1, streams), inf
        for number, seen in self._seen.get(strategy, {}).items():
            if now - seen.at > FORGET_S or seen.count < SAMPLES:
                continue
            if number == band(asked):
                return seen.speed
            if number < band(asked):
                best = min(best, seen.speed)
            else:
                best = min(best, seen.speed * 2.0 ** (number + 1) / asked)
        return best

    def _rank(self, name: str, streams: int, now: float) -> tuple[int, float, str]:
        """The smallest goes first: a range that holds, then learnt ones by speed, then by how far the range is."""
        edges = self._ranges.get(name)
        if edges is None:
            return 1, -self.speed(name, streams, now), name
        away = _away(edges, streams)
        return (0, float(-edges[0]), name) if away == 0 else (2, float(away), name)

    def _stays(self, other: str, streams: int, now: float) -> bool:
        """Whether the first one is still good enough beside the one that would be it."""
        first = self._first
        if other == first:
            return True
        edges = self._ranges.get(first)
        if edges is not None:
            low, high = edges[0] * (1.0 - MARGIN), edges[1] * (1.0 + MARGIN)
            return low <= streams and (edges[1] == 0 or streams < high)
        if other in self._ranges and _away(self._ranges[other], streams) == 0:
            return False
        mine = self.speed(first, streams, now)
        return self.speed(other, streams, now) <= mine * (1.0 + MARGIN)


def _away(edges: tuple[int, int], streams: int) -> int:
    """Count the streams between a range and this concurrency; 0: within."""
    low, high = edges
    if streams < low:
        return low - streams
    return streams - high + 1 if high and streams >= high else 0
