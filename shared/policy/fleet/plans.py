"""What every scenario's groups are to be: the plans in force, and the groups that have left them.

Owns the wanted sizes. Knows nobody by name; who is where is `groups`' business.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from shared.messages import GroupPhase, Revision, Role, ScenarioMap
from shared.policy.fleet.events import AS_CONFIGURED, Place
from shared.policy.plan import GroupPlan, Plan
from shared.policy.recent import Recent

ROLES: Final = (Role.PREFILL, Role.DECODE)
REMEMBERED: Final = 4096
"""Groups that were closed: a worker that its supervisor starts again for one of them does not open it again."""

GroupKey = tuple[str, str]
"""Scenario and name."""


class Plans:
    """One plan for each scenario. A group that nobody planned is adopted, as large as it has ever been."""

    def __init__(self, plans: Iterable[Plan]) -> None:
        self._plans: dict[str, Plan] = {}
        self._groups: dict[GroupKey, GroupPlan] = {}
        self._closing: dict[GroupKey, GroupPlan] = {}  # as they were when they left the plan
        self._closed: Recent[GroupKey, None] = Recent(REMEMBERED)
        self._adopted: set[GroupKey] = set()
        for plan in plans:
            self._put(plan)

    def scenarios(self) -> list[str]:
        """List those that have a plan."""
        return list(self._plans)

    def plan(self, scenario: str) -> Plan | None:
        """Return what is wanted of a scenario."""
        return self._plans.get(scenario)

    def group(self, key: GroupKey) -> GroupPlan | None:
        """Return what is wanted of a group; None: nothing any more."""
        return self._groups.get(key)

    def runs(self, key: GroupKey) -> GroupPlan:
        """Return what a group is, also one that closes."""
        return self._groups.get(key) or self._closing.get(key) or GroupPlan(key[1], 0, 0)

    @property
    def closes(self) -> bool:
        """Whether any group has left its plan and may have members yet."""
        return bool(self._closing)

    def closing(self, scenario: str) -> list[GroupKey]:
        """List the groups that have left the plan, and may have members yet."""
        return [key for key in self._closing if key[0] == scenario]

    def wanted(self, place: Place) -> int:
        """Count the members wanted at a place."""
        group = self._groups.get((place.scenario, place.group))
        return 0 if group is None else group.wanted(place.role)

    def revision(self, place: Place) -> Revision:
        """Return the version of the model that a place runs."""
        number, plan = self.runs((place.scenario, place.group)).revision, self._plans.get(place.scenario)
        known = () if plan is None else plan.revisions
        return next((one for one in known if one.number == number), AS_CONFIGURED if number == 0 else Revision(number))

    def adopts(self, key: GroupKey) -> bool:
        """Whether the group grows with whoever comes: nobody planned it, and nobody closed it."""
        return key in self._adopted or (
            key not in self._groups and key not in self._closing and key not in self._closed
        )

    def adopt(self, place: Place, members: int) -> None:
        """Want so many members at the place, of a group that nobody planned."""
        key = (place.scenario, place.group)
        self._adopted.add(key)
        group = self.runs(key)
        sizes = {role: max(group.wanted(role), members if role is place.role else 0) for role in ROLES}
        grown = replace(group, prefill=sizes[Role.PREFILL], decode=sizes[Role.DECODE])
        if grown != self._groups.get(key):
            self._put((self._plans.get(place.scenario) or Plan(place.scenario, ())).with_group(grown))

    def take(self, plan: Plan, occupied: Callable[[GroupKey], bool]) -> list[Place] | None:
        """Put a plan in force. Each place once for each member more that it is to have; None: nothing is new.

        An occupied group keeps its revision: its members run that one.
        """
        scenario, before = plan.scenario, self._plans.get(plan.scenario)
        kept: list[GroupPlan] = []
        for group in plan.groups:
            key = (scenario, group.name)
            kept.append(replace(group, revision=self.runs(key).revision) if occupied(key) else group)
        plan = replace(plan, groups=tuple(kept))
        if plan == before:
            return None
        places = [Place(scenario, group.name, role) for group in plan.groups for role in ROLES]
        sizes = {place: self.wanted(place) for place in places}
        for group in () if before is None else before.groups:
            if plan.group(group.name) != group:
                self._adopted.discard((scenario, group.name))
            if plan.group(group.name) is None:
                self._close(scenario, group)
        self._put(plan)
        return [place for place in places for _ in range(self.wanted(place) - sizes[place])]

    def load(self, scenario_map: ScenarioMap) -> None:
        """Take over the plan that a map holds. One of an older version holds none: then its groups are as they are."""
        scenario, groups = scenario_map.scenario, scenario_map.groups
        if not scenario_map.revisions and not any(group.prefills or group.decodes for group in groups):
            for group in groups:
                for role, members in zip(ROLES, (group.prefill, group.decode), strict=True):
                    if members and self.adopts((scenario, group.name)):
                        self.adopt(Place(scenario, group.name, role), len(members))
            return
        planned: list[GroupPlan] = []
        for one in groups:
            found = GroupPlan(one.name, one.prefills, one.decodes, one.revision, one.strategy, one.canary)
            if one.phase is GroupPhase.CLOSING:
                self._close(scenario, found)
            else:
                planned.append(found)
        plan = Plan(scenario, tuple(planned), tuple(scenario_map.revisions), scenario_map.target)
        for before in self._plans[scenario].groups if scenario in self._plans else ():
            if plan.group(before.name) != before:
                self._adopted.discard((scenario, before.name))
        self._put(plan)

    def vanished(self, key: GroupKey) -> None:
        """Forget a group that closed and is empty."""
        self._closing.pop(key, None)

    def _close(self, scenario: str, group: GroupPlan) -> None:
        self._closing[scenario, group.name] = replace(group, prefill=0, decode=0, canary=0)
        self._closed.put((scenario, group.name), None)

    def _put(self, plan: Plan) -> None:
        for group in self._plans[plan.scenario].groups if plan.scenario in self._plans else ():
            self._groups.pop((plan.scenario, group.name), None)
        self._plans[plan.scenario] = plan
        for group in plan.groups:
            self._groups[plan.scenario, group.name] = group
            self._closing.pop((plan.scenario, group.name), None)
            self._closed.drop((plan.scenario, group.name))
