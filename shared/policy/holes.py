"""The places that miss a member, and the standbys that can fill them: one each.

Owns which places are to be looked at, so that no event looks at all of them, and what may be filled already after a
change of leader.
"""

from collections import Counter

from shared.policy.deadlines import Deadlines
from shared.policy.fleet_events import Assign, Cause, FleetRules, Place
from shared.policy.groups import Groups
from shared.policy.substitutes import Substitutes


class Holes:
    """A hole counts as filled from the order to a standby on: so it never gets a second one."""

    def __init__(self, groups: Groups, substitutes: Substitutes, rules: FleetRules) -> None:
        self._groups = groups
        self._substitutes = substitutes
        self._rules = rules
        self._unchecked: dict[Place, Cause] = {}
        self._holes: dict[Place, Cause] = {}
        self._standbys: dict[str, None] = {}  # that can be sent, the first known first
        self._unfit: Deadlines[str] = Deadlines()
        self._owed: Counter[Place] = Counter()  # members lost under our lead
        self._settled_at: float | None = None

    def check(self, *places: Place | None, cause: Cause = Cause.MISSING) -> None:
        """Have these places looked at, when the event is done with."""
        for place in places:
            if place is not None:
                self._unchecked[place] = cause

    def owe(self, place: Place, cause: Cause) -> None:
        """Note that a member was lost: its hole need not wait until all is settled."""
        self._owed[place] += 1
        self.check(place, cause=cause)

    def settle(self, now: float) -> None:
        """Begin a lead: holes of the time before are filled only when those who are on their way had time to show."""
        self._owed.clear()
        self._settled_at = now + self._rules.settle_s

    def available(self, standby: str) -> None:
        """Note a standby that can be sent."""
        if standby not in self._unfit:
            self._standbys[standby] = None

    def unavailable(self, instance: str) -> None:
        """Note that it cannot be sent."""
        self._standbys.pop(instance, None)

    def unfit(self, standby: str, now: float) -> None:
        """Do not send it for a while: it said no."""
        self.unavailable(standby)
        self._unfit.set(standby, now + self._rules.unfit_s)

    def elapse(self, now: float) -> None:
        """Look again at what time has changed. A standby that was unfit becomes available with its next status."""
        self._unfit.due(now)
        if self._settled_at is not None and self._settled_at <= now:
            self._settled_at = None
            self.check(*self._groups.places())

    def next_deadline(self) -> float | None:
        """Say when `elapse` changes something."""
        return self._settled_at

    def fill(self, now: float) -> list[Assign]:
        """Send one standby for each member that is missing and not on its way."""
        for place, cause in self._unchecked.items():
            self._holes.pop(place, None)
            if self._missing(place) > 0 and not self._substitutes.paused(place):
                self._holes[place] = cause
        self._unchecked.clear()
        orders: list[Assign] = []
        while self._holes and self._standbys:
            place, cause = next(iter(self._holes.items()))
            if self._missing(place) <= 0:
                del self._holes[place]
                continue
            instance = next(iter(self._standbys))
            del self._standbys[instance]
            self._substitutes.send(instance, place, now)
            orders.append(Assign(instance, place.role, place.scenario, place.group, cause))
        return orders

    def _missing(self, place: Place) -> int:
        missing = self._groups.missing(place)
        if self._settled_at is not None:
            missing = min(missing, self._owed[place])
        return missing - self._substitutes.on_the_way(place)
