"""Keeps every group at its wanted size: removes who is lost, then puts one substitute in its place.

Owns what follows from what: the census says who is lost, the groups are the maps, the substitutes those on their way.
Observes always, acts only while leader. Sends nothing. Each event's actions come in the order: the map without the
lost, then what is noted about them, then the order to a standby.
"""

from collections.abc import Mapping
from typing import Final, assert_never

from shared.messages import Epoch, Role, ScenarioMap, State, Status
from shared.policy.census import Census, Seen
from shared.policy.fleet_events import (
    Action,
    Assign,
    AssignAccepted,
    AssignFailed,
    Cause,
    ConnectionRefused,
    DrainAsked,
    Event,
    FleetRules,
    LeaderGained,
    LeaderLost,
    LeaseLost,
    Place,
    PublishMap,
    Retire,
    SendDrain,
)
from shared.policy.groups import Groups
from shared.policy.holes import Holes
from shared.policy.substitutes import Sent, Substitutes
from shared.policy.world import BusDown, BusUp, MapSeen, PulseSeen, StatusSeen, Tick

FENCING: Final = frozenset({Cause.LEASE_LOST, Cause.REFUSED, Cause.STUCK, Cause.TOO_SLOW})
"""Losses after which that incarnation never comes back. One that was only silent may."""


