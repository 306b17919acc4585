"""The simulator against real clusters: recorded runs of real processes, simulated again with the same settings.

The real side is gateway, prefills, decodes, monitor, NATS and Redis with the sim engine, whose computing takes the time
that its options say; so what is validated is everything but the profile: forwarding, slots, hand-offs, batches, queues.
Each load ran several times, and all its runs are taken together: no run is nearer to another than chance allows, which
is told, too. `python -m bench validation` records anew. Loads cut from a trace are left out where there are no traces.
"""

from typing import Any, Final

from simulator.experiments.findings import Cell, Findings, Table
from simulator.measures.distribution import Distribution
from simulator.validation.loads import LOADS, Load, NoTraces
from simulator.validation.record import Costs, recorded, takes
from simulator.validation.served import Apart, Served, Take, apart, percentiles
from simulator.validation.simulated import simulated

NAME = "validation"
TITLE = "Simulated and real"
CLOSE: Final = 0.05
HEAD: Final = ("load", "requests", "figure", "real", "simulated", "apart, %")


def run(seed: int) -> Findings:  # noqa: ARG001  the runs are recorded
    """Each load, both ways."""
    record = recorded()
    costs = Costs(**record["costs"])
    rows: list[tuple[Cell, ...]] = []
    lines: dict[str, list[dict[str, Any]]] = {"ttft": [], "tpot": []}
    shares: list[Apart] = []
    chance: list[Apart] = []
    absent: list[str] = []
    close: list[bool] = []  # of every percentile of every load
    for load in LOADS:
        try:
            runs = takes(record, load)
            there, ours = Served.of(runs, load), simulated(load, costs, runs)
        except NoTraces:
            absent.append(load.name)
            continue
        shares.append(apart(ours, there))
        chance += _chance(load, runs)
        close += [*_close(ours.ttft_ms, there.ttft_ms), *_close(ours.tpot_ms, there.tpot_ms)]
        rows += _rows(load, there, ours)
        for said, one, dashed in (("real", there, False), ("simulated", ours, True)):
            for name, of in (("ttft", one.ttft_ms), ("tpot", one.tpot_ms)):
                lines[name].append({"name": f"{load.name}, {said}", "points": percentiles(of), "dashed": dashed})
    charts = {name: _chart(name.upper(), of) for name, of in lines.items()}
    return Findings(Table(HEAD, tuple(rows)), charts, _says(shares, chance, close, absent))


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


def _close(ours: Distribution, there: Distribution) -> list[bool]:
    pairs = zip(percentiles(ours), percentiles(there), strict=True)
    return [abs(one / other - 1) <= CLOSE for (_, one), (_, other) in pairs]


def _says(shares: list[Apart], chance: list[Apart], close: list[bool], absent: list[str]) -> str:
    def most(of: str, among: list[Apart]) -> str:
        return f"{100 * max((abs(getattr(one, of)) for one in among), default=0.0):.1f} %"

    left = f" Left out for want of traces: {', '.join(absent)}." if absent else ""
    return (
        f"Over {len(shares)} loads the simulated throughput is off by {most('tokens_s', shares)} at most, the mean TTFT "
        f"by {most('ttft_mean', shares)}, the mean TPOT by {most('tpot_mean', shares)}. {sum(close)} of {len(close)} "
        f"percentiles (10 to 99) are within {100 * CLOSE:.0f} %; those that are off most are off by "
        f"{most('ttft', shares)} (TTFT) and {most('tpot', shares)} (TPOT). A real run differs from the other real ones "
        f"by up to {most('ttft', chance)} and {most('tpot', chance)} there.{left}"
    )
