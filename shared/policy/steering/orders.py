"""What an operator's `baton scale` makes of a plan."""

from dataclasses import dataclass, replace

from shared.messages import ScaleOrder
from shared.policy.plan import GroupPlan, Plan
from shared.policy.steering.names import parts
from shared.policy.steering.rules import SteeringRules
from shared.policy.steering.scaling import numbered, resized


@dataclass(frozen=True, slots=True)
class Asked:
    """The plan as ordered; None: it cannot be done, or there is nothing to do, and `ok` says which."""

    plan: Plan | None
    text: str
    ok: bool = True
    sizes: Plan | None = None  # without the number of groups
    lacking: int = 0  # instances that cannot be had now


def sized(order: ScaleOrder, plan: Plan, rules: SteeringRules, spare: int) -> Asked:
    """Return the plan with the sizes, and the number of groups, that are ordered."""
    if not (order.prefill or order.decode or order.groups):
        return Asked(None, "nothing to scale: name prefills, decodes or groups", ok=False)
    if order.group and order.groups:
        return Asked(None, "name a group, or a number of groups, not both", ok=False)
    chosen = [one for one in plan.groups if not order.group or _is(one, order.group, rules)]
    if not chosen and order.group:
        names = ", ".join(one.name for one in plan.groups) or "none"
        return Asked(None, f'no group "{order.group}"; there are: {names}', ok=False)
    after = plan
    for one in chosen:
        wanted = replace(one, prefill=order.prefill or one.prefill, decode=order.decode or one.decode)
        after = after.with_group(wanted)
    sizes = after
    if order.groups:
        after = resized(after, order.groups, rules)
    lacking = after.size - plan.size - spare
    return Asked(after, _text(plan, after, order, rules, lacking), sizes=sizes, lacking=lacking)


def _is(group: GroupPlan, name: str, rules: SteeringRules) -> bool:
    return name in (group.name, parts(group.name, rules.named).base)


def _text(plan: Plan, after: Plan, order: ScaleOrder, rules: SteeringRules, lacking: int) -> str:
    if after == plan:
        return "it is so already"
    said = []
    before = {group.name: group for group in plan.groups}
    for group in after.groups:
        old = before.pop(group.name, None)
        if old is None:
            said.append(f"{group.name} comes with {group.prefill}:{group.decode}")
        elif old != group:
            said.append(f"{group.name} from {old.prefill}:{old.decode} to {group.prefill}:{group.decode}")
    said += [f"{name} leaves" for name in before]
    text = "; ".join(said)
    if lacking > 0:
        text += f"; {lacking} more instances are needed than can be had now"
    if rules.ratio.mode == "auto" and (order.prefill or order.decode):
        text += "; ratio.mode is auto, so the controller goes on from there"
    if rules.scale.most and order.groups and len(numbered(after, rules.named)) < rules.scale.most:
        text += f"; the load may add to it, up to {rules.scale.most}"
    return text
