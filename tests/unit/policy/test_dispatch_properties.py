"""Whatever the pipe loses, repeats or reorders, and whoever dies: every request ends once, and nothing leaks."""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from shared.errors import Code
from shared.policy.attempts import Phase
from shared.policy.dispatch_events import Stalled
from shared.policy.routes import RouteRules
from shared.policy.world import BusDown, BusUp, NobodyThere
from tests.unit.policy.relay_world import DECODES, PREFILLS, RelayWorld

WORKERS = (*PREFILLS, *DECODES)
INDEX = st.integers(0, 1000)
EXAMPLES = int(os.environ.get("BATON_EXAMPLES", "80"))
FAULTS = st.sampled_from((None, None, None, Code.ENGINE_FAILED, Code.OVERLOADED, Code.KV_REFUSED))


class LossyRelay(RuleBasedStateMachine):
    """Rules are the faults of the world; its own assertions are the properties."""

    routes = RouteRules()

    def __init__(self) -> None:
        super().__init__()
        self.world = RelayWorld(self.routes)

    @rule(
        patience=st.sampled_from((0.3, 2.0, 50.0)),
        priority=st.integers(-1, 1),
        tenant=st.sampled_from(("a", "b")),
        tokens=st.sampled_from((1, 5000)),
    )
    def request_arrives(self, patience: float, priority: int, tenant: str, tokens: int) -> None:
        self.world.arrive(patience=patience, priority=priority, tenant=tenant, tokens=tokens)

    @precondition(lambda self: self.world.submitted)
    @rule(which=INDEX)
    def client_leaves(self, which: int) -> None:
        self.world.cancel(f"r{which % self.world.submitted + 1}")

    @precondition(lambda self: self.world.pipe)
    @rule(which=st.lists(INDEX, min_size=1, max_size=4))
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

    @precondition(lambda self: self.world.unanswered)
    @rule(which=INDEX)
    def offer_times_out(self, which: int) -> None:
        keys = list(self.world.unanswered)
        self.world.time_out_offer(keys[which % len(keys)])

    @rule(name=st.sampled_from(WORKERS), fails=FAULTS, decode=st.sampled_from(DECODES))
    def worker_works(self, name: str, fails: Code | None, decode: str) -> None:
        if name in self.world.workers:
            self.world.work(name, fails=fails, decode=decode)

    @rule(name=st.sampled_from(WORKERS))
    def worker_beats(self, name: str) -> None:
        if name in self.world.workers:
            self.world.beat(name)

    @rule(name=st.sampled_from(WORKERS))
    def worker_dies_or_returns(self, name: str) -> None:
        if name in self.world.workers:
            self.world.kill(name)
        else:
            self.world.start(name)

    @rule(name=st.sampled_from(WORKERS), twice=st.booleans())
    def nats_says_that_nobody_is_there(self, name: str, *, twice: bool) -> None:
        self.world.feed(NobodyThere(name))
        if twice:
            self.world.now += 0.1
            self.world.feed(NobodyThere(name))

    @rule(which=INDEX)
    def stream_stands_still(self, which: int) -> None:
        held = [one for one in self.world.dispatcher._book._requests.values() if one.phase is Phase.HELD]
        if held:
            request = held[which % len(held)]
            self.world.feed(Stalled(request.request_id, request.attempt))

    @rule(name=st.sampled_from(WORKERS))
    def worker_drains(self, name: str) -> None:
        if name in self.world.workers:
            self.world.workers[name].draining = True
            self.world.workers[name].admission.drain()

    @rule()
    def monitor_announces(self) -> None:
        self.world.announce()

    @rule(down=st.booleans())
    def bus_goes_or_comes(self, *, down: bool) -> None:
        self.world.feed(BusDown() if down else BusUp())

    @rule(seconds=st.sampled_from((0.1, 0.6, 2.5, 30.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    def teardown(self) -> None:
        self.world.feed(BusUp())
        self.world.heal()


class RoutedRelay(LossyRelay):
    """With every preference there is: known beginnings, one prefill fed until it is full, short prompts at decodes."""

    routes = RouteRules(fill=True, affinity=True, local_tokens=100)


TestLossyRelay = LossyRelay.TestCase
TestLossyRelay.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestRoutedRelay = RoutedRelay.TestCase
TestRoutedRelay.settings = settings(TestLossyRelay.settings, max_examples=max(1, EXAMPLES // 4))
