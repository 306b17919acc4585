"""Two monitors, workers and standbys, a store for the maps, and a pipe that loses, repeats and reorders statuses.

Times are such that no order to a standby runs out by itself: then one loss must never bring two substitutes.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from shared.messages import Epoch, InstanceRecord, Role, ScenarioMap, State, Status
from shared.policy.fleet import Fleet
from shared.policy.fleet_events import (
    Action,
    Assign,
    AssignAccepted,
    AssignFailed,
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
from shared.policy.world import PulseSeen, StatusSeen, Tick

WANTED = {Place("chat", "main", Role.PREFILL): 1, Place("chat", "main", Role.DECODE): 2}
FOREVER = 1e6
RULES = FleetRules(
    settle_s=FOREVER,
    begin_s=FOREVER,
    doubt_s=FOREVER,
    assign_tries=1_000_000,
    ready_s=FOREVER,
    starting_silence_s=FOREVER,
    retry_s=0.5,
)


@dataclass
class Instance:
    """The truth about one instance."""

    name: str
    role: Role
    place: Place | None
    epoch: Epoch
    state: State = State.READY
    number: int = 0
    ordered: bool = False  # told to become a worker, and not ready yet
    term: int = 0  # in which lead it was told


class FleetWorld:
    """Performs what the leader asks for, at once or never."""

    def __init__(self) -> None:
        self.now = 0.0
        self.monitors = [Fleet(WANTED, RULES), Fleet(WANTED, RULES)]
        self.leader: int | None = None
        self.term = 0
        self.losses: Counter[Place] = Counter()
        self.filled: Counter[Place] = Counter()  # by substitutes that became ready
        self.epochs = 1
        self.stored: ScenarioMap | None = None
        self.instances: dict[str, Instance] = {}
        self.pipe: list[Callable[[], None]] = []
        self.standbys = 0
        self.was_ready: set[tuple[str, Epoch]] = set()
        for name, role in (("p1", Role.PREFILL), ("d1", Role.DECODE), ("d2", Role.DECODE)):
            self.start(name, role)
        self.add_standby()
        self.add_standby()
        self.beat_all()
        self.deliver_all()
        self.elect(0)
        self.beat_all()
        self.deliver_all()

    # ---- the instances

    def start(self, name: str, role: Role, *, state: State = State.READY) -> None:
        place = next((place for place in WANTED if place.role is role), None)
        self.instances[name] = Instance(name, role, place, self.next_epoch(), state)

    def next_epoch(self) -> Epoch:
        self.epochs += 1
        return (1, self.epochs)

    def add_standby(self) -> None:
        self.standbys += 1
        self.start(f"s{self.standbys}", Role.STANDBY)

    def beat(self, name: str) -> None:
        one = self.instances[name]
        one.number += 1
        scenario, group = (one.place.scenario, one.place.group) if one.place else ("", "")
        said = Status(one.name, one.epoch, one.role, one.state, scenario, group, number=one.number)
        if one.state is State.READY:
            self.was_ready.add((one.name, one.epoch))
        for monitor in range(2):
            self.pipe.append(lambda monitor=monitor: self.feed(monitor, StatusSeen(said)))  # type: ignore[misc]

    def beat_all(self) -> None:
        for name in self.instances:
            self.beat(name)

    def obey(self, order: Assign, term: int) -> bool:
        """The standby hears the order; False: it cannot."""
        one = self.instances.get(order.instance)
        if one is not None and one.ordered and one.place == Place(order.scenario, order.group, order.role):
            return True  # it has heard the order before
        if one is None or one.role is not Role.STANDBY or one.state is not State.READY:
            return False
        one.place, one.state, one.ordered = Place(order.scenario, order.group, order.role), State.STOPPED, True
        one.term = term
        return True

    def begin(self, name: str) -> None:
        """The process of the new role is up."""
        one = self.instances[name]
        assert one.place is not None
        one.role, one.epoch, one.state, one.number = one.place.role, self.next_epoch(), State.STARTING, 0

    def ready(self, name: str) -> None:
        one = self.instances[name]
        if one.ordered and one.place is not None:
            self.filled[one.place] += 1
        one.state, one.ordered = State.READY, False

    # ---- the monitors

    def elect(self, monitor: int | None) -> None:
        if self.leader is not None:
            self.feed(self.leader, LeaderLost())
        self.leader = monitor
        self.term += 1
        if monitor is not None:
            maps = () if self.stored is None else (self.stored,)
            records = tuple(
                InstanceRecord(one.name, one.role, one.state, one.epoch, "chat", "main")
                for one in self.instances.values()
            )
            self.feed(monitor, LeaderGained(self.next_epoch(), maps, records))

    def feed(self, monitor: int, event: Event) -> None:
        actions = self.monitors[monitor].handle(event, self.now)
        assert not actions or monitor == self.leader, "only the leader acts"
        for action in actions:
            self.perform(monitor, action)

    def perform(self, monitor: int, action: Action) -> None:
        match action:
            case PublishMap(map=scenario_map):
                self.publish(scenario_map)
            case Assign():
                self.check_order(monitor, action)
                self.pipe.append(lambda term=self.term: self.carry_order(monitor, action, term))  # type: ignore[misc]
            case SendDrain() | Retire():
                pass

    def publish(self, scenario_map: ScenarioMap) -> None:
        if self.stored is not None:
            before, after = ((one.epoch, one.version) for one in (self.stored, scenario_map))
            assert before < after, "maps only go forward"
        for group in scenario_map.groups:
            for member in (*group.prefill, *group.decode):
                assert (member.instance, member.epoch) in self.was_ready, "only who was ready is a member"
        before_members = {place: set(self.members(place)) for place in WANTED}
        self.stored = scenario_map
        for place, names in before_members.items():
            self.losses[place] += len(names - set(self.members(place)))

    def check_order(self, monitor: int, order: Assign) -> None:
        """One loss, one substitute; and within one lead none while the place is full, those on the way included."""
        place = Place(order.scenario, order.group, order.role)
        told = self.instances.get(order.instance)
        if self.monitors[monitor]._substitutes._sent[order.instance].orders > 1:
            assert told is None or told.place in (None, place), "an order is repeated, not changed"
            return
        coming = [one for one in self.instances.values() if one.ordered and one.place == place]
        assert self.filled[place] + len(coming) < self.losses[place], "more substitutes than losses"
        sent_by_us = [one for one in coming if one.term == self.term]
        assert len(self.members(place)) + len(sent_by_us) < WANTED[place], "a substitute without a hole"
        assert order.instance not in {one.name for one in sent_by_us}, "ordered twice"

    def members(self, place: Place) -> list[str]:
        groups = [] if self.stored is None else self.stored.groups
        return [
            member.instance
            for group in groups
            if group.name == place.group
            for member in (group.prefill if place.role is Role.PREFILL else group.decode)
        ]

    def carry_order(self, monitor: int, order: Assign, term: int) -> None:
        """The order arrives; its answer may be lost on its own."""
        if self.obey(order, term):
            self.pipe.append(lambda: self.feed(monitor, AssignAccepted(order.instance)))
        else:
            self.pipe.append(lambda: self.feed(monitor, AssignFailed(order.instance, "no", certain=True)))

    def lease_watch(self, name: str) -> None:
        """The leader compares what it heard last with the leases."""
        if self.leader is None:
            return
        seen = self.monitors[self.leader]._census.get(name)
        one = self.instances.get(name)
        holds = one is not None and one.state is not State.STOPPED and seen is not None and one.epoch == seen.epoch
        if seen is not None and not holds:
            self.feed(self.leader, LeaseLost(name, seen.epoch))

    def advance(self, seconds: float) -> None:
        target = self.now + seconds
        for monitor in range(2):
            self.feed(monitor, PulseSeen())
        while (
            due := min((at for at in map(Fleet.next_deadline, self.monitors) if at is not None), default=None)
        ) is not (None) and due <= target:
            self.now = max(self.now, due)
            for monitor in range(2):
                self.feed(monitor, Tick())
        self.now = target

    # ---- the pipe

    def deliver(self, index: int) -> None:
        self.pipe.pop(index % len(self.pipe))()

    def deliver_all(self) -> None:
        while self.pipe:
            self.deliver(0)

    def heal(self) -> None:
        """A leader, a good pipe and standbys enough: every group reaches its size."""
        if self.leader is None:
            self.elect(0)
        for _ in range(40):
            for name, one in list(self.instances.items()):
                if one.ordered and one.state is State.STOPPED:
                    self.begin(name)
                elif one.ordered or one.state is State.STARTING:
                    self.ready(name)
            self.add_standby()
            self.beat_all()
            self.deliver_all()
            for name in [*self.instances, *(name for place in WANTED for name in self.members(place))]:
                self.lease_watch(name)
            self.time_out_orders()
            self.advance(0.4)
        short = {place: count - len(self.members(place)) for place, count in WANTED.items()}
        assert all(missing <= 0 for missing in short.values()) or not self.settled(), short
        alive = {(one.name, one.epoch) for one in self.instances.values()}
        assert self.stored is not None
        for group in self.stored.groups:
            for member in (*group.prefill, *group.decode):
                assert (member.instance, member.epoch) in alive, "the dead have left"

    def settled(self) -> bool:
        """A leader fills the holes that it did not see happen only after settle_s, here never."""
        assert self.leader is not None
        return self.monitors[self.leader]._holes._settled_at is None

    def time_out_orders(self) -> None:
        """Orders or answers that the pipe has lost."""
        assert self.leader is not None
        substitutes = self.monitors[self.leader]._substitutes
        for name, sent in list(substitutes._sent.items()):
            if not sent.accepted and sent.doubted is None:
                self.feed(self.leader, AssignFailed(name, "no answer"))
