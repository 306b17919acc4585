"""Rejection when there is more than can be served: late, by the load of the moment, by prediction, and Baton's.

A burst of two and a half minutes at twice what the decodes are capable of, after Mooncake's replay at twice its speed.
Late: everybody waits until its TTFT deadline; whoever missed it has cost a place in the line, or a prefill. Baton's own
is no rejection by decode load at all: a slot is held until the KV has left, so full decodes fill the slots, the
gateway's wait grows, and who could not get a slot in time by the pace of that wait is refused at arrival.
"""

from collections.abc import Iterator
from random import Random
from statistics import pstdev
from typing import Any, Final

from simulator.baselines.connections import SLOTS
from simulator.baselines.rejection import ByLoad, ByPrediction
from simulator.cluster.gateway import Gateway
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.experiments.findings import Cell, Findings, Table
from simulator.experiments.loads import lengths
from simulator.experiments.pair import BATCH, profile
from simulator.measures.outcome import Outcome
from simulator.measures.tally import Objectives, Tally
from simulator.workload.arrival import Arrival
from simulator.workload.tides import tide

NAME = "rejection"
TITLE = "Rejection: late, by load, by prediction, by slots"
PREFILLS, DECODES = 3, 4
PROMPT, ANSWER = 6000, 800
"""Long both ways: prompts take a while, and what they bring to the decodes is seen late."""
SECONDS: Final = 240.0
BURST: Final = (40.0, 190.0)
TIMES: Final = 2.0
USUAL: Final = 0.7
TTFT_S, TPOT_S = 3.0, 0.05
SAMPLE_S: Final = 1.0


def capable() -> float:
    """Requests per second that the scarcer side can do."""
    timing = profile().timing
    prefill = PREFILLS / timing.prefill_s(PROMPT, 0)
    return min(prefill, DECODES * BATCH / (ANSWER * timing.step_s(BATCH, BATCH * (PROMPT + ANSWER / 2))))


def arrivals(seed: int) -> Iterator[Arrival]:
    """Usual load, then the burst, then usual load."""
    rng, rate = Random(f"rejection {seed}"), capable()

    def now(at: float) -> float:
        return rate * (TIMES if BURST[0] <= at < BURST[1] else USUAL)

    for at in tide(now, TIMES * rate, SECONDS, seed=seed):
        yield Arrival(at, lengths(rng, PROMPT), lengths(rng, ANSWER))


def measured(seed: int, gateway: type[Gateway], settings: dict[str, Any]) -> tuple[Tally, list[list[float]], float]:
    """Figures, the decodes' streams over time, and prompts that were computed in vain."""
    spec = FleetSpec((ScenarioSpec("chat", (GroupSpec("main", PREFILLS, DECODES, profile()),), **settings),))
    tally, series = Tally(Objectives(TTFT_S, TPOT_S)), list[list[float]]()
    vain = [0]

    def look(outcome: Outcome) -> None:
        late = outcome.first is not None and outcome.first - outcome.arrived > TTFT_S
        vain[0] += late or (outcome.code is not None and outcome.attempts > 0)

    simulation = Simulation(spec, tally, gateway=gateway)
    simulation.ended.append(look)

    def sample() -> None:
        streams = sum(len(decode.batch) for decode in simulation.decodes.values())
        series.append([simulation.clock.now, 100 * streams / (DECODES * BATCH)])
        simulation.clock.after(SAMPLE_S, sample)

    sample()
    simulation.feed(arrivals(seed))
    simulation.run()
    return tally, [point for point in series if point[0] <= SECONDS], vain[0]


def run(seed: int) -> Findings:
    """The four of them."""
    late = {"queue_s": 600.0, "first_token_s": TTFT_S, "prefill_slots": SLOTS}
    early = {"queue_s": 600.0, "first_token_s": 60.0, "prefill_slots": SLOTS}
    in_time = TTFT_S - 3 * profile().timing.prefill_s(PROMPT, 0)  # a slot must come while the prompt can be computed
    slots = {"queue_s": in_time, "first_token_s": 60.0, "prefill_slots": 2}
    ways: tuple[tuple[str, type[Gateway], dict[str, Any]], ...] = (
        ("late", Gateway, late),
        ("by load", ByLoad, early),
        ("predicted", ByPrediction, early),
        ("slots (Baton)", Gateway, slots),
    )
    rows: list[tuple[Cell, ...]] = []
    lines = []
    good: dict[str, float] = {}
    swing: dict[str, float] = {}
    for name, gateway, settings in ways:
        tally, series, vain = measured(seed, gateway, settings)
        figures = tally.all
        settled = [value for at, value in series if BURST[0] + 40 <= at < BURST[1]]
        swing[name], good[name] = pstdev(settled), 100 * figures.attainment
        refused = figures.requests - figures.codes.get(None, 0)
        rows.append((name, figures.requests, refused, vain, good[name], figures.goodput, swing[name]))
        lines.append({"name": name, "points": series[:: max(1, len(series) // 80)]})
    head = (
        "rejection",
        "requests",
        "refused",
        "computed in vain",
        "within both %",
        "good/s",
        "load's deviation, points",
    )
    says = (
        f"In a burst of {TIMES:g} times the capability {good['late']:.0f} % are served within {TTFT_S:g} s and "
        f"{1000 * TPOT_S:.0f} ms by late rejection, {good['by load']:.0f} % by the load of the moment, "
        f"{good['predicted']:.0f} % by prediction and {good['slots (Baton)']:.0f} % by slots. The decodes' load swings "
        f"by {swing['by load']:.1f} points under the load of the moment, {swing['predicted']:.1f} under prediction and "
        f"{swing['slots (Baton)']:.1f} under slots."
    )
    chart = {
        "title": "Who lets in by what it sees too late, swings",
        "subtitle": "Streams at the decodes, % of their places, through a burst of 150 s",
        "x": {"label": "seconds"},
        "y": {"label": "%"},
        "lines": lines,
    }
    return Findings(Table(head, tuple(rows)), {"": chart}, says)
