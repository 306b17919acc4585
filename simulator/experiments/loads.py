"""Ways to load a simulated fleet that several experiments use: a closed loop, and arrivals at a rate."""

from collections.abc import Iterable, Iterator
from random import Random
from typing import Final

from msgspec import structs

from simulator.cluster.clients import ClosedLoop
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec
from simulator.measures.tally import NONE, Objectives, Tally
from simulator.workload.arrival import Arrival

SPREAD: Final = 0.5
"""Sigma of the lognormal lengths: a 95th percentile of 2.3 times the median."""


def lengths(rng: Random, tokens: int) -> int:
    """Draw a length whose mean is `tokens`, lognormal, between a twentieth of it and five times as much."""
    drawn = rng.lognormvariate(0.0, SPREAD) * tokens / 1.1331  # exp(SPREAD**2 / 2)
    return max(1, tokens // 20, min(5 * tokens, round(drawn)))


def requests(seed: int, prompt: int, answer: int, *, scenario: str = "chat") -> Iterator[Arrival]:
    """Requests without end whose lengths have these means; their times are all 0."""
    rng = Random(f"lengths {seed}")
    while True:
        yield Arrival(0.0, lengths(rng, prompt), lengths(rng, answer), scenario=scenario)


def at_rate(endless: Iterator[Arrival], rate: float, seconds: float, seed: int) -> Iterator[Arrival]:
    """Let them come at random, so many a second, for so long: Poisson."""
    rng, at = Random(f"times {seed}"), 0.0
    while (at := at + rng.expovariate(rate)) < seconds:
        yield structs.replace(next(endless), at=at)


def closed(
    spec: FleetSpec,
    endless: Iterator[Arrival],
    clients: int,
    *,
    warm_s: float,
    seconds: float,
    objectives: Objectives = NONE,
) -> Tally:
    """Keep so many requests outstanding; what happened in the `seconds` after the warm-up."""
    tally = Tally(objectives, begin=warm_s, end=warm_s + seconds)
    simulation = Simulation(spec, tally)
    ClosedLoop(simulation, endless, clients, ramp_s=warm_s / 2)
    simulation.run(warm_s + seconds)
    return tally


def opened(
    spec: FleetSpec, workload: Iterable[Arrival], *, warm_s: float, end_s: float, objectives: Objectives = NONE
) -> Tally:
    """Let a workload come; who arrived between warm-up and end counts."""
    tally = Tally(objectives, begin=warm_s, end=end_s)
    simulation = Simulation(spec, tally)
    simulation.feed(workload)
    simulation.run()
    return tally
