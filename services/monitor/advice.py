"""What the controllers measure and want, in the form that the page shows. Pure."""

from collections.abc import Collection

from services.monitor.dashboard.figures import Advice
from shared.policy.plan import Plan
from shared.policy.steering.figures import GroupFigures, ScenarioFigures


def advice(
    mode: str,
    plan: Plan,
    groups: Collection[GroupFigures],
    totals: ScenarioFigures,
    *,
    upgrade: str,
    reasons: tuple[str, ...],
) -> Advice:
    """Put a scenario's figures together; times are means over what its groups have passed."""
    known = [group for group in groups if group.known]
    passed = sum(group.rate for group in known)
    busiest = max(known, key=lambda group: group.use, default=None)
    return Advice(
        mode=mode,
        prefill=sum(group.prefill for group in plan.groups),
        decode=sum(group.decode for group in plan.groups),
        scarcer=busiest.scarcer.value if busiest is not None else "",
        prefill_per_s=totals.capable_p,
        decode_per_s=totals.capable_d,
        phi=totals.phi,
        prefill_s=sum(group.t_p * group.rate for group in known) / passed if passed else 0.0,
        decode_s=sum(group.t_d * group.rate for group in known) / passed if passed else 0.0,
        groups=len(plan.groups),
        upgrade=upgrade,
        reasons=reasons,
    )
