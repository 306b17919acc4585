"""Workloads out of workloads: cut, thinned, laid over each other, made faster, mixed.

The rate is changed by leaving requests out or by laying shifted copies over each other, never by squeezing time:
that would change the bursts, too. `faster` squeezes, for whom wants it.
"""

from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import islice
from random import Random
from typing import Final

from simulator.workload.arrival import Arrival

COPY: Final = 1 << 40
"""Between the block ids of one copy and those of the next, where copies share nothing."""

Make = Callable[[], Iterable[Arrival]]
"""Begins a workload anew each time."""


def changed(
    arrival: Arrival, at: float, *, scenario: str | None = None, tenant: str | None = None, add: int = 0
) -> Arrival:
    """The same at another time, or of another scenario, or with other blocks."""
    return Arrival(
        at,
        arrival.input_tokens,
        arrival.output_tokens,
        tuple(block + add for block in arrival.blocks) if add else arrival.blocks,
        arrival.scenario if scenario is None else scenario,
        arrival.tenant if tenant is None else tenant,
        arrival.priority,
    )


def within(arrivals: Iterable[Arrival], begin: float, end: float) -> Iterator[Arrival]:
    """Those of a span of time, counted from its begin."""
    for one in arrivals:
        if one.at >= end:
            return
        if one.at >= begin:
            yield changed(one, one.at - begin)


def first(arrivals: Iterable[Arrival], number: int) -> Iterator[Arrival]:
    """The first so many."""
    return islice(arrivals, number)


def faster(arrivals: Iterable[Arrival], times: float) -> Iterator[Arrival]:
    """The same in less time: bursts are sharper by it, too."""
    return (changed(one, one.at / times) for one in arrivals)


def as_scenario(arrivals: Iterable[Arrival], scenario: str, tenant: str | None = None) -> Iterator[Arrival]:
    """The same as another scenario's."""
    return (changed(one, one.at, scenario=scenario, tenant=tenant) for one in arrivals)


def mixed(*workloads: Iterable[Arrival]) -> Iterator[Arrival]:
    """All of them, in the order of time."""
    return merge(*workloads, key=lambda one: one.at)


def thinned(arrivals: Iterable[Arrival], share: float, seed: int) -> Iterator[Arrival]:
    """Each stays by lot."""
    rng = Random(f"thinned {seed}")
    return (one for one in arrivals if rng.random() < share)


def repeated(make: Make, seconds: float, times: int) -> Iterator[Arrival]:
    """One after another, each so long."""
    for turn in range(times):
        for one in within(make(), 0.0, seconds):
            yield changed(one, one.at + turn * seconds)


def shifted(make: Make, seconds: float, by: float, add: int = 0) -> Iterator[Arrival]:
    """The workload of so many seconds from another moment on; what was before it comes at the end."""
    for one in make():
        if by <= one.at < seconds:
            yield changed(one, one.at - by, add=add)
    for one in make():
        if one.at < min(by, seconds):
            yield changed(one, one.at - by + seconds, add=add)


def times_rate(make: Make, seconds: float, times: float, seed: int, *, shared: bool = True) -> Iterator[Arrival]:
    """Change a workload's rate within its `seconds`: thinned below once, shifted copies laid over it above.

    Not `shared`: copies have block ids of their own, as other users have; else as if the same users had grown.
    """
    rng = Random(f"times {seed}")
    whole = int(times)
    copies = [
        shifted(make, seconds, 0.0 if not copy else rng.uniform(0.0, seconds), 0 if shared else copy * COPY)
        for copy in range(whole)
    ]
    if times > whole:
        more = shifted(make, seconds, 0.0 if not whole else rng.uniform(0.0, seconds), 0 if shared else whole * COPY)
        copies.append(thinned(more, times - whole, seed))
    return mixed(*copies)
