"""P/D-Serve's figures 12a to 12d: mismatch between prefills and decodes. See `pair` for the instance."""

from typing import Any, Final

from simulator.experiments.findings import Cell, Findings, Table
from simulator.experiments.loads import at_rate, opened, requests
from simulator.experiments.pair import DECODE, MOST, PREFILL, PROMPT, answer, prefill_s, saturated, spec, unit
from simulator.experiments.registry import Experiment

# ---- 12a


def mismatch(seed: int) -> Findings:
    """N prefills before one decode, N decodes behind one prefill."""
    rows: list[tuple[Cell, ...]] = []
    lines: dict[str, list[list[float]]] = {"N prefills : 1 decode": [], "1 prefill : N decodes": []}
    caps = 0.0, 0.0
    for number in range(1, MOST + 1):
        many_p = saturated(seed, number, 1, answer()).throughput / unit()
        many_d = saturated(seed, 1, number, answer()).throughput / unit()
        rows.append((number, many_p, many_d))
        caps = many_p, many_d
        lines["N prefills : 1 decode"].append([number, many_p])
        lines["1 prefill : N decodes"].append([number, many_d])
    says = (
        f"A prefill is capable of {PREFILL}, a decode of {DECODE}: however many prefills there are, one decode caps "
        f"them at {caps[0]:.2f}, and one prefill caps {MOST} decodes at {caps[1]:.2f}."
    )
    chart = {
        "title": "One side alone brings nothing",
        "subtitle": "Throughput of N:1 and 1:N, in units in which a prefill is capable of 0.6 and a decode of 0.7",
        "x": {"label": "N"},
        "y": {"label": "throughput"},
        "lines": [{"name": name, "points": points} for name, points in lines.items()],
    }
    return Findings(Table(("N", "N prefills : 1 decode", "1 prefill : N decodes"), tuple(rows)), {"": chart}, says)


# ---- 12b

PERCENTILES: Final = (10.0, 25.0, 50.0, 75.0, 90.0, 99.0)


def beyond(seed: int) -> Findings:
    """Two prefills and four decodes at a part of what the prefills are capable of, or more."""
    rows: list[tuple[Cell, ...]] = []
    lines: list[dict[str, Any]] = []
    capable = 2 / prefill_s()
    for share in (0.5, 0.75, 1.0, 1.25):
        workload = at_rate(requests(seed, PROMPT, answer()), share * capable, 120.0, seed)
        figures = opened(spec(2, 4), workload, warm_s=30.0, end_s=120.0).all
        took = [1000 * figures.ttft.percentile(p) for p in PERCENTILES]
        rows.append((f"{share:g} A", *took))
        lines.append({"name": f"{share:g} A", "points": [[p, t] for p, t in zip(PERCENTILES, took, strict=True)]})
    median = [dict(line["points"])[50.0] for line in lines]
    says = (
        f"At half of A the median prompt has its first token after {median[0]:.0f} ms, at A after {median[2]:.0f}, at "
        f"1.25 A after {median[3]:.0f} ms and growing for as long as the load lasts: requests wait at the gateway."
    )
    chart = {
        "title": "A little more than the prefills can do",
        "subtitle": "Time to the first token over two minutes; A is what the prefills are capable of, decodes of more",
        "x": {"label": "percentile"},
        "y": {"label": "ms", "log": True},
        "lines": lines,
    }
    head = ("input", *(f"p{p:.0f} ms" for p in PERCENTILES))
    return Findings(Table(head, tuple(rows)), {"": chart}, says)


# ---- 12c


def longer(seed: int) -> Findings:
    """Answers of other lengths at an unchanged ratio."""
    rows: list[tuple[Cell, ...]] = []
    points: list[list[float]] = []
    for share in (0.5, 0.75, 1.0, 1.25, 1.5):
        figures = saturated(seed, 3, 2, round(share * answer()))
        found = figures.throughput / unit()
        rows.append((f"{share:.0%}", found, found / points[0][1] if points else 1.0))
        points.append([100 * share, found])
    full, half = points[2][1], points[4][1]
    says = (
        f"Answers that are half as long again bring the throughput of 3:2 from {full:.2f} to {half:.2f} units "
        f"({half / full - 1:+.0%}); shorter ones bring more until the prefills are the bound."
    )
    chart = {
        "title": "Longer answers, less of everything",
        "subtitle": "Throughput of three prefills and two decodes, in the units of figure 12a",
        "x": {"label": "length of the answers, %"},
        "y": {"label": "throughput"},
        "lines": [{"name": "3 : 2", "points": points}],
    }
    return Findings(Table(("answers", "throughput", "of the first"), tuple(rows)), {"": chart}, says)


# ---- 12d

LOAD: Final = 0.6
"""Of what the two decodes are capable of with answers of 100 %."""


def signals(seed: int) -> Findings:
    """E2E and the share of T_p in it, as prompts or answers grow at one load."""
    rows: list[tuple[Cell, ...]] = []
    lines: dict[str, list[list[float]]] = {"longer prompts": [], "longer answers": []}
    for name, points in lines.items():
        for share in (1.0, 1.25, 1.5, 1.75):
            prompt = round(share * PROMPT) if name == "longer prompts" else PROMPT
            tokens = round(share * answer()) if name == "longer answers" else answer()
            e2e, of_it = _shares(seed, prompt, tokens)
            rows.append((f"{name}, {share:.0%}", e2e, 100 * of_it))
            points.append([e2e, 100 * of_it])
    usual, prompts = lines["longer prompts"][0], lines["longer prompts"][-1]
    answers, beyond_it = lines["longer answers"][2:]
    says = (
        f"Prompts of 175 % bring E2E from {usual[0]:.2f} to {prompts[0]:.2f} s and T_p / E2E from {usual[1]:.1f} to "
        f"{prompts[1]:.1f} %: more prefill. Answers of 150 % bring E2E to {answers[0]:.2f} s and the share to "
        f"{answers[1]:.1f} %: more decode. But with answers of 175 % the decodes are full, slots are held, requests "
        f"wait at the gateway, and the share as clients see it is {beyond_it[1]:.0f} %: the signal turns round. So "
        "Baton goes by the equation, with the signals as a second witness only."
    )
    chart = {
        "title": "Two signals",
        "subtitle": f"Three prefills and two decodes at {LOAD:.0%} of the load that they can carry",
        "x": {"label": "E2E, s"},
        "y": {"label": "T_p / E2E, %"},
        "lines": [{"name": name, "points": points} for name, points in lines.items()],
    }
    return Findings(Table(("at one load", "E2E s", "T_p / E2E %"), tuple(rows)), {"": chart}, says)


def _shares(seed: int, prompt: int, tokens: int) -> tuple[float, float]:
    """E2E, and the share of the first token's time in it, at a load that the group can carry."""
    workload = at_rate(requests(seed, prompt, tokens), LOAD * 2 * DECODE * unit(), 90.0, seed)
    figures = opened(spec(3, 2), workload, warm_s=30.0, end_s=90.0).all
    return figures.e2e.mean, figures.ttft.mean / figures.e2e.mean


EXPERIMENTS: Final = (
    Experiment("fig12a", "Mismatch: N prefills to one decode, one prefill to N decodes", mismatch),
    Experiment("fig12b", "T_p when the input is more than the prefills are capable of", beyond),
    Experiment("fig12c", "Longer answers at an unchanged ratio", longer),
    Experiment("fig12d", "E2E and T_p / E2E tell which side is short", signals),
)
