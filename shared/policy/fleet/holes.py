"""The places that miss a member.

Owns which places are short and why, so that no event looks at all of them, what may be filled already after a change of
leader, and which degraded members are being replaced. Who fills a hole is decided in `staffing`.
"""

from collections import Counter

from shared.policy.fleet.events import Cause, FleetRules, Place
from shared.policy.fleet.groups import Groups
from shared.policy.fleet.substitutes import Substitutes


class Holes:
    """A hole counts as filled from the order to a substitute on: so it never gets a second one."""

    def __init__(self, groups: Groups, substitutes: Substitutes, rules: FleetRules) -> None:
        self._groups = groups
        self._substitutes = substitutes
        self._rules = rules
        self._causes: dict[Place, Cause] = {}  # of what was lost last, for places to be looked at
        self._holes: dict[Place, Cause] = {}
        self._of: dict[str, dict[Place, None]] = {}  # the same by scenario
        self._short: dict[Place, int] = {}
        self._incomplete: set[Place] = set()  # whether its holes may be filled already or not
        self._owed: Counter[Place] = Counter()  # members lost, or planned, under our lead
        self._replaced: dict[str, Place] = {}  # degraded members for whom another comes
        self._replacing: Counter[Place] = Counter()  # how many there
        self._settled_at: float | None = None
        self._settled_by = 0.0
        self.lacking = 0  # members in all that are neither there nor on their way

    @property
    def settled(self) -> bool:
        """Whether all that were on their way when our lead began had time to show."""
        return self._settled_at is None

    def check(self, *places: Place | None, cause: Cause = Cause.MISSING) -> None:
        """Have these places looked at, when the event is done with."""
        for place in places:
            if place is not None:
                self._causes[place] = cause
                self._groups.touched[place] = None

    def owe(self, place: Place, cause: Cause, count: int = 1) -> None:
        """Note that members are missing since now: these holes need not wait until all is settled."""
        self._owed[place] += count
        self.check(place, cause=cause)

    def settle(self, now: float) -> None:
        """Begin a lead: holes of the time before are filled only when those who are on their way had time to show.

        What was known of holes under another plan is forgotten; all places are to be looked at.
        """
        for known in (self._owed, self._causes, self._holes, self._of, self._short, self._incomplete):
            known.clear()
        self.lacking = 0
        for instance in list(self._replaced):
            self.keep(instance)
        self._settled_at = now + self._rules.settle_s
        self._settled_by = self._settled_at + self._rules.drain_s + self._rules.settle_s

    def unsettle(self, now: float) -> None:
        """Wait longer: somebody drains, perhaps to become what is missing."""
        if self._settled_at is not None:
            self._settled_at = min(max(self._settled_at, now + self._rules.settle_s), self._settled_by)

    def elapse(self, now: float) -> None:
        """Look again at what time has changed."""
        if self._settled_at is not None and self._settled_at <= now:
            self._end_settling()

    def complete(self) -> None:
        """Wait no longer if no place misses anybody, so nobody can be on the way there. Every place was looked at.

        Where a group closes, its prefills may hold something yet that is not known to us.
        """
        if self._settled_at is not None and not self._incomplete and not self._groups.closes:
            self._end_settling()

    def next_deadline(self) -> float | None:
        """Say when `elapse` changes something."""
        return self._settled_at

    def replace(self, instance: str, place: Place) -> None:
        """Want one more at the place until this degraded member has left it."""
        self._replaced[instance] = place
        self._replacing[place] += 1

    def keep(self, instance: str) -> None:
        """Want it no longer replaced: it has left, or is well again."""
        if (place := self._replaced.pop(instance, None)) is not None:
            self._replacing[place] -= 1
            self._groups.touched[place] = None

    def replaced(self, instance: str) -> bool:
        """Whether another comes for this degraded member."""
        return instance in self._replaced

    def replacing(self, place: Place) -> int:
        """Count the members beyond the wanted number that come for degraded ones."""
        return self._replacing[place]

    def look(self, place: Place) -> int:
        """Bring a place up to date; how many it is short of."""
        cause = self._causes.pop(place, None)
        short = max(0, self.missing(place))
        self.lacking += short - self._short.get(place, 0)
        if self._groups.missing(place) > 0:
            self._incomplete.add(place)
        else:
            self._incomplete.discard(place)
        if short > 0:
            self._short[place] = short
        else:
            self._short.pop(place, None)
        if short > 0 and not self._substitutes.paused(place):
            if cause is not None:  # looked at for a new reason: it queues again
                self._holes.pop(place, None)
            self._holes.setdefault(place, cause or Cause.MISSING)
            self._of.setdefault(place.scenario, {})[place] = None
        else:
            self._holes.pop(place, None)
            self._of.get(place.scenario, {}).pop(place, None)
        return short

    def short(self, scenario: str) -> bool:
        """Whether a scenario misses a member."""
        return any(place.scenario == scenario for place in self._short)

    def first(self, scenario: str | None = None) -> tuple[Place, Cause] | None:
        """Return the place that waits for a member, of a scenario or all."""
        place = next(iter(self._holes if scenario is None else self._of.get(scenario, ())), None)
        return None if place is None else (place, self._holes[place])

    def missing(self, place: Place) -> int:
        """Count the members that are neither there nor on their way; negative: too many."""
        missing = self._groups.missing(place) + self._replacing[place]
        if self._settled_at is not None:
            missing = min(missing, self._owed[place] + self._replacing[place])
        return missing - self._substitutes.on_the_way(place)

    def _end_settling(self) -> None:
        """Have all places looked at, now that all holes count."""
        self._settled_at = None
        for key in self._groups.group_keys():
            self._groups.touch(key)
