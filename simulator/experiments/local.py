"""Conditional local prefill: short prompts computed at a decode when no prefill has room.

Conditions: six instances at the ratio that the equation gives, Poisson arrivals with Azure's lengths, no prefix cache,
admission as the product has it; a prompt at a decode is computed in chunks beside what is decoded,
so every stream there waits for the longer steps. The decode is asked only when no prefill has a free slot: how many
slots a prefill has decides how early that is. Loads are shares of what the prefills can compute.
"""

from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any, Final

from shared.policy.routes import RouteRules
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.engine.kept import read_profile
from simulator.engine.profile import Profile
from simulator.experiments.findings import Cell, Findings, Table
from simulator.experiments.goodput import Pairs
from simulator.experiments.lengths import of_trace
from simulator.measures.distribution import Distribution
from simulator.measures.outcome import Outcome
from simulator.workload.arrival import Arrival

NAME = "local"
TITLE = "Conditional local prefill"
SPLITS: Final = {"Azure conv": (3, 3), "Azure code": (5, 1)}
"""Prefills and decodes."""
LOADS: Final = (0.7, 0.95, 1.1)
SLOTS: Final = (2, 8)
"""Of a prefill; 8 are the product's default."""
THRESHOLDS: Final = (0, 256, 512, 1024, 2048)
"""Tokens; 0: none, the product's default."""
REQUESTS: Final = 1000
QUEUE_S: Final = 10.0
SUGGESTED: Final = 512
"""Tokens; a default that would pay, by these runs."""


@dataclass(slots=True)
class Took:
    """What one run's requests took."""

    ttft: Distribution
    tpot: Distribution
    requests: int = 0
    local: int = 0
    lost: int = 0

    def __call__(self, outcome: Outcome) -> None:
        """Look at one."""
        self.requests += 1
        self.lost += not outcome.ok
        self.local += bool(outcome.ok and outcome.decode and not outcome.prefill)
        if outcome.ttft is not None:
            self.ttft.add(outcome.ttft)
        if outcome.ok and outcome.tpot is not None:
            self.tpot.add(outcome.tpot)

    def row(self) -> tuple[float, ...]:
        """Local %, lost %, then in ms: TTFT at 50 and 99 %, TPOT at 50 and 99 %."""
        local, lost = 100 * self.local / self.requests, 100 * self.lost / self.requests
        ms = [1000 * of.percentile(p) for of in (self.ttft, self.tpot) for p in (50.0, 99.0)]
        return (local, lost, *ms)


@cache
def profile() -> Profile:
    """The instance."""
    return read_profile("h200-llama-8b")


def capable(pairs: Pairs, prefills: int) -> float:
    """Requests per second that the prefills can compute."""
    return prefills * len(pairs) / sum(profile().timing.prefill_s(tokens, 0) for tokens, _ in pairs)


def measured(  # noqa: PLR0917
    pairs: Pairs, split: tuple[int, int], slots: int, load: float, threshold: int, seed: int, number: int = REQUESTS
) -> Took:
    """One run; the first third is not counted. Lengths and gaps are the same at each load and threshold."""
    group = GroupSpec("main", *split, profile())
    others: dict[str, Any] = {"prefill_slots": slots, "queue_s": QUEUE_S, "routes": RouteRules(local_tokens=threshold)}
    rate, rng, at, arrivals = load * capable(pairs, split[0]), Random(f"local {seed}"), 0.0, list[Arrival]()
    for _ in range(number):
        at += rng.expovariate(1.0)
        arrivals.append(Arrival(at / rate, *pairs[rng.randrange(len(pairs))]))
    from_s, took = arrivals[number // 3].at, Took(Distribution(), Distribution())
    simulation = Simulation(
        FleetSpec((ScenarioSpec("chat", (group,), **others),)),
        lambda outcome: took(outcome) if outcome.arrived >= from_s else None,
    )
    simulation.feed(arrivals)
    simulation.run()
    return took


def run(seed: int, number: int = REQUESTS) -> Findings:
    """All loads, thresholds and slots."""
    rows: list[tuple[Cell, ...]] = []
    lines: dict[str, list[list[float]]] = {}
    found: dict[tuple[str, int, float, int], tuple[float, ...]] = {}
    for name, split in SPLITS.items():
        pairs = of_trace(name, seed, number)
        for slots in SLOTS:
            for load in LOADS:
                for threshold in THRESHOLDS:
                    row = measured(pairs, split, slots, load, threshold, seed, number).row()
                    found[name, slots, load, threshold] = row
                    rows.append((name, slots, f"{load:.0%}", threshold, *row))
                    if slots == SLOTS[0]:
                        lines.setdefault(f"{name}, {load:.0%}", []).append([threshold, row[TTFT_99]])
    chart = {
        "title": "A prompt at the decode",
        "subtitle": f"Time to the first token at 99 %, by load of the prefills; {SLOTS[0]} slots each",
        "x": {"label": "computed at a decode below, tokens"},
        "y": {"label": "ms", "log": True},
        "lines": [{"name": name, "points": points} for name, points in lines.items()],
    }
    return Findings(Table(HEAD, tuple(rows)), {"": chart}, _says(found))


HEAD: Final = (
    "lengths",
    "slots",
    "load",
    "below",
    "at a decode %",
    "lost %",
    "TTFT p50 ms",
    "p99",
    "TPOT p50 ms",
    "p99",
)
TTFT_99, TPOT_99 = 3, 5
"""Places in `Took.row`."""


def _says(found: dict[tuple[str, int, float, int], tuple[float, ...]]) -> str:
    told = []
    for name in SPLITS:
        without, with_it, most = (found[name, SLOTS[0], 0.95, below] for below in (0, SUGGESTED, THRESHOLDS[-1]))
        told.append(
            f"{name}: with {SUGGESTED} tokens at 95 % load {with_it[0]:.0f} % of the hand-offs are spared, TTFT "
            f"at 99 % goes from {without[TTFT_99]:.0f} to {with_it[TTFT_99]:.0f} ms and TPOT at 99 % from "
            f"{without[TPOT_99]:.1f} to {with_it[TPOT_99]:.1f} ms ({most[TPOT_99]:.1f} with {THRESHOLDS[-1]})"
        )
    eight = found["Azure conv", SLOTS[1], 0.7, THRESHOLDS[-1]][0]
    return (
        f"{'; '.join(told)}. It takes effect only when no prefill has a slot: with {SLOTS[1]} slots each and Azure "
        f"conv at 70 % load {eight:.1f} % of the prompts go to a decode whatever the threshold: it is room for a peak, "
        f"not a way to spare transfers. Where decodes have room, {SUGGESTED} is a good default; where they are few "
        "(Azure code, five prefills before one decode), what TTFT gains in a peak the streams pay in TPOT."
    )
