"""How members go from a group of one revision to that of another: pair by pair at an unchanged ratio of both."""

from dataclasses import replace

from shared.policy.plan import GroupPlan, Plan
from shared.policy.steering.names import group_name, parts


def splits(group: GroupPlan) -> bool:
    """Whether it can give a prefill and a decode and still serve."""
    return min(group.prefill, group.decode) > 1


def counterpart(plan: Plan, old: GroupPlan, named: frozenset[str]) -> str:
    """Name the group of the target's revision into which this one goes over."""
    return group_name(parts(old.name, named).base, plan.target)


def moved(plan: Plan, old: GroupPlan, named: frozenset[str], canary: int = 0) -> Plan:
    """Return the plan with the next pair moved. A group that has but one of a role goes over whole.

    Of P prefills and D decodes in both, the new one gets P*i/s and D*i/s at step i of s = min(P, D), rounded.
    """
    name = counterpart(plan, old, named)
    new = plan.group(name) or GroupPlan(name, 0, 0, plan.target, old.strategy, canary)
    prefills, decodes = old.prefill + new.prefill, old.decode + new.decode
    steps = min(prefills, decodes)
    for step in range(1, steps):
        prefill, decode = (2 * prefills * step + steps) // (2 * steps), (2 * decodes * step + steps) // (2 * steps)
        if prefill > new.prefill and decode > new.decode:
            grown = replace(new, prefill=prefill, decode=decode)
            rest = replace(old, prefill=prefills - prefill, decode=decodes - decode, canary=0)
            return plan.with_group(rest).with_group(grown)
    return _in_place(plan, old, replace(new, prefill=prefills, decode=decodes))


def paired(plan: Plan, old: GroupPlan, named: frozenset[str], canary: int) -> Plan:
    """Return the plan with one prefill and one decode taken out of this group, as a group of the target's revision."""
    pair = GroupPlan(counterpart(plan, old, named), 1, 1, plan.target, old.strategy, canary)
    rest = replace(old, prefill=old.prefill - 1, decode=old.decode - 1)
    return plan.with_group(rest).with_group(pair)


def _in_place(plan: Plan, old: GroupPlan, new: GroupPlan) -> Plan:
    """Put the new one where the first of both stood, so that the order of the groups stays."""
    first = next(one.name for one in plan.groups if one.name in (old.name, new.name))
    groups = (new if one.name == first else one for one in plan.groups)
    gone = {old.name, new.name} - {first}
    return replace(plan, groups=tuple(one for one in groups if one is new or one.name not in gone))
