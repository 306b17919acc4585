"""The simulator against real clusters: recorded runs of real processes, simulated again with the same settings.

The real side is gateway, prefills, decodes, monitor, NATS and Redis with the sim engine, whose computing takes the time
that its options say; so what is validated is everything but the profile: forwarding, slots, hand-offs, batches, queues.
`python -m bench validation` records anew. Loads that are cut from a trace are left out where there are no traces.
"""

from typing import Any, Final

from simulator.experiments.findings import Cell, Findings, Table
from simulator.measures.distribution import Distribution
from simulator.validation.loads import LOADS, Load, NoTraces
from simulator.validation.served import Apart, Served, apart, percentiles, real, recorded, simulated

NAME = "validation"
TITLE = "Simulated and real"
CLOSE: Final = 0.05
HEAD: Final = ("load", "requests", "figure", "real", "simulated", "apart, %")


def run(seed: int) -> Findings:  # noqa: ARG001  the runs are recorded
    """Each load, both ways."""
    record = recorded()
    rows: list[tuple[Cell, ...]] = []
    lines: dict[str, list[dict[str, Any]]] = {"ttft": [], "tpot": []}
    shares: dict[str, Apart] = {}
    absent: list[str] = []
    close: list[bool] = []  # of every percentile of every load
    for load in LOADS:
        try:
            there, ours = real(record, load), simulated(load, record["message_s"])
        except NoTraces:
            absent.append(load.name)
            continue
        shares[load.name] = apart(ours, there)
        close += [*_close(ours.ttft_ms, there.ttft_ms), *_close(ours.tpot_ms, there.tpot_ms)]
        rows += _rows(load, there, ours)
        for said, one, dashed in (("real", there, False), ("simulated", ours, True)):
            for name, of in (("ttft", one.ttft_ms), ("tpot", one.tpot_ms)):
                lines[name].append({"name": f"{load.name}, {said}", "points": percentiles(of), "dashed": dashed})
    charts = {name: _chart(name.upper(), of) for name, of in lines.items()}
    return Findings(Table(HEAD, tuple(rows)), charts, _says(shares, close, absent))


def _rows(load: Load, there: Served, ours: Served) -> list[tuple[Cell, ...]]:
    figures: list[tuple[str, float, float]] = [
        ("ended well", there.good, ours.good),
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


def _says(shares: dict[str, Apart], close: list[bool], absent: list[str]) -> str:
    def most(of: str) -> str:
        return f"{100 * max((abs(getattr(one, of)) for one in shares.values()), default=0.0):.1f} %"

    left = f" Left out for want of traces: {', '.join(absent)}." if absent else ""
    return (
        f"Over {len(shares)} loads the simulated throughput is off by {most('tokens_s')} at most, the mean TTFT by "
        f"{most('ttft_mean')}, the mean TPOT by {most('tpot_mean')}. {sum(close)} of {len(close)} percentiles "
        f"(10 to 99) are within {100 * CLOSE:.0f} %; those that are off most are off by {most('ttft')} "
        f"(TTFT) and {most('tpot')} (TPOT).{left}"
    )
