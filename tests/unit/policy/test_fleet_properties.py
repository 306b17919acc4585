"""Whatever is lost, repeated or reordered, whoever dies or leads: one loss, one substitute; maps only go forward.

With plans that change: nobody joins unverified, no move leaves a place below what it is to have, and in the end all is
as planned.
"""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from shared.messages import Health, Role, State
from shared.policy.fleet.events import FleetRules, Place
from shared.policy.plan import GroupPlan, Plan
from tests.unit.policy.fleet_healing import heal
from tests.unit.policy.fleet_world import BRISK, PATIENT, FleetWorld

EXAMPLES = int(os.environ.get("BATON_EXAMPLES", "0"))
"""To look for more: so many examples, others each time. Else they are few, and the same in every run: what is found
once in thousands of histories is to be looked for, and says nothing of the change whose run happens to find it."""
INDEX = st.integers(0, 1000)
SIZES = st.integers(1, 3)


class LossyFleet(RuleBasedStateMachine):
    """Rules are the faults of the world; its own assertions are the properties."""

    times: FleetRules = PATIENT

    def __init__(self) -> None:
        super().__init__()
        self.world = FleetWorld(self.times)

    def pick(self, which: int) -> str:
        names = list(self.world.instances.by_name)
        return names[which % len(names)]

    @precondition(lambda self: self.world.instances.by_name)
    @rule(which=INDEX)
    def instance_dies(self, which: int) -> None:
        del self.world.instances.by_name[self.pick(which)]

    @rule(name=st.sampled_from(("p1", "d1", "d2")), ready=st.booleans())
    def worker_is_started_again(self, name: str, *, ready: bool) -> None:
        role = Role.PREFILL if name == "p1" else Role.DECODE
        state = State.READY if ready else State.STARTING
        self.world.instances.start(name, role, Place("chat", "main", role), state=state)

    @rule()
    def standby_comes(self) -> None:
        self.world.beat(self.world.instances.add_standby())

    @precondition(lambda self: self.world.instances.by_name)
    @rule(which=INDEX)
    def instance_goes_on_with_what_it_was_told(self, which: int) -> None:
        name = self.pick(which)
        self.world.go_on(name)
        self.world.beat(name)

    @precondition(lambda self: self.world.instances.by_name)
    @rule(which=INDEX)
    def worker_drains(self, which: int) -> None:
        one = self.world.instances.by_name[self.pick(which)]
        if one.state is State.READY:
            one.state = State.DRAINING

    @precondition(lambda self: self.world.instances.by_name)
    @rule(which=INDEX)
    def lease_is_renewed_under_a_new_epoch(self, which: int) -> None:
        one = self.world.instances.by_name[self.pick(which)]
        if one.told is None:
            one.epoch = self.world.instances.next_epoch()

    @rule()
    def all_say_how_they_are(self) -> None:
        self.world.say_all()

    @precondition(lambda self: self.world.pipe)
    @rule(which=st.lists(INDEX, min_size=1, max_size=6))
    def messages_arrive_in_any_order(self, which: list[int]) -> None:
        for index in which:
            if self.world.pipe:
                self.world.deliver(index)

    @rule()
    def all_messages_arrive(self) -> None:
        self.world.deliver_all()

    @precondition(lambda self: self.world.pipe)
    @rule(which=INDEX)
    def message_is_lost(self, which: int) -> None:
        self.world.pipe.pop(which % len(self.world.pipe))

    @precondition(lambda self: self.world.pipe)
    @rule(which=INDEX)
    def message_comes_twice(self, which: int) -> None:
        self.world.pipe.append(self.world.pipe[which % len(self.world.pipe)])

    @precondition(lambda self: self.world.leader is not None)
    @rule()
    def orders_time_out(self) -> None:
        self.world.time_out_orders()

    @precondition(lambda self: self.world.leader is not None)
    @rule(which=INDEX)
    def leases_are_watched(self, which: int) -> None:
        known = [seen.instance for seen in self.world.monitors[self.world.leader or 0]._census]
        if known:
            self.world.lease_watch(known[which % len(known)])

    @rule(monitor=st.sampled_from((0, 1, None)))
    def lead_changes(self, monitor: int | None) -> None:
        if monitor != self.world.leader:
            self.world.elect(monitor)

    @rule(seconds=st.sampled_from((0.2, 0.6, 1.4)))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    def teardown(self) -> None:
        heal(self.world)


class ChangingFleet(LossyFleet):
    """The same with plans that change, members that move, and newcomers that cannot be reached."""

    times = BRISK

    @precondition(lambda self: self.world.leader is not None)
    @rule(prefill=SIZES, decode=SIZES, second=st.one_of(st.none(), st.tuples(SIZES, SIZES)))
    def plan_changes(self, prefill: int, decode: int, second: tuple[int, int] | None) -> None:
        groups = (GroupPlan("main", prefill, decode),)
        if second is not None:
            groups += (GroupPlan("two", *second),)
        self.world.plan(Plan("chat", groups))

    @precondition(lambda self: self.world.leader is not None)
    @rule(prefill=SIZES, decode=SIZES)
    def group_gives_way_to_another(self, prefill: int, decode: int) -> None:
        self.world.plan(Plan("chat", (GroupPlan("three", prefill, decode),)))

    @precondition(lambda self: self.world.instances.by_name)
    @rule(which=INDEX, health=st.sampled_from(Health))
    def health_changes(self, which: int, health: Health) -> None:
        self.world.instances.by_name[self.pick(which)].health = health

    @precondition(lambda self: self.world.instances.by_name)
    @rule(which=INDEX)
    def newcomer_is_out_of_reach(self, which: int) -> None:
        one = self.world.instances.by_name[self.pick(which)]
        if one.role is Role.DECODE and one.state is State.STARTING:
            one.deaf = True


TestLossyFleet = LossyFleet.TestCase
TestLossyFleet.settings = settings(
    max_examples=EXAMPLES or 50,
    derandomize=not EXAMPLES,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestChangingFleet = ChangingFleet.TestCase
TestChangingFleet.settings = TestLossyFleet.settings
