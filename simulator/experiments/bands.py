"""ScaleLLM's bands of concurrency: which split of the model is best at which number of streams, and who finds out.

First the paper's figure 8: the same eight devices as one TP8, two TP4 or four TP2, aggregated as there, in a closed
loop. Profiles are `simulator.engine.strategies`': a roofline with three numbers fitted to that figure. Then a fleet
that holds all three side by side and a load that rises and falls, against fleets of one strategy with as many devices.
There each group has a prefill, because in Baton a strategy is chosen with the prefill; all fleets have the same ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from random import Random
from typing import Any, Final

from simulator.baselines.aggregated import aggregated
from simulator.cluster.batch import CHUNK
from simulator.cluster.clients import ClosedLoop
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.engine.strategies import ALL, CONCURRENCY, DEGREES, FIGURE_8, strategy
from simulator.experiments.banding import Banding
from simulator.experiments.findings import Cell, Findings, Table
from simulator.experiments.loads import lengths
from simulator.measures.distribution import Distribution
from simulator.measures.outcome import Outcome
from simulator.workload.arrival import Arrival
from simulator.workload.mixing import changed
from simulator.workload.tides import sinus, tide

NAME = "bands"
TITLE = "Strategy bands: which split of the model at which concurrency"
PROMPT, ANSWER = 200, 230
"""Tokens on average: OpenOrca's questions, answers of at most 512; the paper gives neither mean."""
LONGEST: Final = 512
WAITS: Final[dict[str, Any]] = {"queue_s": 600.0, "first_token_s": 600.0, "timeout_s": 3600.0}
PAPER: Final = {8: (1, 64), 4: (64, 512), 2: (512, 0)}
"""The paper's bands: the streams from and below which each degree is to be asked first."""
SLOTS: Final = 2
"""Of a prefill in the fleets."""
PEAK: Final = 90.0
"""Requests per second."""
QUIET: Final = 0.02
"""Of the peak."""
TIDE_S: Final = 150.0
NEAR: Final = 0.1
"""Of the paper's figure."""


def requests(seed: int) -> Iterator[Arrival]:
    """Requests without end."""
    rng = Random(f"bands {seed}")
    while True:
        yield Arrival(0.0, lengths(rng, PROMPT), min(LONGEST, max(2, lengths(rng, ANSWER))))


