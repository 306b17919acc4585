"""What a request costs the simulator, and the deciders, at 100, 1,000 and 10,000 instances; and a million requests.

A fleet of P/D-Serve's size: a Llama of 70B on 8 NPUs each, twenty scenarios, groups of five prefills and five decodes,
one gateway that hears everybody and has every request. Load per instance is the same at every size, so only the size
differs. What an event costs is told in executed lines of Python, which are the same on every machine; `python -m bench
simulation` tells seconds.
"""

from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Final

from shared.policy.dispatch_events import DispatchRules
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.engine.roofline import DEVICES, SHAPES, calculated
from simulator.experiments.findings import Cell, Findings, Table
from simulator.experiments.registry import Experiment
from simulator.measures.lines import lines
from simulator.measures.tally import Objectives, Tally
from simulator.workload.arrival import Arrival
from simulator.workload.synthetic import lognormal

SCENARIOS: Final = 20
ROLE: Final = 5
"""Prefills, and decodes, of a group."""
GATEWAYS: Final = 1
"""One, which sees the whole fleet and has every request."""
LOAD: Final = 2.4
"""Requests per second of an instance: six tenths of what its prefills can do."""
HEARTBEAT_S: Final = 5.0
OBJECTIVES: Final = Objectives(ttft=1.0, tpot=0.05)
LENGTHS: Final = lognormal((1020, 4083), (129, 451), most=8192)
LONGEST: Final = 1000
"""Azure's conversations: medians and 95th percentiles, and the longest answer."""
SIZES: Final = (100, 1_000, 10_000)
EACH: Final = 30_000
TRACED: Final = 400
"""Events of which the lines are counted."""
MILLION: Final = 1_000_000


def spec(instances: int) -> FleetSpec:
    """So many instances, in groups of ten."""
    profile = calculated(SHAPES["llama-70b"], DEVICES["ascend-910b"], 8)
    groups, scenarios = instances // (2 * ROLE), min(SCENARIOS, instances // (2 * ROLE))
    parts = [[f"g{one}" for one in range(groups) if one % scenarios == which] for which in range(scenarios)]
    return FleetSpec(
        tuple(
            ScenarioSpec(f"s{which}", tuple(GroupSpec(name, ROLE, ROLE, profile) for name in names), prefill_slots=4)
            for which, names in enumerate(parts)
        ),
        gateways=GATEWAYS,
        rules=DispatchRules(max_open=1 << 30, max_waiting=1 << 20),
        heartbeat_s=HEARTBEAT_S,
    )


def arrivals(seed: int, instances: int) -> Iterator[Arrival]:
    """Requests without end, to each scenario alike."""
    rng, at, rate = Random(f"scale {seed}"), 0.0, LOAD * instances
    scenarios = min(SCENARIOS, instances // (2 * ROLE))
    while True:
        at += rng.expovariate(rate)
        prompt, answer = LENGTHS(rng)
        yield Arrival(at, prompt, min(answer, LONGEST), scenario=f"s{rng.randrange(scenarios)}")


def measured(seed: int, instances: int, requests: int) -> tuple[Tally, Simulation, float]:
    """Run so many requests; figures, the simulation, and lines per event in the middle of it."""
    tally = Tally(OBJECTIVES)
    simulation = Simulation(spec(instances), tally)
    simulation.feed(islice(arrivals(seed, instances), requests))
    middle = 0.5 * requests / (LOAD * instances)
    simulation.run(middle)
    clock, before = simulation.clock, simulation.clock.happened
    per_s = before / middle
    each = lines(lambda: simulation.run(clock.now + TRACED / per_s)) / max(1, clock.happened - before)
    simulation.run()
    return tally, simulation, each


def run(seed: int) -> Findings:
    """The three sizes."""
    rows: list[tuple[Cell, ...]] = []
    costs = []
    for instances in SIZES:
        tally, simulation, each = measured(seed, instances, EACH)
        figures = tally.all
        costs.append(each)
        told = (figures.requests, simulation.clock.happened / EACH, each)
        rows.append((instances, *told, 1000 * figures.ttft.percentile(50), 1000 * figures.tpot.percentile(50)))
    head = ("instances", "requests", "events per request", "lines per event", "TTFT p50 ms", "TPOT p50 ms")
    says = (
        f"An event takes {costs[0]:.0f} executed lines of Python at {SIZES[0]} instances and {costs[-1]:.0f} at "
        f"{SIZES[-1]:,}: {costs[-1] / costs[0]:.2f} times as many. Events per request grow with the heartbeats "
        "that fall between the same number of requests."
    )
    chart = {
        "title": "What an event costs",
        "subtitle": "Executed lines of Python per event: deciders, workers, clock and all",
        "x": {"label": "instances", "log": True},
        "y": {"label": "lines"},
        "lines": [{"name": "lines", "points": [[n, cost] for n, cost in zip(SIZES, costs, strict=True)]}],
    }
    return Findings(Table(head, tuple(rows)), {"": chart}, says)


def million(seed: int) -> Findings:
    """A million requests at ten thousand instances."""
    tally = Tally(OBJECTIVES)
    simulation = Simulation(spec(SIZES[-1]), tally)
    simulation.feed(islice(arrivals(seed, SIZES[-1]), MILLION))
    simulation.run()
    figures = tally.all
    rows: list[tuple[Cell, ...]] = [
        ("requests", figures.requests),
        ("ended well %", 100 * figures.success),
        ("simulated seconds", simulation.clock.now),
        ("events", simulation.clock.happened),
        ("messages", simulation.bus.said),
        ("tokens", round(figures.tokens)),
        ("TTFT p50 / p99 ms", f"{1000 * figures.ttft.percentile(50):.1f} / {1000 * figures.ttft.percentile(99):.1f}"),
        ("TPOT p50 / p99 ms", f"{1000 * figures.tpot.percentile(50):.2f} / {1000 * figures.tpot.percentile(99):.2f}"),
        ("offers per request", figures.offers_each),
    ]
    return Findings(Table(("10,000 instances", "a million requests"), tuple(rows)))


EXPERIMENTS: Final = (
    Experiment("scale", "What an event costs at 100 to 10,000 instances", run),
    Experiment("million", "A million requests at ten thousand instances", million),
)
