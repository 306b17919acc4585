"""How many groups a scenario has: by time table and orders at once, by load when it lasts. P/D-Serve 1.7.

Whole groups come and go at an unchanged ratio: a new one is as large as the largest there is, takes the lowest free
number, and the highest number leaves first. Groups with a name of their own are left alone. The clock's number, or the
operator's until the clock's next line, is what the load may add to; where the load changes nothing, it is the number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final

from shared.policy.plan import GroupPlan, Plan
from shared.policy.steering.figures import GroupFigures, ScenarioFigures
from shared.policy.steering.held import Held
from shared.policy.steering.names import base_name, group_name, ordinal, parts
from shared.policy.steering.rules import ScaleRules, SteeringRules
from shared.policy.steering.timetable import InForce, Timetable

LEAST_AIM: Final = 0.25
"""Of the target: what slack leaves of it at least."""
EPSILON: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Sought:
    """How many groups there should be, and why."""

    groups: int
    text: str
    by_load: bool = False  # such a wish waits until the fleet has settled


def numbered(plan: Plan, named: frozenset[str]) -> dict[int, GroupPlan]:
    """Return the groups that scaling counts, by number."""
    found: dict[int, GroupPlan] = {}
    for group in plan.groups:
        base, canary = parts(group.name, named)
        number = ordinal(base)
        if number is not None and not canary and base not in named:
            found[number] = group
    return dict(sorted(found.items()))


def resized(plan: Plan, groups: int, rules: SteeringRules) -> Plan:
    """Return the plan with so many numbered groups."""
    present = numbered(plan, rules.named)
    for number in sorted(present, reverse=True)[: max(0, len(present) - groups)]:
        plan = plan.without(present.pop(number).name)
    prefill, decode = new_size(plan, rules)
    number = 1
    while len(present) < groups:
        if number not in present and base_name(number) not in rules.named:
            name = group_name(base_name(number), plan.target)
            present[number] = GroupPlan(name, prefill, decode, plan.target)
            plan = plan.with_group(present[number])
        number += 1
    return plan


def new_size(plan: Plan, rules: SteeringRules) -> tuple[int, int]:
    """Return prefills and decodes of a group that is new: as the largest numbered one."""
    largest = max(numbered(plan, rules.named).values(), key=lambda group: group.size, default=None)
    return (largest.prefill, largest.decode) if largest is not None else (rules.prefill, rules.decode)


def affordable(plan: Plan, groups: int, rules: SteeringRules, spare: int) -> int:
    """Return how many groups there can be, of those wanted, with so many instances to spare."""
    present, size = len(numbered(plan, rules.named)), sum(new_size(plan, rules))
    return groups if groups <= present else min(groups, present + spare // max(1, size))


class Scaling:
    """One scenario's. Raises ValueError where the time table cannot be read."""

    def __init__(self, rules: SteeringRules) -> None:
        self._rules = rules
        self._table = Timetable(rules.scale.timetable, rules.scale.timezone)
        self._ordered: tuple[int, InForce | None] | None = None  # by an operator, under which line
        self._more, self._fewer = Held(), Held()

    def order(self, groups: int, unix: float) -> None:
        """Let there be so many groups, until the clock says otherwise."""
        self._ordered = groups, self._table.at(unix)

    def sought(
        self, plan: Plan, figures: Mapping[str, GroupFigures], totals: ScenarioFigures, now: float, unix: float
    ) -> Sought:
        """Say how many groups there should be. Call it at each tick: it remembers for how long the load wanted what."""
        scale, present = self._rules.scale, numbered(plan, self._rules.named)
        floor, why = self._floor(len(present), unix)
        if not scale.most:
            return Sought(floor, why)
        if len(present) < floor:
            self._more.drop()
            self._fewer.drop()
            return Sought(floor, why)
        load = self._load(present, figures, totals)
        if load is None:
            self._more.drop()
            self._fewer.drop()
            return Sought(len(present), "the load is not known yet")
        return self._by_load(len(present), floor, load, now)

    def _floor(self, present: int, unix: float) -> tuple[int, str]:
        scale, held = self._rules.scale, self._table.at(unix)
        if self._ordered is not None and self._ordered[1] != held:
            self._ordered = None  # the clock has spoken since
        if self._ordered is not None:
            groups, why = self._ordered[0], f"{self._ordered[0]} groups were ordered"
        elif held is not None:
            groups, why = held.entry.groups, f'the time table says "{held.entry.text}"'
        elif scale.most:
            groups, why = scale.least, f"{scale.least} is the least"
        else:
            groups, why = present, "nothing asks for more groups or for fewer"
        return (groups, why) if groups >= scale.least else (scale.least, f"{scale.least} is the least")

    def _load(
        self, present: Mapping[int, GroupPlan], figures: Mapping[str, GroupFigures], totals: ScenarioFigures
    ) -> float | None:
        """Return the load as a number of groups that would be fully used; None: not known."""
        if not present:
            return 1.0 if totals.waiting or totals.arriving > 0.0 else 0.0
        measured = [figures.get(group.name) for group in present.values()]
        heard = [one for one in measured if one is not None and one.n_p and one.n_d]
        if len(heard) < len(present):
            return None
        passing = sum(one.rate for one in figures.values())
        kept_back = totals.waiting > 0 or totals.refused > 0.0
        more = max(1.0, totals.arriving / passing) if kept_back and passing > 0.0 else 1.0
        return sum(one.use for one in heard) * more

    def _by_load(self, present: int, floor: int, load: float, now: float) -> Sought:
        scale = self._rules.scale
        aim = max(scale.target - scale.slack, scale.target * LEAST_AIM)
        up, down = ceil(load / scale.target - EPSILON), ceil(load / aim - EPSILON)
        most = max(floor, scale.most)
        use = f"{load / present:.0%} of the scarcer role is in use" if present else "requests wait"
        if up > present and present < most:
            self._fewer.drop()
            self._more.wish(min(up, most), present, now)
            groups = self._more.after(scale.up_s if present else 0.0, now)
            wanted = min(up, most)
            lasted, hold_s = self._more.lasted(now), scale.up_s
        elif (wanted := max(floor, down)) < present:
            self._more.drop()
            self._fewer.wish(wanted, present, now)
            groups = self._fewer.after(scale.down_s, now)
            lasted, hold_s = self._fewer.lasted(now), scale.down_s
        else:
            self._more.drop()
            self._fewer.drop()
            return Sought(present, f"{use}, the aim is {scale.target:.0%}")
        if groups is None:
            text = (
                f"{use}, the aim is {scale.target:.0%}: {wanted} groups are wanted for {lasted:.0f} of {hold_s:.0f} s"
            )
            return Sought(present, text)
        return Sought(groups, f"{use} for {lasted:.0f} s, the aim is {scale.target:.0%}", by_load=True)

    def changed(self) -> None:
        """Note that the number of groups has been changed: what the load wanted was about the old one."""
        self._more.drop()
        self._fewer.drop()


def aims(scale: ScaleRules) -> str:
    """Say in a few words what the number of groups goes by."""
    by = [f"at least {scale.least}"]
    if scale.timetable:
        by.append(f"by time table ({scale.timezone})")
    if scale.most:
        by.append(f"by load up to {scale.most}")
    return ", ".join(by)
