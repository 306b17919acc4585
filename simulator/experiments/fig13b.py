"""P/D-Serve's figure 13b: a running group that is brought to its ratio, and to another one when the mix turns.

Twelve instances that begin at 3:9 under a closed loop, steered by the product's own controller with times that fit a
run of minutes: it measures over 10 s, a step must be promised for 5 s, and 10 s of rest follow one. A member that
changes its role finishes what it holds and loads its model. Halfway the answers become a third as long. Throughput is
told beside that of the best fixed ratio under either mix, which a search over all of them finds. See `pair`.
"""

from collections.abc import Iterator
from itertools import count
from typing import Final

from shared.policy.steering.rules import RatioRules, SteeringRules
from simulator.cluster.clients import ClosedLoop
from simulator.cluster.monitor import Monitor, MonitorSpec
from simulator.cluster.simulation import Simulation
from simulator.experiments.findings import Cell, Findings, Table
from simulator.experiments.loads import closed, requests
from simulator.experiments.pair import PROMPT, answer, spec, unit
from simulator.measures.series import Series
from simulator.workload.arrival import Arrival

NAME = "fig13b"
TITLE = "The controller brings a wrong ratio to the right one, and follows the mix"
INSTANCES: Final = 12
BEGIN: Final = 3
CLIENTS: Final = 320
TURN_S: Final = 200.0
END_S: Final = 400.0
WIDTH_S: Final = 10.0
SHORTER: Final = 3
RATIOS: Final = range(4, 11)
"""Prefills of the fixed ones that are tried."""
RULES: Final = RatioRules(window_s=10.0, hold_s=5.0, rest_s=10.0)


def best(seed: int, tokens: int) -> tuple[int, float]:
    """The fixed ratio that carries most of this mix, by its prefills, and how much."""
    carried = {}
    for prefill in RATIOS:
        fleet = spec(prefill, INSTANCES - prefill)
        figures = closed(fleet, requests(seed, PROMPT, tokens), CLIENTS, warm_s=8.0, seconds=12.0).all
        carried[prefill] = figures.throughput / unit()
    prefill = max(carried, key=lambda one: carried[one])
    return prefill, carried[prefill]


def run(seed: int) -> Findings:
    """One run, and the fixed ratios beside it."""
    series = Series(WIDTH_S)
    simulation = Simulation(spec(BEGIN, INSTANCES - BEGIN), series)
    rules = SteeringRules("chat", BEGIN, INSTANCES - BEGIN, ratio=RULES)
    monitor = Monitor(simulation, MonitorSpec(steering=(rules,)))
    ratios: list[list[float]] = []

    def look() -> None:
        (group,) = simulation.map("chat").groups
        ratios.append([simulation.clock.now, float(len(group.prefill))])
        simulation.clock.after(WIDTH_S, look)

    look()
    ClosedLoop(simulation, _turning(seed, simulation), CLIENTS, ramp_s=5.0)
    simulation.run(END_S)
    fixed = best(seed, answer()), best(seed, answer() // SHORTER)
    carried = [[at, rate / unit()] for at, rate in series.throughput()]
    steps = [(at, reason.text.split(":")[0]) for at, _, reason in monitor.told if reason.kind == "ratio"]
    sizes = {at: round(prefills) for at, prefills in ratios}
    rows: list[tuple[Cell, ...]] = [
        (round(at), f"{_before(sizes, at)}:{INSTANCES - _before(sizes, at)}", _around(carried, at)) for at, _ in steps
    ]
    settled = _around(carried, TURN_S - WIDTH_S), _around(carried, END_S - 2 * WIDTH_S)
    final = _before(sizes, TURN_S), _before(sizes, END_S)
    rows += [
        (round(TURN_S), f"{final[0]}:{INSTANCES - final[0]}", settled[0]),
        (round(END_S), f"{final[1]}:{INSTANCES - final[1]}", settled[1]),
    ]
    says = " ".join(
        f"Under {mix} answers the controller comes from {begin}:{INSTANCES - begin} to {end}:{INSTANCES - end} and "
        f"{got:.2f} units, {got / most:.0%} of the best fixed ratio ({ratio}:{INSTANCES - ratio})."
        for mix, begin, end, got, (ratio, most) in (
            ("usual", BEGIN, final[0], settled[0], fixed[0]),
            ("short", final[0], final[1], settled[1], fixed[1]),
        )
    )
    chart = {
        "title": "The ratio follows",
        "subtitle": f"Throughput of twelve instances in units of figure 12a; at {TURN_S:.0f} s answers become short",
        "x": {"label": "seconds"},
        "y": {"label": "units"},
        "lines": [
            {"name": "throughput", "points": [point for point in carried if point[0] < END_S]},
            {"name": "prefills", "points": ratios},
            {"name": "best fixed", "points": _levels(fixed), "dashed": True},
        ],
    }
    return Findings(Table(("at s", "ratio", "throughput then"), tuple(rows)), {"": chart}, says)


def _turning(seed: int, simulation: Simulation) -> Iterator[Arrival]:
    usual, short = requests(seed, PROMPT, answer()), requests(seed, PROMPT, answer() // SHORTER)
    for _ in count():
        yield next(usual if simulation.clock.now < TURN_S else short)


def _levels(fixed: tuple[tuple[int, float], tuple[int, float]]) -> list[list[float]]:
    (_, usual), (_, short) = fixed
    return [[0.0, usual], [TURN_S, usual], [TURN_S + 0.1, short], [END_S, short]]


def _before(sizes: dict[float, int], at: float) -> int:
    """Prefills at the last look before that moment."""
    return [prefills for moment, prefills in sizes.items() if moment <= at][-1]


def _around(carried: list[list[float]], at: float) -> float:
    """Throughput of the two windows about that moment."""
    near = [rate for moment, rate in carried if abs(moment - at) <= WIDTH_S]
    return sum(near) / len(near)
