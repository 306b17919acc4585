"""The arithmetic of a tenant's limits: buckets that hold a minute's worth and drain all the time. Whole numbers only.

A level is what was used and has not drained yet, in units of 1/60,000,000: one request more raises it by MINUTE, and
each microsecond lowers it by the limit. So nothing is ever rounded. The script that counts for all gateways
(`services/gateway/access/scripts.py`) does the same sums; a test holds the two together.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MINUTE: Final = 60_000_000
"""Microseconds; also what one request or one token weighs in a level."""
MOST_PER_MINUTE: Final = 100_000_000
"""Above it a full bucket would leave the whole numbers that Lua holds exactly (2^53)."""


class Limit(StrEnum):
    """What may run out."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    STREAMS = "streams"


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one tenant: per minute, per minute, at a time. 0: no such limit."""

    requests: int = 0
    tokens: int = 0
    streams: int = 0

    def __bool__(self) -> bool:
        return bool(self.requests or self.tokens or self.streams)


@dataclass(frozen=True, slots=True)
class Need:
    """What one request takes: itself, the tokens it may use at most, and its choices. What is 0 is not limited."""

    tokens: int
    streams: int = 1


@dataclass(frozen=True, slots=True)
class Levels:
    """How full the buckets are, and how many streams are open."""

    requests: int = 0
    tokens: int = 0
    streams: int = 0


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a request does not fit. `never`: nor would it into empty buckets; then there is nothing to wait for."""

    limit: Limit
    wait_us: int
    never: bool = False


def drained(level: int, per_minute: int, elapsed_us: int) -> int:
    """Return what is left of a level after so long."""
    return max(0, level - max(0, elapsed_us) * per_minute)


def rescaled(level: int, was: int, per_minute: int) -> int:
    """Return the level of a bucket whose limit was changed: as full as before, what stands beyond it unchanged.

    Rounded up. Gateways that hear of the change one after the other so disagree about nothing but the size.
    """
    if not was or not per_minute:
        return level
    within = min(level, was * MINUTE)
    whole, rest = divmod(within, was)  # apart, so that Lua's numbers hold the products too
    return whole * per_minute - (-rest * per_minute // was) + level - within


def shortage(limits: Limits, levels: Levels, need: Need) -> Shortage | None:
    """Say what a request lacks, the worst of it first; None: it fits."""
    rates = (
        (Limit.REQUESTS, limits.requests, levels.requests, 1),
        (Limit.TOKENS, limits.tokens, levels.tokens, need.tokens),
    )
    for limit, most, asked in (
        (Limit.TOKENS, limits.tokens, need.tokens),
        (Limit.STREAMS, limits.streams, need.streams),
    ):
        if most and asked > most:
            return Shortage(limit, 0, never=True)
    waits = [
        Shortage(limit, -(-(level + asked * MINUTE - most * MINUTE) // most))
        for limit, most, level, asked in rates
        if most and asked and level + asked * MINUTE > most * MINUTE
    ]
    if waits:
        return max(waits, key=lambda short: short.wait_us)
    if limits.streams and need.streams and levels.streams + need.streams > limits.streams:
        return Shortage(Limit.STREAMS, 0)
    return None


def remaining(level: int, per_minute: int) -> int:
    """Count the whole requests or tokens that fit now."""
    return max(0, per_minute * MINUTE - level) // MINUTE


def reset_us(level: int, per_minute: int) -> int:
    """Return the time until the bucket is empty again."""
    return -(-level // per_minute)


class Account:
    """One tenant's buckets in one process: what a gateway counts by while Redis does not answer."""

    __slots__ = ("_at", "_limits", "_requests", "_tokens")

    def __init__(self, levels: Levels | None = None, now_us: int = 0, limits: Limits | None = None) -> None:
        self._requests = levels.requests if levels else 0
        self._tokens = levels.tokens if levels else 0
        self._at = now_us
        self._limits = limits or Limits()  # that the levels were counted by

    def admit(self, limits: Limits, need: Need, open_streams: int, now_us: int) -> tuple[bool, Levels]:
        """Take a request's share if all of it fits, else nothing. Returns the levels after that."""
        self._drain(limits, now_us)
        levels = Levels(self._requests, self._tokens, open_streams)
        if shortage(limits, levels, need) is not None:
            return False, levels
        if limits.requests:
            self._requests += MINUTE
        if limits.tokens:
            self._tokens += need.tokens * MINUTE
        return True, Levels(self._requests, self._tokens, open_streams + need.streams)

    def requests_left(self, limits: Limits, now_us: int) -> tuple[Shortage | None, Levels]:
        """Say whether one request more lacks room, as far as is known here, and the levels.

        Requests are never given back and others only add to them, so a shortage here is one everywhere. Of tokens and
        streams that cannot be said.
        """
        self._drain(limits, now_us)
        levels = Levels(self._requests, self._tokens)
        return shortage(Limits(requests=limits.requests), levels, Need(0, 0)), levels

    def settle(self, limits: Limits, unused_tokens: int, now_us: int) -> None:
        """Give back what was taken and not used; a negative number takes what was used beyond."""
        self._drain(limits, now_us)
        if limits.tokens:
            self._tokens = max(0, self._tokens - unused_tokens * MINUTE)

    def _drain(self, limits: Limits, now_us: int) -> None:
        elapsed, self._at = now_us - self._at, now_us
        was = self._limits
        if was != limits:
            self._limits = Limits(limits.requests or was.requests, limits.tokens or was.tokens, limits.streams)
            self._requests = rescaled(self._requests, was.requests, limits.requests)
            self._tokens = rescaled(self._tokens, was.tokens, limits.tokens)
        self._requests = drained(self._requests, limits.requests, elapsed)
        self._tokens = drained(self._tokens, limits.tokens, elapsed)
