"""The simulator against real clusters: recorded runs of real processes, simulated again with the same settings.

The real side is gateway, prefills, decodes, monitor, NATS and Redis with the sim engine, whose computing takes the time
that its options say; so what is validated is everything but the profile: forwarding, slots, hand-offs, batches, queues.
Each load ran several times, and all its runs are taken together: no run is nearer to another than chance allows, which
is told, too. `python -m bench validation` records anew. Loads cut from a trace are left out where there are no traces.
"""

from collections.abc import Callable
from typing import Any, Final

from simulator.experiments.findings import Cell, Findings, Table
from simulator.measures.distribution import TENTHS, Distribution
from simulator.validation.loads import LOADS, Load, NoTraces
from simulator.validation.record import Costs, recorded, takes
from simulator.validation.served import Apart, Served, Take, apart, percentiles
from simulator.validation.simulated import simulated

NAME = "validation"
TITLE = "Simulated and real"
CLOSE: Final = 0.05
TIMES: Final[tuple[tuple[str, Callable[[Served], Distribution]], ...]] = (
    ("TTFT", lambda run: run.ttft_ms),
    ("TPOT", lambda run: run.tpot_ms),
)
GREY: Final = "#64748b"
HEAD: Final = ("load", "requests", "figure", "real", "simulated", "apart, %")


def run(seed: int) -> Findings:  # noqa: ARG001  the runs are recorded
    """Each load, both ways."""
    record = recorded()
    costs = Costs(**record["costs"])
    rows: list[tuple[Cell, ...]] = []
    lines: dict[str, list[dict[str, Any]]] = {name: [] for name, _ in TIMES}
    shares: list[Apart] = []
    chance: list[Apart] = []
    absent: list[str] = []
    off: list[str] = []
    for load in LOADS:
        try:
            runs = takes(record, load)
            there, ours = Served.of(runs, load), simulated(load, costs, runs)
        except NoTraces:
            absent.append(load.name)
            continue
        shares.append(apart(ours, there))
        chance += _chance(load, runs)
        off += _off(load, there, ours)
        rows += _rows(load, there, ours)
        for name, of in TIMES:
            simulation = {"points": percentiles(of(ours)), "dashed": True, "colour": GREY}
            lines[name].insert(0, {"name": f"{load.name}, simulated", **simulation})
            lines[name].append({"name": f"{load.name}, real", "points": percentiles(of(there))})
    charts = {name.lower(): _chart(name, of) for name, of in lines.items()}
    return Findings(Table(HEAD, tuple(rows)), charts, _says(shares, chance, off, absent))


def _chance(load: Load, runs: list[Take]) -> list[Apart]:
    """Each real run against the other ones together: what differs though nothing but chance does."""
    others = [Served.of([*runs[:place], *runs[place + 1 :]], load) for place in range(len(runs))]
    return [apart(Served.of([one], load), rest) for one, rest in zip(runs, others, strict=True)]


def _rows(load: Load, there: Served, ours: Served) -> list[tuple[Cell, ...]]:
    figures: list[tuple[str, float, float]] = [
        ("ended well, %", 100 * there.good, 100 * ours.good),
        ("tokens/s", there.tokens_s, ours.tokens_s),
        ("TTFT mean, ms", there.ttft_ms.mean, ours.ttft_ms.mean),
        ("TPOT mean, ms", there.tpot_ms.mean, ours.tpot_ms.mean),
    ]
    for p in (10.0, 50.0, 90.0, 99.0):
        figures.append((f"TTFT p{p:g}, ms", there.ttft_ms.percentile(p), ours.ttft_ms.percentile(p)))
        figures.append((f"TPOT p{p:g}, ms", there.tpot_ms.percentile(p), ours.tpot_ms.percentile(p)))
    return [(load.title, len(there.answers), name, a, b, 100 * (b / a - 1)) for name, a, b in figures]


def _chart(what: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "title": f"{what}, real and simulated",
        "subtitle": "The same requests through real processes and through the simulator, ms",
        "x": {"label": "percentile"},
        "y": {"label": "ms", "log": True},
        "lines": lines,
    }


def _off(load: Load, there: Served, ours: Served) -> list[str]:
    """Each percentile that is not close."""
    found = []
    for name, of in TIMES:
        for (p, one), (_, other) in zip(percentiles(of(ours)), percentiles(of(there)), strict=True):
            if abs(one / other - 1) > CLOSE:
                found.append(f"{load.name} {name} p{p:g} by {100 * (one / other - 1):+.1f} %")
    return found


def _says(shares: list[Apart], chance: list[Apart], off: list[str], absent: list[str]) -> str:
    def most(of: str, among: list[Apart] = shares) -> str:
        return f"{100 * max((abs(getattr(one, of)) for one in among), default=0.0):.1f} %"

    number = len(shares) * len(TIMES) * len(TENTHS)
    names = f" (not {', '.join(off)})" if off else ""
    left = f" Left out for want of traces: {', '.join(absent)}." if absent else ""
    return (
        f"Over {len(shares)} loads the simulated throughput is off by {most('tokens_s')} at most, the mean TTFT by "
        f"{most('ttft_mean')}, the mean TPOT by {most('tpot_mean')}. The area between the curves is {most('ttft')} of "
        f"the mean (TTFT) and {most('tpot')} (TPOT) at most; between one real run and the other ones it is up to "
        f"{most('ttft', chance)} and {most('tpot', chance)}. {number - len(off)} of {number} percentiles (10 to 99) "
        f"are within {100 * CLOSE:.0f} %{names}.{left}"
    )
