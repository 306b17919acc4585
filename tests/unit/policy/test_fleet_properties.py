"""Whatever is lost, repeated or reordered, whoever dies or leads: one loss, one substitute; maps only go forward."""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from shared.messages import Role, State
from tests.unit.policy.fleet_world import FleetWorld

EXAMPLES = int(os.environ.get("BATON_EXAMPLES", "80"))
INDEX = st.integers(0, 1000)


class LossyFleet(RuleBasedStateMachine):
    """Rules are the faults of the world; its own assertions are the properties."""

    def __init__(self) -> None:
        super().__init__()
        self.world = FleetWorld()

    def pick(self, which: int) -> str:
        names = list(self.world.instances)
        return names[which % len(names)]

    @precondition(lambda self: self.world.instances)
    @rule(which=INDEX)
    def instance_dies(self, which: int) -> None:
        del self.world.instances[self.pick(which)]

    @rule(name=st.sampled_from(("p1", "d1", "d2")), ready=st.booleans())
    def worker_is_started_again(self, name: str, *, ready: bool) -> None:
        role = Role.PREFILL if name == "p1" else Role.DECODE
        self.world.start(name, role, state=State.READY if ready else State.STARTING)

    @rule()
    def standby_comes(self) -> None:
        self.world.add_standby()
        self.world.beat(f"s{self.world.standbys}")

    @precondition(lambda self: self.world.instances)
    @rule(which=INDEX)
    def standby_becomes(self, which: int) -> None:
        name = self.pick(which)
        one = self.world.instances[name]
        if one.ordered and one.state is State.STOPPED:
            self.world.begin(name)
        elif one.state is State.STARTING:
            self.world.ready(name)
        self.world.beat(name)

    @precondition(lambda self: self.world.instances)
    @rule(which=INDEX)
    def worker_drains(self, which: int) -> None:
        one = self.world.instances[self.pick(which)]
        if one.state is State.READY:
            one.state = State.DRAINING

    @precondition(lambda self: self.world.instances)
    @rule(which=INDEX)
    def lease_is_renewed_under_a_new_epoch(self, which: int) -> None:
        one = self.world.instances[self.pick(which)]
        if not one.ordered:
            one.epoch = self.world.next_epoch()

    @rule()
    def all_beat(self) -> None:
        self.world.beat_all()

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
        self.world.heal()


TestLossyFleet = LossyFleet.TestCase
TestLossyFleet.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
