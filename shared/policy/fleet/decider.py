"""Keeps every group as planned: removes who is lost, then puts one substitute in its place; forms and closes groups.

Owns the order of things: the census says who is lost, the groups are the maps, joining says who is verified, staffing
who goes where. Observes always, acts only while leader. Sends nothing. Each event's actions come in the order: the map
without the lost, then what is noted about them, then the orders to standbys and workers.
"""

from collections.abc import Iterable
from typing import assert_never

from shared.messages import Links, Member, ScenarioMap, State
from shared.policy.fleet.arrivals import Arrivals
from shared.policy.fleet.events import (
    Action,
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
    LinksSeen,
    Place,
    Planned,
    PublishMap,
    SendDrain,
)
from shared.policy.fleet.losses import Losses
from shared.policy.fleet.parts import Parts
from shared.policy.plan import Plan
from shared.policy.world import BusDown, BusUp, MapSeen, PulseSeen, StatusSeen, Tick


class Fleet:
    """The monitor's decider: who is in which group, who takes the place of whom, and how far each group is."""

    def __init__(self, plans: Iterable[Plan], rules: FleetRules | None = None) -> None:
        self._parts = Parts(plans, rules or FleetRules())
        self._losses = Losses(self._parts)
        self._arrivals = Arrivals(self._parts, self._losses)
        self._census, self._groups = self._parts.census, self._parts.groups
        self._substitutes, self._holes = self._parts.substitutes, self._parts.holes
        self._bus_up = True

    @property
    def leading(self) -> bool:
        """Whether decisions are ours."""
        return self._parts.leading

    def map(self, scenario: str) -> ScenarioMap | None:
        """Return the scenario's map as decided, or as known, last."""
        return self._groups.map(scenario)

    def plan(self, scenario: str) -> Plan | None:
        """Return what the scenario's groups are to be: as planned, as the map told, or as nobody planned but came."""
        return self._parts.plans.plan(scenario)

    def settled(self, scenario: str) -> bool:
        """Whether all is as planned: no hole, nobody on the way, nobody unverified, no group that forms or closes."""
        return self._parts.staffing.settled(scenario)

    def members(self, scenario: str) -> list[tuple[Place, Member]]:
        """List who is where."""
        return list(self._groups.of(scenario))

    def next_deadline(self) -> float | None:
        """Say when a Tick is due at the latest; ask again after each event."""
        return self._parts.next_deadline()

    def handle(self, event: Event, now: float) -> list[Action]:
        """Say what to do, in this order, because of the event."""
        self._elapse(now)
        match event:
            case StatusSeen(status):
                self._arrivals.see(status, now)
            case LinksSeen(links):
                self._see_links(links)
            case PulseSeen():
                self._census.hear(now)
            case LeaseLost() | ConnectionRefused():
                self._miss(event, now)
            case AssignAccepted() | AssignFailed():
                self._arrivals.answer(event, now)
            case DrainAsked() | Planned():
                self._obey(event, now)
            case LeaderGained() | LeaderLost() | MapSeen():
                self._change_lead(event, now)
            case BusDown() | BusUp():
                self._bus_up = isinstance(event, BusUp)
                self._parts.joining.restart(now)  # what was to be heard was perhaps not
            case Tick():
                pass
            case _:
                assert_never(event)
        return self._act(now)

    # ---- what is heard

    def _see_links(self, links: Links) -> None:
        place = self._groups.place(links.instance)
        if self._parts.joining.see(links) and place is not None:
            self._groups.touched[place] = None

    def _miss(self, event: LeaseLost | ConnectionRefused, now: float) -> None:
        sent = self._substitutes.get(event.instance)
        if sent is not None and not sent.begun:
            return  # between two lives: the lease and the port of the old one are gone, the new one not yet there
        match event:
            case LeaseLost(instance, epoch):
                if self._census.doubt(instance, epoch, now):
                    self._losses.lose(instance, Cause.LEASE_LOST, now)
            case ConnectionRefused(instance, epoch):
                if epoch >= self._census.epoch(instance) and not self._census.speaks(instance, now):
                    self._losses.lose(instance, Cause.REFUSED, now)

    def _obey(self, event: DrainAsked | Planned, now: float) -> None:
        if not self.leading:
            return
        if isinstance(event, Planned):
            self._plan(event.plan, now)
            return
        instance = event.instance
        seen = self._census.get(instance)
        if seen is not None:
            self._parts.staffing.leaving[instance] = seen.epoch
            self._parts.spares.unavailable(instance)
            self._losses.leave(instance, Cause.DRAINING, now)
            self._parts.notes.append(SendDrain(instance, Cause.DRAINING))

    def _plan(self, plan: Plan, now: float) -> None:
        grown = self._parts.plans.take(plan, self._groups.occupied)
        if grown is None:
            return
        for place in grown:
            self._holes.owe(place, Cause.PLANNED)
            self._parts.steps.open(place, Cause.PLANNED, now)
        self._groups.mark(plan.scenario, Cause.PLANNED)
        for key in self._groups.group_keys(plan.scenario):
            self._groups.touch(key)

    def _elapse(self, now: float) -> None:
        parts = self._parts
        for instance, cause in parts.census.lost(now):
            self._losses.lose(instance, cause, now)
        for instance in parts.substitutes.late(now):
            self._losses.lose(instance, Cause.TOO_SLOW, now)
        if not self._bus_up:
            parts.joining.restart(now)
        for instance in parts.joining.unreachable(now):
            self._losses.lose(instance, Cause.UNREACHABLE, now)
        for place in parts.substitutes.rested(now):
            parts.holes.check(place)
        parts.spares.elapse(now)
        parts.forming.elapse(now)
        parts.holes.elapse(now)

    # ---- lead

    def _change_lead(self, event: LeaderGained | LeaderLost | MapSeen, now: float) -> None:
        match event:
            case LeaderGained():
                self._take_lead(event, now)
            case LeaderLost():
                self._parts.epoch = None
            case MapSeen(scenario_map):
                if self._parts.epoch is not None and scenario_map.epoch > self._parts.epoch:
                    self._parts.epoch = None  # another leads, and we were the last to hear of it
                if self._parts.epoch is None:
                    self._groups.load(scenario_map)

    def _take_lead(self, event: LeaderGained, now: float) -> None:
        """Take over the maps, bring them up to what we saw, and outrank the leader before us.

        Its orders to standbys are not known to us: holes that it left are filled only when those had time to show.
        """
        parts = self._parts
        for scenario_map in event.maps:
            self._groups.load(scenario_map)
        parts.epoch = event.epoch
        parts.staffing.begin_lead(now)
        for record in event.records:
            seen = self._census.recall(record, now)
            if seen is not None and (place := seen.place(parts.rules.default_group)) is not None:
                self._arrivals.starting(seen, place, now)
        for instance, epoch in list(self._groups.members()):
            seen = self._census.get(instance)
            if seen is None:
                self._census.expect(instance, epoch, now)
            elif seen.state is not State.READY or seen.place(parts.rules.default_group) is None:
                self._losses.leave(instance, Cause.STOPPED, now)
        for seen in self._census:
            place = seen.place(parts.rules.default_group)
            if place is not None and seen.state is State.READY and not self._between(seen.instance):
                self._arrivals.ready(seen, place, now)
        self._groups.mark_all(Cause.LED)
        for key in self._groups.group_keys():
            self._groups.touch(key)

    def _between(self, instance: str) -> bool:
        """Whether it has an order of ours to become something else."""
        sent = self._substitutes.get(instance)
        return sent is not None and sent.was is not None and not sent.begun

    # ---- what is to be done

    def _act(self, now: float) -> list[Action]:
        parts, touched = self._parts, self._groups.touched
        notes, parts.notes = parts.notes, []
        if parts.epoch is None:
            touched.clear()
            return []
        orders: list[Action] = []
        first = True
        while touched or first:
            places, first = list(touched), False
            touched.clear()
            keys = dict.fromkeys((place.scenario, place.group) for place in places)
            for key in keys:
                notes += parts.staffing.joined(parts.joining.evaluate(key, now), now)
            orders += parts.staffing.orders(list(dict.fromkeys([*places, *touched])), now, give=self._bus_up)
            for key in keys:
                parts.forming.step(key, now)
        maps = [PublishMap(scenario_map, cause) for scenario_map, cause in self._groups.publish(parts.epoch)]
        return [*maps, *notes, *orders]
