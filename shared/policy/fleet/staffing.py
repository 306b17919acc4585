"""Who goes where: holes are filled, by those that are too many elsewhere or by standbys; who is left over waits.

Owns the order in which the fleet's instances are used. A hole that the plan made is filled by a surplus member of the
same scenario, which is re-roled in place; one that a loss made by a standby, which has nothing to finish first.
"""

from shared.messages import Epoch, GroupPhase, Health, Role
from shared.policy.fleet.census import Census, Seen
from shared.policy.fleet.events import (
    NOWHERE,
    Action,
    Assign,
    Cause,
    FleetRules,
    Place,
    Provide,
    SendDrain,
)
from shared.policy.fleet.groups import Groups
from shared.policy.fleet.holes import Holes
from shared.policy.fleet.plans import ROLES, Plans
from shared.policy.fleet.spares import Spares
from shared.policy.fleet.steps import Steps
from shared.policy.fleet.substitutes import Substitutes
from shared.policy.fleet.surplus import Surplus


class Staffing:
    """Gives orders. `strays` are ready workers that have no place in the map: their group is full, closed or newer."""

    def __init__(
        self, plans: Plans, groups: Groups, census: Census, substitutes: Substitutes, rules: FleetRules
    ) -> None:
        self._plans = plans
        self._groups = groups
        self._census = census
        self._substitutes = substitutes
        self._rules = rules
        self.holes = Holes(groups, substitutes, rules)
        self.spares = Spares(rules)
        self.steps = Steps()
        self.leaving: dict[str, Epoch] = {}  # told to drain, and have not said so yet
        self._surplus = Surplus(plans, groups, self.holes, census, spares=self.spares, substitutes=substitutes)
        self._strays: dict[str, Place] = {}  # that said so since the last orders
        self._degraded: dict[str, Place] = {}  # members
        self._put_off: dict[Place, None] = {}  # places to be looked at when orders can be given again
        self._told: int | None = None  # of what the provisioner is to bring
        self._orders: list[Action] = []

    def begin_lead(self, now: float) -> None:
        """Forget what was true under another lead."""
        self.holes.settle(now)
        self._told = None

    def suits(self, seen: Seen, place: Place) -> bool:
        """Whether a worker runs what its place is to run."""
        key = (place.scenario, place.group)
        group = self._plans.group(key)
        return seen.revision == group.revision if group is not None else self._plans.adopts(key) and not seen.revision

    def place(self, seen: Seen, place: Place, *, held: bool) -> None:
        """Enter a worker that is ready into the map, if its place has room for it and it is not held off."""
        name, before = seen.instance, self._groups.place(seen.instance)
        if before == place:
            self._keep(seen, place)
            return
        if before is not None:
            self._groups.leave(name, Cause.NEW_EPOCH)
            self._gone(name)
            self.holes.check(before)
        if held:
            return
        adopting = self._plans.adopts((place.scenario, place.group))
        if not self.suits(seen, place) or not (adopting or self._surplus.over(place) < 0):
            self._strays[name] = place
            return
        if adopting:
            self._plans.adopt(place, len(self._groups.seats(place)) + 1)
        self._groups.enter(name, seen.epoch, place, Cause.READY if before is None else Cause.NEW_EPOCH)
        self._feel(seen, place)

    def joined(self, instances: list[str], now: float) -> list[Action]:
        """Tell of the holes that those filled who have joined now."""
        told: list[Action] = []
        for instance in instances:
            place = self._groups.place(instance)
            if place is not None and (substituted := self.steps.joined(instance, place, now)) is not None:
                told.append(substituted)
        return told

    def lost(self, instance: str, place: Place, cause: Cause, now: float) -> None:
        """Note that a member has left its place, which is owed another."""
        self._gone(instance)
        self.holes.owe(place, cause)
        self.steps.open(place, cause, now)

    def settled(self, scenario: str) -> bool:
        """Whether all is as planned and nobody is on the way."""
        if not self.holes.settled or self.holes.short(scenario):
            return False
        for key in self._groups.group_keys(scenario):
            if self._groups.phase(key) is not GroupPhase.OPEN or self._groups.unjoined(key):
                return False
            for place in (Place(*key, role) for role in ROLES):
                coming = self._substitutes.on_the_way(place) or self._substitutes.leaving(place)
                if coming or self.holes.replacing(place) or self._surplus.over(place) > 0:
                    return False
        return True

    def _keep(self, seen: Seen, place: Place) -> None:
        """Hear a member. Its new epoch needs new verification if its process is new, too."""
        seat = self._groups.seats(place)[seen.instance]
        if seat.epoch != seen.epoch:
            same = seat.joined and seen.life <= seat.epoch
            self._groups.enter(seen.instance, seen.epoch, place, Cause.NEW_EPOCH, joined=same)
        self._feel(seen, place)
        if self._surplus.over(place) > 0:
            self._groups.touched[place] = None

    def _feel(self, seen: Seen, place: Place) -> None:
        """Note how well a member is."""
        if seen.health is Health.DEGRADED:
            self._degraded[seen.instance] = place
        elif self._degraded.pop(seen.instance, None) is not None:
            self.holes.keep(seen.instance)

    def _gone(self, instance: str) -> None:
        """Note that it is no member any more."""
        self._degraded.pop(instance, None)
        self.holes.keep(instance)

    def next_deadline(self) -> float | None:
        """Say when `orders` should be asked next."""
        moments = (self.holes.next_deadline(), self.spares.next_deadline())
        return min((at for at in moments if at is not None), default=None)

    def orders(self, places: list[Place], now: float, *, give: bool) -> list[Action]:
        """Say who is to do what, now that these places have changed. Whoever gets an order has left the map.

        Where none can be given, all that is to be done is only noted.
        """
        for place in places:
            if self.holes.look(place) == 0:
                self.steps.forget(place)
        self.holes.complete()
        if not give:
            self._put_off.update(dict.fromkeys(places))
            return []
        places = list(dict.fromkeys([*self._put_off, *places]))
        self._put_off.clear()
        strays, self._strays = self._strays, {}
        if self.holes.settled:
            self._use_strays(strays, now)
            for place in places:
                self._move(place, now, planned=True)
        self._use_standbys(now)
        if self.holes.settled:
            for place in places:
                self._move(place, now)
                self._dismiss_replaced(place)
                self._send_home(place, now)
            for instance, place in strays.items():
                if self._idle(instance):
                    self._order(instance, NOWHERE, Cause.SURPLUS, now, was=place)
            self._orders += self.spares.release(self._census.epoch, now)
        self._provide()
        orders, self._orders = self._orders, []
        return orders

    def reorder(self, instance: str) -> None:
        """Repeat the order of one that seems not to have heard it."""
        sent = self._substitutes.get(instance)
        if sent is not None:
            self._orders.append(self._assign(instance, sent.place, Cause.ASSIGN_FAILED))

    # ---- sources

    def _use_strays(self, strays: dict[str, Place], now: float) -> None:
        for instance, place in strays.items():
            hole = self.holes.first(place.scenario)
            if hole is not None and self._idle(instance):
                self._order(instance, *hole, now, was=place)

    def _move(self, place: Place, now: float, *, planned: bool = False) -> None:
        """Re-role surplus members in place: first into holes that the plan made, then into any."""
        while (hole := self._hole_of(place.scenario, planned=planned)) is not None:
            seen = self._surplus.choose(place)
            if seen is None or seen.health is not Health.OK:
                return
            self._groups.leave(seen.instance, Cause.PLANNED)
            self._order(seen.instance, *hole, now, was=place)

    def _hole_of(self, scenario: str, *, planned: bool) -> tuple[Place, Cause] | None:
        hole = self.holes.first(scenario)
        return None if hole is None or (planned and hole[1] is not Cause.PLANNED) else hole

    def _use_standbys(self, now: float) -> None:
        while self.spares.any and (hole := self.holes.first()) is not None:
            self._order(self.spares.take(), *hole, now)
        if not self.holes.settled:
            return
        for instance, place in list(self._degraded.items()) if self.spares.free else ():
            if not self.spares.free:
                return
            missed = self._groups.place(instance) == place and self._surplus.over(place) <= 0
            if missed and not self.holes.replacing(place):
                self.holes.replace(instance, place)
                self.steps.open(place, Cause.DEGRADED, now)
                self._order(self.spares.take(), place, Cause.DEGRADED, now)

    def _dismiss_replaced(self, place: Place) -> None:
        while (seen := self._surplus.replaced(place)) is not None:
            self.leaving[seen.instance] = seen.epoch
            self._groups.leave(seen.instance, Cause.DEGRADED)
            self._gone(seen.instance)
            self._orders.append(SendDrain(seen.instance, Cause.DEGRADED))

    def _send_home(self, place: Place, now: float) -> None:
        """Let those become standbys for whom the scenario has no use."""
        while (seen := self._surplus.choose(place)) is not None:
            self._groups.leave(seen.instance, Cause.SURPLUS)
            self._gone(seen.instance)
            self._order(seen.instance, NOWHERE, Cause.SURPLUS, now, was=place)

    # ---- orders

    def _order(self, instance: str, place: Place, cause: Cause, now: float, *, was: Place | None = None) -> None:
        if self._substitutes.get(instance) is not None:  # of an earlier lead, whose order it has not obeyed
            self.holes.check(self._substitutes.failed(instance, now, pause=False))
        self._substitutes.send(instance, self._census.epoch(instance), place, now, was=was)
        self._census.ignore_silence(instance)  # whatever it does now, the order has its own time limits
        if place != NOWHERE:
            self.steps.begin(instance, place, "ordered", now)
            self.holes.look(place)
            self._groups.touched[place] = None
        self._orders.append(self._assign(instance, place, cause))

    def _assign(self, instance: str, place: Place, cause: Cause) -> Assign:
        return Assign(instance, place.role, place.scenario, place.group, cause, self._plans.revision(place))

    def _idle(self, instance: str) -> bool:
        """Whether a stray can still be given an order."""
        seen: Seen | None = self._census.get(instance)
        free = self._groups.place(instance) is None and self._substitutes.get(instance) is None
        return seen is not None and seen.role is not Role.STANDBY and free and self.spares.fit(instance)

    def _provide(self) -> None:
        """Tell the provisioner how many are missing, when that has changed."""
        if not self._rules.provide or not self.holes.settled:
            return
        coming = self._substitutes.on_the_way(NOWHERE)
        spare = max(0, self._rules.standbys - self.spares.free - coming)
        waiting = sum(not self.holes.replaced(one) for one in self._degraded) if self._rules.standbys == 0 else 0
        # Those that said no are there and are asked again: what none can become, no number of new ones would.
        missing = max(0, self.holes.lacking + spare + waiting - self.spares.refusing)
        if missing != self._told:
            self._told = missing
            self._orders.append(Provide(missing))
