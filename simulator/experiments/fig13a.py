"""P/D-Serve's figure 13a: what twelve instances carry at each ratio. See `pair` for the instance."""

from math import sqrt
from typing import Final

from simulator.experiments.findings import Findings, Table
from simulator.experiments.loads import closed, requests
from simulator.experiments.pair import BATCH, DECODE, PREFILL, PROMPT, SLOTS, answer, prefill_s, spec, step_s, unit

NAME = "fig13a"
TITLE = "Throughput by the ratio of prefills to decodes"
INSTANCES: Final = 12


def run(seed: int) -> Findings:
    """Twelve instances at each ratio, in a closed loop that grows until an E2E objective is missed.

    In time is 99 of 100, for lengths differ; the objective is four times what a mean request takes in a full batch.
    """
    limit_s = 4.0 * (prefill_s() + answer() * step_s(answer()))
    rows = [(n, *_most(seed, n, limit_s)) for n in range(2, INSTANCES - 1)]
    carried = {n: rate / unit() for n, _, rate in rows}
    best = max(carried, key=lambda n: carried[n])
    by_equation = max(carried, key=lambda n: min(n * PREFILL, (INSTANCES - n) * DECODE))
    gains = ", ".join(
        f"{carried[best] / carried[n] - 1:+.0%} over {n}:{INSTANCES - n}"
        for n in (best - 3, best - 2, best - 1, best + 1, best + 2, best + 3)
        if n in carried
    )
    says = (
        f"The best ratio of {INSTANCES} is {best}:{INSTANCES - best} (by the equation "
        f"{by_equation}:{INSTANCES - by_equation}); it carries {gains}. Whether that is the paper's 60 % is a "
        "matter of how far off the two ratios are that it does not name."
    )
    table = tuple((f"{n}:{INSTANCES - n}", clients, carried[n]) for n, clients, _ in rows)
    chart = {
        "title": "The ratio",
        "subtitle": f"Most throughput of {INSTANCES} with 99 of 100 requests within {limit_s:.1f} s",
        "x": {"label": "prefills"},
        "y": {"label": "throughput"},
        "lines": [{"name": "12", "points": [[n, rate] for n, rate in carried.items()]}],
    }
    return Findings(Table(("ratio", "outstanding", "throughput"), table), {"": chart}, says)


def _most(seed: int, prefill: int, limit_s: float) -> tuple[int, float]:
    """Most requests outstanding with all of them in time, and the throughput then; to a twentieth."""
    low, high, best = 1.0, 2.0 * (prefill * SLOTS + (INSTANCES - prefill) * BATCH), 0.0
    while high > 1.05 * low:
        middle = sqrt(low * high)
        fleet, endless = spec(prefill, INSTANCES - prefill), requests(seed, PROMPT, answer())
        figures = closed(fleet, endless, round(middle), warm_s=5.0, seconds=12.0).all
        if figures.e2e.percentile(99.0) > limit_s:
            high = middle
        else:
            low, best = middle, figures.throughput
    return round(low), best
