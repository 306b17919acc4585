"""Who can leave a place that has more members than wanted, so that nobody misses it.

Owns the choice. A member leaves only while as many as wanted have joined without it; of several the one that serves
least. Of a group that closes the prefills leave first: they need the decodes for what they hold.
"""

from shared.messages import Health, Role, State
from shared.policy.fleet.census import Census, Seen
from shared.policy.fleet.events import Place
from shared.policy.fleet.groups import Groups, Seat
from shared.policy.fleet.holes import Holes
from shared.policy.fleet.plans import Plans
from shared.policy.fleet.spares import Spares
from shared.policy.fleet.substitutes import Substitutes


class Surplus:
    """Members beyond the plan."""

    def __init__(
        self, plans: Plans, groups: Groups, holes: Holes, census: Census, *, spares: Spares, substitutes: Substitutes
    ) -> None:
        self._plans = plans
        self._groups = groups
        self._holes = holes
        self._census = census
        self._spares = spares
        self._substitutes = substitutes

    def over(self, place: Place) -> int:
        """Count the members beyond those wanted there, and beyond those that come for degraded ones."""
        return -self._groups.missing(place) - self._holes.replacing(place)

    def choose(self, place: Place) -> Seen | None:
        """Name the one that should leave, if one can."""
        if self.over(place) <= 0 or (place.role is Role.DECODE and self._needed(place)):
            return None
        found = [
            ((seat.joined, seen.health is Health.OK, seen.load, name), seen)
            for name, seat in self._groups.seats(place).items()
            if (seen := self._present(name, seat)) is not None
        ]
        _, seen = min(found, key=lambda one: one[0], default=(None, None))
        return None if seen is None or not self._dispensable(place, seen.instance) else seen

    def replaced(self, place: Place) -> Seen | None:
        """Name a degraded member whose substitute has joined."""
        if not self._holes.replacing(place):
            return None
        for name in self._groups.seats(place):
            seen = self._census.get(name)
            if seen is not None and self._holes.replaced(name) and self._dispensable(place, name):
                return seen
        return None

    def _present(self, instance: str, seat: Seat) -> Seen | None:
        seen = self._census.get(instance)
        ready = seen is not None and seen.state is State.READY and seen.epoch == seat.epoch
        return seen if ready and self._spares.fit(instance) else None

    def _dispensable(self, place: Place, instance: str) -> bool:
        joined = self._groups.joined(place) - self._groups.seats(place)[instance].joined
        return not self._groups.seats(place)[instance].joined or joined >= self._plans.wanted(place)

    def _needed(self, place: Place) -> bool:
        """Whether prefills of a group that closes hold something yet that a decode must take."""
        if self._plans.group((place.scenario, place.group)) is not None:
            return False
        entrance = Place(place.scenario, place.group, Role.PREFILL)
        return bool(self._groups.seats(entrance)) or self._substitutes.leaving(entrance) > 0
