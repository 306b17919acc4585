"""How far each group is: collect, load, connect, open; closing when the plan has no place for it any more.

Owns the phases and the time after which a group opens with fewer members than wanted. Source: P/D-Serve, the six steps
of a group's set-up. A group that is open stays open, whoever it loses.
"""

from shared.messages import GroupPhase
from shared.policy.deadlines import Deadlines
from shared.policy.fleet.events import FleetRules, Place
from shared.policy.fleet.groups import Groups
from shared.policy.fleet.plans import ROLES, GroupKey, Plans
from shared.policy.fleet.substitutes import Substitutes


class Forming:
    """Advances the groups that are not open yet."""

    def __init__(self, groups: Groups, plans: Plans, substitutes: Substitutes, rules: FleetRules) -> None:
        self._groups = groups
        self._plans = plans
        self._substitutes = substitutes
        self._rules = rules
        self._limits: Deadlines[GroupKey] = Deadlines()
        self._overdue: set[GroupKey] = set()

    def step(self, key: GroupKey, now: float) -> None:
        """Bring a group's phase up to date."""
        if self._plans.group(key) is None:
            self._forget(key)
            if self._groups.occupied(key):
                self._groups.advance(key, GroupPhase.CLOSING)
            elif key in self._plans.closing(key[0]):
                self._groups.vanish(key)
            return
        phase = self._phase(key)
        if phase is GroupPhase.OPEN:
            self._forget(key)
        elif key not in self._limits and key not in self._overdue:
            self._limits.set(key, now + self._rules.form_s)
        self._groups.advance(key, phase)

    def elapse(self, now: float) -> None:
        """Note the groups that have formed for long enough."""
        for key in self._limits.due(now):
            self._overdue.add(key)
            self._groups.touch(key)

    def next_deadline(self) -> float | None:
        """Say when `elapse` changes something."""
        return self._limits.next()

    def _phase(self, key: GroupKey) -> GroupPhase:
        if self._groups.phase(key) is GroupPhase.OPEN:
            return GroupPhase.OPEN
        places = [Place(*key, role) for role in ROLES]
        joined = [self._groups.joined(place) for place in places]
        if all(count >= self._plans.wanted(place) for count, place in zip(joined, places, strict=True)):
            return GroupPhase.OPEN
        if key in self._overdue and all(joined):
            return GroupPhase.OPEN
        missing = [self._groups.missing(place) for place in places]
        coming = [self._substitutes.on_the_way(place) for place in places]
        if any(count > sent for count, sent in zip(missing, coming, strict=True)):
            return GroupPhase.COLLECT
        return GroupPhase.LOAD if any(count > 0 for count in missing) else GroupPhase.CONNECT

    def _forget(self, key: GroupKey) -> None:
        self._limits.drop(key)
        self._overdue.discard(key)
