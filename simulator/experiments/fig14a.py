"""P/D-Serve's figure 14a: the success within a TTFT objective, by load, of rejection against queues at the prefills.

Prompts of a scenario are not alike: most are short chats with long answers, some long texts with hardly any. A queue
behind a long prompt, chosen by connections that cover decode, is what the first version suffered from. The same fleet,
arrivals and objective for both; four gateways.
"""

from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Any, Final

from simulator.baselines.connections import SLOTS, FewestConnections
from simulator.cluster.gateway import Gateway
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.engine.kept import read_profile
from simulator.engine.profile import Profile
from simulator.experiments.findings import Cell, Findings, Table
from simulator.measures.series import Series
from simulator.measures.tally import Objectives, Tally
from simulator.workload.arrival import Arrival

NAME = "fig14a"
TITLE = "Success within the TTFT objective by load: rejection and queues"
PREFILLS, DECODES = 8, 8
GATEWAYS: Final = 4
SECONDS: Final = 60.0
LONG_SHARE: Final = 0.3
CHAT, TEXT = (600, 1500), (8000, 20)
"""Tokens in and out."""
FULL: Final = 0.9
"""Of what the prefills are capable of, at five times the load A."""
LOADS: Final = (1, 2, 3, 4, 5)
OBJECTIVE: Final = 3.0
"""Times as long as the longest prompt takes alone."""


@cache
def profile() -> Profile:
    """The instance."""
    return read_profile("h200-llama-8b")


def mean_s() -> float:
    """T_p on average."""
    timing = profile().timing
    return (1 - LONG_SHARE) * timing.prefill_s(CHAT[0], 0) + LONG_SHARE * timing.prefill_s(TEXT[0], 0)


def arrivals(seed: int, load: int) -> Iterator[Arrival]:
    """Poisson, at so many times A."""
    rng, at = Random(f"forwarding {seed}"), 0.0
    rate = FULL * load / max(LOADS) * PREFILLS / mean_s()
    while (at := at + rng.expovariate(rate)) < SECONDS:
        prompt, answer = TEXT if rng.random() < LONG_SHARE else CHAT
        yield Arrival(at, round(prompt * rng.uniform(0.8, 1.2)), max(1, round(answer * rng.uniform(0.8, 1.2))))


def measured(seed: int, load: int, slots: int, gateway: type[Gateway], objective_s: float) -> tuple[float, float]:
    """Success overall and in the worst ten seconds. Nobody waits longer than the objective."""
    group = GroupSpec("main", PREFILLS, DECODES, profile())
    settings: dict[str, Any] = {"prefill_slots": slots, "queue_s": objective_s, "first_token_s": 60.0}
    spec = FleetSpec((ScenarioSpec("chat", (group,), **settings),), gateways=GATEWAYS)
    objectives = Objectives(ttft=objective_s)
    tally, series = Tally(objectives), Series(10.0, objectives)
    simulation = Simulation(spec, tally, gateway=gateway)
    simulation.ended.append(series)
    simulation.feed(arrivals(seed, load))
    simulation.run()
    return tally.all.attainment, min(share for _, share in series.attainment())


def run(seed: int) -> Findings:
    """Both designs at each load."""
    objective_s = OBJECTIVE * profile().timing.prefill_s(TEXT[0], 0)
    rows: list[tuple[Cell, ...]] = []
    lines: dict[str, list[list[float]]] = {"rejection": [], "queues at prefills": []}
    for load in LOADS:
        new = measured(seed, load, 1, Gateway, objective_s)
        old = measured(seed, load, SLOTS, FewestConnections, objective_s)
        rows.append((f"{load} A", *(100 * share for share in (*new, *old))))
        lines["rejection"].append([load, 100 * new[0]])
        lines["queues at prefills"].append([load, 100 * old[0]])
    new_4, new_5 = (points[1] for points in lines["rejection"][3:])
    old_4, old_5 = (points[1] for points in lines["queues at prefills"][3:])
    head = ("load", "rejection %", "worst 10 s %", "queues %", "worst 10 s %")
    return Findings(
        Table(head, tuple(rows)),
        {"": _chart(objective_s, lines)},
        f"At 4 A {new_4:.1f} % have their first token in time with rejection and {old_4:.1f} % with queues; at 5 A "
        f"{new_5:.1f} and {old_5:.1f} %: {new_5 - old_5:.0f} points, where the paper has 42 at most.",
    )


def _chart(objective_s: float, lines: dict[str, list[list[float]]]) -> dict[str, Any]:
    return {
        "title": "Wait where you can still go anywhere",
        "subtitle": f"First tokens within {objective_s:.2f} s, of all; 5 A is {FULL:.0%} of what the prefills can do",
        "x": {"label": "load, A"},
        "y": {"label": "%"},
        "lines": [{"name": name, "points": points} for name, points in lines.items()],
    }
