"""Whether a canary does worse than the other groups: shares of failures and of missed objectives in its trial.

A difference counts when it is larger than the margin and than what chance makes of so many requests: the z of two
proportions with a pooled share. While the trial runs,
it is looked at again and again, so more certainty is asked for than at its end.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Final

from shared.policy.steering.rules import UpgradeRules
from shared.policy.steering.traffic import Sums

Z_DURING: Final = 3.5
Z_AT_END: Final = 2.33
MOST_ALONE: Final = 0.1
"""Share that a canary may have where the others have too few requests to compare with."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a trial says so far."""

    worse: bool
    text: str
    requests: int


def judge(canary: Sums, others: Sums, rules: UpgradeRules, *, over: bool) -> Found:
    """Compare. `over`: the trial has ended, and something is to be said whatever came."""
    ended = canary.finished + canary.failed
    shares = (
        ("fail", canary.failed, ended, others.failed, others.finished + others.failed),
        ("miss the TTFT objective", canary.late, canary.firsts, others.late, others.firsts),
        ("miss the TPOT objective", canary.slow, canary.paced, others.slow, others.paced),
    )
    for what, bad, count, bad_others, others_count in shares:
        if _worse(bad, count, bad_others, others_count, rules, over=over):
            text = f"{bad} of {count} requests {what}, and {bad_others} of {others_count} elsewhere"
            return Found(worse=True, text=text, requests=ended)
    if not ended:
        return Found(worse=False, text="no request of it has ended", requests=0)
    text = ", ".join(f"{bad / count:.1%} {what}" for what, bad, count, _, _ in shares if count)
    return Found(worse=False, text=f"of {ended} requests {text}", requests=ended)


def _worse(bad: int, count: int, bad_others: int, others_count: int, rules: UpgradeRules, *, over: bool) -> bool:
    if count < rules.enough:
        return over and 2 * bad > count  # too few for a share, so what most of them did counts
    share = bad / count
    if others_count < rules.enough:
        return share > MOST_ALONE
    beside = bad_others / others_count
    if share - beside <= rules.margin:
        return False
    pooled = (bad + bad_others) / (count + others_count)
    spread = sqrt(pooled * (1.0 - pooled) * (1.0 / count + 1.0 / others_count))
    return share - beside > (Z_AT_END if over else Z_DURING) * spread
