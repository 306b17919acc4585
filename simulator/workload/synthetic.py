"""Workloads by formula: when requests come, how long they are, which beginnings they share.

Seeded; without end, or so many seconds long.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from math import exp, inf, log
from random import Random
from typing import Final

from simulator.workload.arrival import Arrival

Lengths = Callable[[Random], tuple[int, int]]
"""Draws tokens in and out."""
Times = Iterable[float]
P95: Final = 1.6449
"""Of the normal distribution, in sigmas."""

# ---- when


def poisson(rate: float, seconds: float = inf, *, seed: int, begin: float = 0.0) -> Iterator[float]:
    """At random, so many a second on average."""
    rng, at = Random(f"poisson {seed}"), begin
    while (at := at + rng.expovariate(rate)) < begin + seconds:
        yield at


def bursty(rate: float, variation: float, seconds: float = inf, *, seed: int) -> Iterator[float]:
    """Gaps by a Gamma distribution whose coefficient of variation is given: above 1 in bursts, below 1 evenly."""
    rng, at, shape = Random(f"gamma {seed}"), 0.0, variation**-2
    while (at := at + rng.gammavariate(shape, 1.0 / (shape * rate))) < seconds:
        yield at


def on_off(rate: float, on_s: float, off_s: float, seconds: float, *, seed: int) -> Iterator[float]:
    """Poisson while on, nothing while off, in turn; the lengths of both are at random about their means."""
    rng, at, turn = Random(f"on off {seed}"), 0.0, 0
    while at < seconds:
        lasts = rng.expovariate(1.0 / on_s)
        yield from (one for one in poisson(rate, lasts, seed=seed * 7919 + turn, begin=at) if one < seconds)
        at += lasts + rng.expovariate(1.0 / off_s)
        turn += 1


# ---- how long


def fixed(prompt: int, answer: int) -> Lengths:
    """Always these."""
    return lambda _: (prompt, answer)


def lognormal(prompt: tuple[float, float], answer: tuple[float, float], most: int = 131_072) -> Lengths:
    """By median and 95th percentile of each, in tokens."""
    (p_mu, p_sigma), (a_mu, a_sigma) = ((log(m), log(p95 / m) / P95) for m, p95 in (prompt, answer))

    def draw(rng: Random) -> tuple[int, int]:
        one, other = exp(rng.gauss(p_mu, p_sigma)), exp(rng.gauss(a_mu, a_sigma))
        return max(1, min(most, round(one))), max(1, min(most, round(other)))

    return draw


def resampled(arrivals: Iterable[Arrival]) -> Lengths:
    """Those of a trace, each as likely as the others, in and out together."""
    pairs = [(one.input_tokens, one.output_tokens) for one in arrivals]
    return lambda rng: pairs[rng.randrange(len(pairs))]


# ---- which beginnings


class Prefixes:
    """Beginnings that a scenario's prompts share: `number` of them, the k-th used in proportion to 1 / k**`zipf`.

    Block ids of different `family` never meet. A prompt is its beginning and then what is its own; beginnings are whole
    blocks long.
    """

    def __init__(self, number: int, tokens: int, *, block_tokens: int, zipf: float = 1.0, family: int = 0) -> None:
        self._blocks = max(1, tokens // block_tokens)
        self._block_tokens = block_tokens
        self._sums = list(accumulate((place + 1.0) ** -zipf for place in range(number)))
        self._base = family << 48
        self._own = self._base + (number + 1) * self._blocks

    def blocks(self, tokens: int, rng: Random) -> tuple[int, ...]:
        """The ids of a prompt of so many tokens."""
        which = bisect_right(self._sums, rng.random() * self._sums[-1])
        count, whole = -(-tokens // self._block_tokens), tokens // self._block_tokens
        begin = self._base + min(which, len(self._sums) - 1) * self._blocks
        shared = range(begin, begin + min(self._blocks, whole))  # a last block that is not full is nobody else's
        own = range(self._own, self._own + count - len(shared))
        self._own = own.stop
        return (*shared, *own)


def workload(
    times: Times,
    lengths: Lengths,
    *,
    seed: int,
    prefixes: Prefixes | None = None,
    scenario: str = "chat",
    tenants: Sequence[str] = ("",),
) -> Iterator[Arrival]:
    """Put them together. With prefixes a prompt of so many tokens begins with one of them, as far as it is long."""
    rng = Random(f"workload {seed} {scenario}")
    for at in times:
        prompt, answer = lengths(rng)
        blocks = prefixes.blocks(prompt, rng) if prefixes is not None else ()
        tenant = tenants[rng.randrange(len(tenants))] if len(tenants) > 1 else tenants[0]
        yield Arrival(at, prompt, answer, blocks, scenario, tenant)
