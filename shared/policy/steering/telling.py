"""Says in words and numbers what is measured: the text of `baton explain`."""

from typing import Final

from shared.policy.plan import GroupPlan, Plan
from shared.policy.steering.figures import GroupFigures, ScenarioFigures
from shared.policy.steering.rules import ScaleRules
from shared.policy.steering.scaling import aims

MODES: Final = {
    "explain": "ratio.mode is explain: steps are told and not taken",
    "fixed": "ratio.mode is fixed: ratios are not judged",
}


def scenario(plan: Plan, totals: ScenarioFigures, scale: ScaleRules, why: str) -> str:
    """Say what the scenario does, in one line."""
    by = f"{aims(scale)}; {why}" if why else aims(scale)
    return (
        f"{plan.scenario}: {totals.arriving:.3g} requests/s arrive, {totals.refused:.3g}/s refused, "
        f"{totals.waiting} wait, {totals.open} open; prefills can do {totals.capable_p:.3g}/s, decodes "
        f"{totals.capable_d:.3g}/s, throughput per instance {totals.phi:.3g}/s; {len(plan.groups)} groups ({by})"
    )


def group(plan: GroupPlan, seen: GroupFigures, verdict: str) -> list[str]:
    """Say what a group does and why it stays or changes, in a line each."""
    extras = [f"revision {plan.revision}" if plan.revision else "", plan.strategy]
    if plan.canary:
        extras.append(f"canary, {plan.canary} %")
    head = ", ".join(one for one in (f"{plan.name} {plan.prefill}:{plan.decode}", *extras) if one)
    if not seen.known:
        return [f"{head}: nothing measured yet", *_why(verdict)]
    said = (
        f"{head}: T_p {seen.t_p * 1e3:.3g} ms at b_p {seen.b_p:.3g}, T_d {seen.t_d:.3g} s at b_d {seen.b_d:.3g} "
        f"(xi {seen.xi * 1e3:.3g} ms + {seen.tpot * 1e3:.3g} ms * G {seen.tokens:.3g}); "
        f"{seen.use_p:.0%} of the prefills and {seen.use_d:.0%} of the decodes in use, by {seen.rate:.3g} requests/s "
        f"of the last {seen.span_s:.0f} s; n_p*b_p/T_p {seen.capable_p:.3g}/s, n_d*b_d/T_d {seen.capable_d:.3g}/s; "
        f"TTFT met by {seen.ttft_met:.1%}, TPOT by {seen.tpot_met:.1%}, {seen.failed:.1%} failed"
    )
    return [said, *_why(verdict)]


def _why(verdict: str) -> list[str]:
    return [f"  {verdict}"] if verdict else []