def saturated(degree: int, clients: int, seed: int, seconds: float) -> float:
    """Tokens/s of one strategy in a closed loop, aggregated, in the last two thirds of so many seconds."""
    firsts, begin = 0, seconds / 3

    def count(outcome: Outcome) -> None:
        nonlocal firsts
        firsts += outcome.ended >= begin  # as many begin as end

    simulation = Simulation(aggregated(strategy(degree), ALL // degree, CHUNK, **WAITS), count)
    ClosedLoop(simulation, requests(seed), clients, ramp_s=seconds / 6)
    simulation.run(begin)
    before = generated(simulation)
    simulation.run(seconds)
    return (generated(simulation) - before + firsts) / (seconds - begin)


def generated(simulation: Simulation) -> int:
    """Tokens that came out of all batches so far: those of requests that are not at their end, too."""
    return sum(decode.batch.tokens for decode in simulation.decodes.values())


# ---- a fleet of all three


@dataclass(frozen=True, slots=True)
class Fleet:
    """Degrees with the replicas of each, and the ranges that `Bands` is given; none: nobody is asked first."""

    name: str
    replicas: dict[int, int]
    ranges: dict[int, tuple[int, int]] | None = None


ALL_THREE: Final = {degree: ALL // degree for degree in DEGREES}
FLEETS: Final = (
    *(Fleet(f"{3 * ALL // degree} TP{degree}", {degree: 3 * ALL // degree}) for degree in DEGREES),
    Fleet("all three, fewest streams", ALL_THREE),
    Fleet("all three, the paper's bands", ALL_THREE, PAPER),
    Fleet("all three, learnt", ALL_THREE, dict.fromkeys(DEGREES, (0, 0))),
)


@dataclass(slots=True)
class Took:
    """What requests took that came in one part of the tide, and the tokens/s of its length."""

    ttft: Distribution
    tpot: Distribution
    tokens_s: float = 0.0

    def take(self, outcome: Outcome) -> None:
        """Look at one."""
        if outcome.ttft is not None:
            self.ttft.add(outcome.ttft)
        if outcome.ok and outcome.tpot is not None:
            self.tpot.add(outcome.tpot)


def spec(fleet: Fleet) -> FleetSpec:
    """Each group with a prefill for each eight devices that decode: those of TP4."""
    groups = tuple(
        GroupSpec(f"tp{degree}", degree * number // ALL, number, strategy(4), strategy(degree), f"tp{degree}")
        for degree, number in fleet.replicas.items()
    )
    return FleetSpec((ScenarioSpec("chat", groups, prefill_slots=SLOTS, **WAITS),))


def tidal(fleet: Fleet, seed: int, peak: float, seconds: float) -> tuple[Took, Took]:
    """The quiet parts of a tide, its first and last sixth, and the busy third in the middle."""
    quiet, busy = (Took(Distribution(), Distribution()) for _ in range(2))

    def hear(outcome: Outcome) -> None:
        away = abs(outcome.arrived / seconds - 0.5)
        if away < 1 / 6:
            busy.take(outcome)
        elif away >= 1 / 3:
            quiet.take(outcome)

    simulation = Simulation(spec(fleet), hear)
    if fleet.ranges is not None:
        Banding(simulation, "chat", {f"tp{degree}": edges for degree, edges in fleet.ranges.items()})
    rate = sinus(QUIET * peak, peak, peak_h=12.0, day_s=seconds)
    times, endless = tide(rate, peak, seconds, seed=seed), requests(seed)
    simulation.feed(changed(next(endless), at) for at in times)
    marks: list[int] = []
    for sixth in (1, 2, 4, 5, 6):
        simulation.clock.at(seconds * sixth / 6, lambda: marks.append(generated(simulation)))
    simulation.run(seconds)
    simulation.run()
    busy.tokens_s = (marks[2] - marks[1]) / (seconds / 3)
    quiet.tokens_s = (marks[0] + marks[4] - marks[3]) / (seconds / 3)
    return quiet, busy


# ---- how it is told


def run(seed: int, *, seconds: float = 15.0, tide_s: float = TIDE_S) -> Findings:
    """Figure 8, and the fleets."""
    curves = {degree: [saturated(degree, clients, seed, seconds) for clients in CONCURRENCY] for degree in DEGREES}
    took = {fleet.name: tidal(fleet, seed, PEAK, tide_s) for fleet in FLEETS}
    rows: list[tuple[Cell, ...]] = []
    for place, clients in enumerate(CONCURRENCY):
        for degree in DEGREES:
            rate, paper = curves[degree][place], FIGURE_8[degree][place]
            name = f"{ALL // degree} TP{degree}"
            rows.append((f"closed loop of {clients}", name, rate, paper, f"{rate / paper - 1:+.0%}", "", "", ""))
    for name, parts in took.items():
        for part, of in zip(("quiet", "busy"), parts, strict=True):
            took_s = (of.ttft.percentile(99.0), of.tpot.percentile(50.0), of.tpot.percentile(99.0))
            rows.append((part, name, of.tokens_s, "", "", *(1000 * one for one in took_s)))
    return Findings(Table(HEAD, tuple(rows)), {"": _chart(curves)}, _says(curves, took))


HEAD: Final = ("load", "devices as", "tokens/s", "paper", "off", "TTFT p99 ms", "TPOT p50 ms", "p99")


def winners(curves: Mapping[int, Sequence[float]]) -> list[int]:
    """The degree with the most tokens/s at each concurrency."""
    return [max(DEGREES, key=lambda degree: curves[degree][place]) for place in range(len(CONCURRENCY))]


def banded(curves: Mapping[int, Sequence[float]], place: int) -> float:
    """Tokens/s of whom the paper's bands choose, as a share of the best one's."""
    chosen = next(
        d for d, (low, high) in PAPER.items() if low <= CONCURRENCY[place] and (CONCURRENCY[place] < (high or inf))
    )
    return curves[chosen][place] / max(curves[degree][place] for degree in DEGREES)


def _says(curves: Mapping[int, Sequence[float]], took: Mapping[str, tuple[Took, Took]]) -> str:
    off = [abs(curves[d][n] / FIGURE_8[d][n] - 1) for d in DEGREES for n in range(len(CONCURRENCY))]
    near = sum(1 for one in off if one <= NEAR)
    best = ", ".join(f"TP{degree} at {clients}" for clients, degree in zip(CONCURRENCY, winners(curves), strict=True))
    at_256 = CONCURRENCY.index(256)
    quiet = {name: 1000 * parts[0].tpot.percentile(50.0) for name, parts in took.items()}
    busy = {name: 1000 * parts[1].tpot.percentile(50.0) for name, parts in took.items()}
    told = "; ".join(f"{name} {quiet[name]:.1f} and {busy[name]:.1f}" for name in took)
    return (
        f"{near} of {len(off)} points of figure 8 are met within {NEAR:.0%}, the worst is off by {max(off):.0%}. Most "
        f"tokens/s: {best}. The paper's bands bring {banded(curves, at_256):.0%} of the best at 256 (by its own figure "
        f"{banded(FIGURE_8, at_256):.0%}): 512 is too late. In a tide of up to {PEAK:.0f} requests/s over 24 devices "
        f"the median TPOT is, quiet and busy, in ms: {told}; the least {min(quiet, key=lambda name: quiet[name])} and "
        f"{min(busy, key=lambda name: busy[name])}. To prefer a strategy is to leave the other devices idle: with the "
        "same devices a band can win only against those that spread over the wrong ones. Bands pay where the nodes "
        "that are not asked serve somebody else meanwhile."
    )


def _chart(curves: Mapping[int, Sequence[float]]) -> dict[str, Any]:
    lines: list[dict[str, Any]] = []
    for degree, points in curves.items():
        name = f"{ALL // degree} TP{degree}"
        lines.append({"name": name, "points": [[c, rate] for c, rate in zip(CONCURRENCY, points, strict=True)]})
        paper = [[c, rate] for c, rate in zip(CONCURRENCY, FIGURE_8[degree], strict=True)]
        lines.append({"name": f"{name}, paper", "points": paper, "dashed": True})
    return {
        "title": "Eight devices, three ways to split the model",
        "subtitle": "Mixtral 8x7B in 8 bits on H100, in a closed loop; dashed: ScaleLLM's figure 8",
        "x": {"label": "concurrency", "log": True},
        "y": {"label": "tokens/s"},
        "lines": lines,
    }