class Fleet:
    """The monitor's decider: a lost member leaves the map at once, and one standby is sent for it."""

    def __init__(self, wanted: Mapping[Place, int], rules: FleetRules | None = None) -> None:
        self._rules = rules or FleetRules()
        self._census = Census(self._rules)
        self._groups = Groups(wanted)
        self._substitutes = Substitutes(self._rules)
        self._holes = Holes(self._groups, self._substitutes, self._rules)
        self._leaving: dict[str, Epoch] = {}  # told to drain, and have not said so yet
        self._epoch: Epoch | None = None  # of our lead
        self._notes: list[Action] = []
        self._bus_up = True

    @property
    def leading(self) -> bool:
        """Whether decisions are ours."""
        return self._epoch is not None

    def map(self, scenario: str) -> ScenarioMap | None:
        """Return the scenario's map as decided, or as known, last."""
        return self._groups.map(scenario)

    def next_deadline(self) -> float | None:
        """Say when a Tick is due at the latest; ask again after each event."""
        moments = (self._census.next_deadline(), self._substitutes.next_deadline(), self._holes.next_deadline())
        return min((at for at in moments if at is not None), default=None)

    def handle(self, event: Event, now: float) -> list[Action]:
        """Say what to do, in this order, because of the event."""
        self._elapse(now)
        match event:
            case StatusSeen(status):
                self._see(status, now)
            case PulseSeen():
                self._census.hear(now)
            case LeaseLost() | ConnectionRefused():
                self._miss(event, now)
            case AssignAccepted() | AssignFailed():
                self._answer(event, now)
            case DrainAsked(instance):
                self._drain(instance)
            case LeaderGained() | LeaderLost() | MapSeen():
                self._change_lead(event, now)
            case BusDown() | BusUp():
                self._bus_up = isinstance(event, BusUp)
            case Tick():
                pass
            case _:
                assert_never(event)
        return self._act(now)

    # ---- what is heard

    def _see(self, status: Status, now: float) -> None:
        seen = self._census.see(status, now)
        if seen is None:
            return
        if seen.role is Role.STANDBY:
            self._see_standby(seen, now)
            return
        self._holes.unavailable(seen.instance)
        place = seen.place(self._rules.default_group)
        if place is None:
            return
        match seen.state:
            case State.READY:
                self._see_ready(seen, place, now)
            case State.STARTING:
                self._leave(seen.instance, Cause.NEW_EPOCH)
                self._see_starting(seen, place, now)
            case State.DRAINING:
                self._leaving.pop(seen.instance, None)
                self._leave(seen.instance, Cause.DRAINING)
                self._fail(seen.instance, now)
            case State.STOPPED | State.FAILED:
                self._leaving.pop(seen.instance, None)
                self._leave(seen.instance, Cause.STOPPED)
                self._fail(seen.instance, now)

    def _see_standby(self, seen: Seen, now: float) -> None:
        name = seen.instance
        sent = self._substitutes.get(name)
        if sent is not None and not sent.begun:
            self._census.ignore_silence(name)  # it may fall silent for as long as a process takes to start
            if seen.state is State.READY:
                self._remind(name, sent, now)
            elif seen.state is State.FAILED:
                self._fail(name, now)
            return
        if seen.state is State.READY:
            self._holes.available(name)
        else:
            self._holes.unavailable(name)

    def _remind(self, standby: str, sent: Sent, now: float) -> None:
        """Send the order again to one that seems not to have heard it, or give it up."""
        if not self._substitutes.send_again(standby, now):
            return
        if sent.orders > self._rules.assign_tries:
            self._give_up(standby, now)
        elif self.leading:
            place = sent.place
            self._notes.append(Assign(standby, place.role, place.scenario, place.group, Cause.ASSIGN_FAILED))

    def _see_ready(self, seen: Seen, place: Place, now: float) -> None:
        if self._census.stuck(seen):
            self._lose(seen.instance, Cause.STUCK, now)
            return
        if self._leaving.get(seen.instance) == seen.epoch:
            return
        self._holes.check(self._substitutes.arrived(seen.instance, place))
        if self.leading:
            before = self._groups.place(seen.instance)
            self._groups.join(seen.instance, seen.epoch, place, Cause.READY if before is None else Cause.NEW_EPOCH)
            if before != place:
                self._holes.check(before, place)

    def _see_starting(self, seen: Seen, place: Place, now: float) -> None:
        sent = self._substitutes.get(seen.instance)
        if sent is not None and sent.place != place:
            self._holes.check(self._substitutes.failed(seen.instance, now, pause=False))
            sent = None
        if sent is None:
            self._substitutes.adopt(seen.instance, place, now)
        else:
            self._substitutes.begun(seen.instance)

    def _miss(self, event: LeaseLost | ConnectionRefused, now: float) -> None:
        sent = self._substitutes.get(event.instance)
        if sent is not None and not sent.begun:
            return  # between two lives: the standby's lease and port are gone, the worker's not yet there
        match event:
            case LeaseLost(instance, epoch):
                if self._census.doubt(instance, epoch, now):
                    self._lose(instance, Cause.LEASE_LOST, now)
            case ConnectionRefused(instance, epoch):
                if epoch >= self._census.epoch(instance) and not self._census.speaks(instance, now):
                    self._lose(instance, Cause.REFUSED, now)

    def _answer(self, event: AssignAccepted | AssignFailed, now: float) -> None:
        sent = self._substitutes.get(event.instance)
        if sent is None or sent.begun:
            return
        self._census.ignore_silence(event.instance)
        if isinstance(event, AssignAccepted):
            self._substitutes.accepted(event.instance, now)
        elif event.certain and sent.orders == 1:
            self._give_up(event.instance, now)
        else:  # an order that was repeated may be refused because the first one was obeyed
            self._substitutes.doubted(event.instance, now)

    def _give_up(self, standby: str, now: float) -> None:
        self._census.listen(standby, now)
        self._holes.unfit(standby, now)
        place = self._substitutes.failed(standby, now, pause=False)
        self._holes.check(place, cause=Cause.ASSIGN_FAILED)

    def _drain(self, instance: str) -> None:
        seen = self._census.get(instance)
        if self.leading and seen is not None:
            self._leaving[instance] = seen.epoch
            self._holes.unavailable(instance)
            self._leave(instance, Cause.DRAINING)
            self._notes.append(SendDrain(instance, Cause.DRAINING))

    def _elapse(self, now: float) -> None:
        for instance, cause in self._census.lost(now):
            self._lose(instance, cause, now)
        for instance in self._substitutes.late(now):
            self._lose(instance, Cause.TOO_SLOW, now)
        for place in self._substitutes.rested(now):
            self._holes.check(place)
        self._holes.elapse(now)

    # ---- losses

    def _lose(self, instance: str, cause: Cause, now: float) -> None:
        """Remove one that is taken for lost from everything, the map first."""
        seen, sent = self._census.get(instance), self._substitutes.get(instance)
        if seen is None and sent is None and self._groups.place(instance) is None:
            return
        epoch = self._census.epoch(instance)
        if cause in FENCING:
            self._census.fence(instance, epoch)
        self._census.forget(instance)
        self._holes.unavailable(instance)
        self._leaving.pop(instance, None)
        self._leave(instance, cause)
        self._fail(instance, now, cause)
        if self.leading:
            self._notes.append(Retire(instance, epoch, cause))
            if seen is not None and cause in (Cause.STUCK, Cause.TOO_SLOW):
                self._notes.append(SendDrain(instance, cause))

    def _leave(self, instance: str, cause: Cause) -> None:
        if self.leading and (place := self._groups.leave(instance, cause)) is not None:
            self._holes.owe(place, cause)

    def _fail(self, instance: str, now: float, cause: Cause = Cause.MISSING) -> None:
        self._holes.check(self._substitutes.failed(instance, now), cause=cause)

    # ---- lead

    def _change_lead(self, event: LeaderGained | LeaderLost | MapSeen, now: float) -> None:
        match event:
            case LeaderGained():
                self._take_lead(event, now)
            case LeaderLost():
                self._epoch = None
            case MapSeen(scenario_map):
                if self._epoch is not None and scenario_map.epoch > self._epoch:
                    self._epoch = None  # another leads, and we were the last to hear of it
                if self._epoch is None:
                    self._groups.load(scenario_map)

    def _take_lead(self, event: LeaderGained, now: float) -> None:
        """Take over the maps, bring them up to what we saw, and outrank the leader before us.

        Its orders to standbys are not known to us: holes that it left are filled only when those had time to show.
        """
        for scenario_map in event.maps:
            self._groups.load(scenario_map)
        self._epoch = event.epoch
        self._holes.settle(now)
        for record in event.records:
            seen = self._census.recall(record, now)
            if seen is not None and (place := seen.place(self._rules.default_group)) is not None:
                self._see_starting(seen, place, now)
        for instance, epoch in list(self._groups.members()):
            seen = self._census.get(instance)
            if seen is None:
                self._census.expect(instance, epoch, now)
            elif seen.state is not State.READY or seen.place(self._rules.default_group) is None:
                self._leave(instance, Cause.STOPPED)
        for seen in self._census:
            place = seen.place(self._rules.default_group)
            if place is not None and seen.state is State.READY:
                self._see_ready(seen, place, now)
        self._groups.mark_all(Cause.LED)

    def _act(self, now: float) -> list[Action]:
        notes, self._notes = self._notes, []
        if self._epoch is None:
            return []
        maps = [PublishMap(scenario_map, cause) for scenario_map, cause in self._groups.publish(self._epoch)]
        orders = self._holes.fill(now) if self._bus_up else []
        for order in orders:
            self._census.ignore_silence(order.instance)  # whatever it does now, the order has its own time limits
        return [*maps, *notes, *orders]
