"""Two monitors, workers and standbys, a store for the maps, and a pipe that loses, repeats and reorders what is said.

With the rules `PATIENT` no order runs out by itself and nothing is settled: then one loss must never bring two
substitutes, whoever leads. With `BRISK` plans change, members are re-roled and newcomers may be out of reach.
"""

from collections import Counter
from collections.abc import Callable

from shared.messages import InstanceRecord, Role, ScenarioMap, State
from shared.policy.fleet import Fleet
from shared.policy.fleet.events import (
    NOWHERE,
    Action,
    Assign,
    AssignAccepted,
    AssignFailed,
    Cause,
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
from shared.policy.fleet.plans import ROLES
from shared.policy.plan import GroupPlan, Plan
from shared.policy.world import PulseSeen, StatusSeen, Tick
from tests.unit.policy.fleet_instances import Instances

FIRST_PLAN = Plan("chat", (GroupPlan("main", 1, 2),))
FOREVER = 1e6
PATIENT = FleetRules(
    settle_s=FOREVER,
    begin_s=FOREVER,
    doubt_s=FOREVER,
    assign_tries=1_000_000,
    ready_s=FOREVER,
    starting_silence_s=FOREVER,
    retry_s=0.5,
    verify_s=FOREVER,
    flaps=1_000_000,
)
BRISK = FleetRules(
    settle_s=1.0,
    assign_s=0.5,
    begin_s=2.0,
    drain_s=1.0,
    doubt_s=2.0,
    ready_s=4.0,
    starting_silence_s=2.0,
    retry_s=0.5,
    retry_max_s=1.0,
    unfit_s=1.0,
    verify_s=1.5,
    form_s=4.0,
    hold_off_s=2.0,
    hold_off_max_s=4.0,
)


class FleetWorld:
    """Performs what the leader asks for, at once or never."""

    def __init__(self, rules: FleetRules = PATIENT) -> None:
        self.now = 0.0
        self.rules = rules
        self.monitors = [Fleet([FIRST_PLAN], rules), Fleet([FIRST_PLAN], rules)]
        self.leader: int | None = None
        self.term = 0
        self.losses: Counter[Place] = Counter()
        self.filled: Counter[Place] = Counter()  # by substitutes that became ready
        self.stored: ScenarioMap | None = None
        self.instances = Instances()
        self.pipe: list[Callable[[], None]] = []
        for name, role in (("p1", Role.PREFILL), ("d1", Role.DECODE), ("d2", Role.DECODE)):
            self.instances.start(name, role, Place("chat", "main", role))
        for _ in range(2):
            self.instances.add_standby()
        self.all_speak()
        self.elect(0)
        for _ in range(2):
            self.all_speak()
        assert self.monitors[0].map("chat") is not None

    # ---- what is said

    def beat(self, name: str) -> None:
        said = self.instances.status(name)
        for monitor in range(2):
            self.pipe.append(lambda monitor=monitor: self.feed(monitor, StatusSeen(said)))  # type: ignore[misc]

    def tell_links(self, name: str) -> None:
        said = self.instances.links(name, self.stored)
        for monitor in range(2):
            self.pipe.append(lambda monitor=monitor: self.feed(monitor, LinksSeen(said)))  # type: ignore[misc]

    def say_all(self) -> None:
        for one in self.instances:
            self.beat(one.name)
            if one.role is Role.PREFILL and one.state is State.READY:
                self.tell_links(one.name)

    def all_speak(self) -> None:
        self.say_all()
        self.deliver_all()

    def go_on(self, name: str) -> None:
        one = self.instances.by_name[name]
        before, told = one.state, one.told
        self.instances.go_on(name)
        if before is State.STARTING and one.state is State.READY and told is not None:
            self.filled[told] += 1

    # ---- the monitors

    def elect(self, monitor: int | None) -> None:
        if self.leader is not None:
            self.feed(self.leader, LeaderLost())
        self.leader = monitor
        self.term += 1
        if monitor is not None:
            maps = () if self.stored is None else (self.stored,)
            records = tuple(
                InstanceRecord(one.name, one.role, one.state, one.epoch, "chat", one.place.group if one.place else "")
                for one in self.instances
            )
            self.feed(monitor, LeaderGained(self.instances.next_epoch(), maps, records))

    def plan(self, plan: Plan) -> None:
        assert self.leader is not None
        self.feed(self.leader, Planned(plan, "a test"))

    def wanted(self) -> dict[Place, int]:
        """As the map has it."""
        assert self.stored is not None
        return {
            Place("chat", group.name, role): count
            for group in self.stored.groups
            for role, count in zip(ROLES, (group.prefills, group.decodes), strict=True)
        }

    def feed(self, monitor: int, event: Event) -> None:
        actions = self.monitors[monitor].handle(event, self.now)
        assert not actions or monitor == self.leader, "only the leader acts"
        sent = {one.instance for one in actions if isinstance(one, Assign)}
        sent |= {one.instance for one in actions if isinstance(one, SendDrain) and one.cause is Cause.DEGRADED}
        for action in actions:
            self.perform(monitor, action, sent)

    def perform(self, monitor: int, action: Action, sent: set[str]) -> None:
        if isinstance(action, PublishMap):
            self.publish(action.map, sent)
        elif isinstance(action, Assign):
            self.check_order(monitor, action)
            self.pipe.append(lambda term=self.term: self.carry_order(monitor, action, term))  # type: ignore[misc]

    def publish(self, new: ScenarioMap, sent: set[str]) -> None:
        before = self.stored
        if before is not None:
            assert (before.epoch, before.version) < (new.epoch, new.version), "maps only go forward"
        listed = [one.instance for group in new.groups for one in (*group.prefill, *group.decode)]
        assert len(listed) == len(set(listed)), "nobody is in two places"
        for group in new.groups:
            for member in (*group.prefill, *group.decode):
                assert (member.instance, member.epoch) in self.instances.was_ready, "only who was ready is a member"
        self.stored = new
        for place in self.places(before, new):
            left = set(self.seats(place, before)) - set(self.seats(place, new))
            self.losses[place] += len(left - sent)
            for name in left & sent:
                if self.monitors[self.leader or 0]._census.epoch(name) != self.seats(place, before)[name][0]:
                    continue  # it was lost: another life of it was sent
                self.check_move(name, place, before, new)
            self.check_joined(place, before, new)

    def places(self, *maps: ScenarioMap | None) -> list[Place]:
        names = dict.fromkeys(group.name for one in maps if one is not None for group in one.groups)
        return [Place("chat", name, role) for name in names for role in ROLES]

    def seats(self, place: Place, among: ScenarioMap | None) -> dict[str, tuple[tuple[int, int], bool]]:
        groups = [] if among is None else [group for group in among.groups if group.name == place.group]
        members = [one for group in groups for one in (group.prefill if place.role is Role.PREFILL else group.decode)]
        return {one.instance: (one.epoch, one.joined) for one in members}

    def members(self, place: Place) -> list[str]:
        return list(self.seats(place, self.stored))

    # ---- what must be true

    def check_move(self, name: str, place: Place, before: ScenarioMap | None, new: ScenarioMap) -> None:
        """Whoever is sent elsewhere is not missed."""
        if self.seats(place, before)[name][1]:
            serving = sum(joined for _, joined in self.seats(place, new).values())
            assert serving >= self.wanted().get(place, 0), "a move leaves fewer than wanted"

    def check_joined(self, place: Place, before: ScenarioMap | None, new: ScenarioMap) -> None:
        """Whoever joins has been verified with all who had joined, unless it is the only one that serves there."""
        across = Place("chat", place.group, Role.DECODE if place.role is Role.PREFILL else Role.PREFILL)
        peers = [(name, epoch) for name, (epoch, joined) in self.seats(across, before).items() if joined]
        peers = [(name, epoch) for name, epoch in peers if self.seats(across, new).get(name, (0, 0))[0] == epoch]
        if place.role is Role.PREFILL:  # a decode that others cannot reach either is no newcomer's fault
            others = [(name, epoch) for name, (epoch, joined) in self.seats(place, new).items() if joined]
            peers = [one for one in peers if not any((*other, *one) in self.instances.missed for other in others)]
        alone = not any(joined for _, joined in self.seats(place, before).values())
        for name, (epoch, joined) in self.seats(place, new).items():
            old_epoch, was_joined = self.seats(place, before).get(name, ((0, 0), False))
            lives = self.instances.life_of
            if not joined or (was_joined and lives[name, epoch] == lives[name, old_epoch]):
                continue
            pairs = [(name, epoch, *peer) if place.role is Role.PREFILL else (*peer, name, epoch) for peer in peers]
            reached = [pair in self.instances.reached for pair in pairs]
            assert all(reached) or (alone and any(reached)), f"{name} joins unverified"

    def check_order(self, monitor: int, order: Assign) -> None:
        """One loss, one substitute; and within one lead none while the place is full, those on the way included."""
        place = Place(order.scenario, order.group, order.role)
        told = self.instances.by_name.get(order.instance)
        if self.monitors[monitor]._substitutes._sent[order.instance].orders > 1:
            assert self.rules is not PATIENT or told is None or told.told in (None, place), "repeated, not changed"
            return
        if place == NOWHERE:
            return
        coming = self.instances.on_their_way(place)
        if self.rules is PATIENT:
            assert self.filled[place] + len(coming) < self.losses[place], "more substitutes than losses"
            assert order.instance not in {one.name for one in coming if one.term == self.term}, "ordered twice"
            coming = [one for one in coming if one.term == self.term]
            assert len(self.members(place)) + len(coming) < self.wanted()[place], "a substitute without a hole"
        sent = self.monitors[monitor]._substitutes.on_the_way(place)
        room = self.wanted()[place] + self.monitors[monitor]._holes.replacing(place)
        assert len(self.members(place)) + sent <= room, "more on their way than are missing"

    # ---- orders, leases, time

    def carry_order(self, monitor: int, order: Assign, term: int) -> None:
        """The order arrives; its answer may be lost on its own."""
        if self.instances.obey(order, term):
            self.pipe.append(lambda: self.feed(monitor, AssignAccepted(order.instance)))
        else:
            self.pipe.append(lambda: self.feed(monitor, AssignFailed(order.instance, "no", certain=True)))

    def lease_watch(self, name: str) -> None:
        """The leader compares what it heard last with the leases."""
        if self.leader is None:
            return
        seen, one = self.monitors[self.leader]._census.get(name), self.instances.by_name.get(name)
        holds = one is not None and one.state is not State.STOPPED and seen is not None and one.epoch == seen.epoch
        if seen is not None and not holds:
            self.feed(self.leader, LeaseLost(name, seen.epoch))

    def time_out_orders(self) -> None:
        """Orders or answers that the pipe has lost."""
        assert self.leader is not None
        for name, sent in list(self.monitors[self.leader]._substitutes._sent.items()):
            if not sent.accepted and sent.doubted is None:
                self.feed(self.leader, AssignFailed(name, "no answer"))

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
