"""The wait is shared: whatever comes, leaves or is rejected, no tenant gets more than its weight says, nobody starves.

The bound, for two tenants i and j of one priority that both wait all the time, over any interval of that time: what
they were served (prompt tokens and the fixed cost of each request), divided by their weights, differs by at most the
greatest request of i divided by i's weight plus the same of j. It is start-time fair queueing's own bound.
"""

from itertools import combinations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shared.policy.attempts import REQUEST_TOKENS, OpenRequest
from shared.policy.dispatch_events import DispatchRules
from shared.policy.waiting import Waiting
from tests.unit.policy.builders import arrived
from tests.unit.policy.relay_world import check_shares

WEIGHTS = {"a": 1.0, "b": 1.0, "c": 3.0, "d": 0.25}
TENANTS = st.sampled_from(sorted(WEIGHTS))
TOKENS = st.sampled_from((1, 7, 300, 9000))
INDEX = st.integers(0, 1000)
RULES = DispatchRules(ageing_s=5.0, ageing_turn=4)
ROUNDING = 1e-6


def a_request(number: int, tenant: str = "a", tokens: int = 8, now: float = 0.0, **others: object) -> OpenRequest:
    said = arrived(f"r{number}", tenant=tenant, tokens=tokens, weight=WEIGHTS.get(tenant, 1.0), **others)  # type: ignore[arg-type]
    return OpenRequest.of(said, number, now)


class FairWait(RuleBasedStateMachine):
    """One priority, any schedule. A pair's window is the time for which both have waited without a break."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = Waiting(RULES)
        self.numbers = 0
        self.here: dict[int, OpenRequest] = {}
        self.served: dict[str, float] = dict.fromkeys(WEIGHTS, 0.0)  # by weight
        self.greatest: dict[str, float] = dict.fromkeys(WEIGHTS, 0.0)
        self.windows: dict[tuple[str, str], list[float]] = {}  # what i was served above j, lowest and highest

    def waits(self, tenant: str) -> bool:
        return self.waiting.of(tenant) > 0

    @rule(tenant=TENANTS, tokens=TOKENS, deadline=st.floats(1, 1000), count=st.integers(1, 5))
    def requests_arrive(self, tenant: str, tokens: int, deadline: float, count: int) -> None:
        for _ in range(count):
            self.numbers += 1
            request = a_request(self.numbers, tenant, tokens, deadline=deadline)
            self.here[request.number] = request
            self.greatest[tenant] = max(self.greatest[tenant], request.cost / WEIGHTS[tenant])
            self.waiting.add(request)

    @precondition(lambda self: self.here)
    @rule(slots=st.integers(1, 8))
    def slots_come_free(self, slots: int) -> None:
        for _ in range(slots):
            if self.here:
                request = next(self.waiting.order(0.0))  # work conserving: whoever waits, somebody is next
                self.waiting.take(request)
                del self.here[request.number]
                self.served[request.tenant] += request.cost / WEIGHTS[request.tenant]
                self.the_shares_are_fair()

    @precondition(lambda self: self.here)
    @rule()
    def the_next_is_rejected_by_its_worker(self) -> None:
        request = next(self.waiting.order(0.0))
        self.waiting.take(request)
        self.waiting.add(request)

    @precondition(lambda self: self.here)
    @rule(which=INDEX)
    def a_client_leaves(self, which: int) -> None:
        self.waiting.discard(self.here.pop(list(self.here)[which % len(self.here)]))

    @precondition(lambda self: len(self.here) > 20)
    @rule()
    def the_wait_is_full(self) -> None:
        held = {tenant: self.waiting.of(tenant) / weight for tenant, weight in WEIGHTS.items()}
        victim = self.waiting.most()
        assert held[victim.tenant] == max(held.values())
        assert victim.rank == max(one.rank for one in self.here.values() if one.tenant == victim.tenant)
        self.waiting.discard(self.here.pop(victim.number))

    @invariant()
    def nothing_is_lost(self) -> None:
        order = [request.number for request in self.waiting.order(0.0)]
        assert sorted(order) == sorted(self.here)
        assert self.waiting.fresh == len(order)
        for shares in self.waiting._shares.values():
            check_shares(shares)

    @invariant()
    def within_a_tenant_the_earliest_deadline_goes_first(self) -> None:
        for tenant in WEIGHTS:
            mine = [request.rank for request in self.waiting.order(0.0) if request.tenant == tenant]
            assert mine == sorted(mine)

    @invariant()
    def the_shares_are_fair(self) -> None:
        for i, j in combinations(WEIGHTS, 2):
            if not (self.waits(i) and self.waits(j)):
                self.windows.pop((i, j), None)
                continue
            above = self.served[i] - self.served[j]
            window = self.windows.setdefault((i, j), [above, above])
            window[:] = min(window[0], above), max(window[1], above)
            assert window[1] - window[0] <= self.greatest[i] + self.greatest[j] + ROUNDING


TestFairWait = FairWait.TestCase
TestFairWait.settings = settings(
    max_examples=120, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@given(
    mine=st.lists(TOKENS, min_size=1, max_size=10),
    flood=st.lists(TOKENS, min_size=1, max_size=60),
    weights=st.tuples(st.sampled_from((0.5, 1.0, 4.0)), st.sampled_from((0.5, 1.0, 4.0))),
)
def test_a_flood_delays_another_tenant_by_its_own_share_and_one_request(
    mine: list[int], flood: list[int], weights: tuple[float, float]
) -> None:
    waiting = Waiting(RULES)
    requests = [("flood", tokens, weights[0]) for tokens in flood] + [("mine", tokens, weights[1]) for tokens in mine]
    for number, (tenant, tokens, weight) in enumerate(requests):
        said = arrived(f"r{number}", tenant=tenant, tokens=tokens, weight=weight, deadline=float(number))
        waiting.add(OpenRequest.of(said, number, 0.0))
    greatest = max(flood) + REQUEST_TOKENS
    own = others = 0
    while len(waiting):
        request = next(waiting.order(0.0))
        waiting.take(request)
        if request.tenant == "flood":
            others += request.cost
        else:
            assert others <= own * weights[0] / weights[1] + greatest + ROUNDING
            own += request.cost


@given(st.lists(st.tuples(st.booleans(), TENANTS, TOKENS), min_size=1, max_size=120))
def test_a_priority_that_has_waited_long_gets_its_turn_whatever_waits_before_it(
    schedule: list[tuple[bool, str, int]],
) -> None:
    waiting, now, passed, served = Waiting(RULES), 0.0, 0, set()
    low = a_request(0, "a", now=0.0, priority=5)
    waiting.add(low)
    for number in range(1, 9):
        waiting.add(a_request(number, "b", now=0.0))
    for number, (more, tenant, tokens) in enumerate(schedule, start=10):
        now += 0.5
        waiting.add(a_request(number, tenant, tokens, now=now))
        if more:
            waiting.add(a_request(number + 1000, tenant, tokens, now=now))
        request = next(waiting.order(now))
        waiting.take(request)
        served.add(request.number)
        passed = passed + 1 if now >= RULES.ageing_s and low.number not in served else 0
        assert passed < RULES.ageing_turn
        assert now < RULES.ageing_s or request.priority == 0 or low.number in served


def test_a_higher_priority_goes_first_while_nobody_has_waited_long() -> None:
    waiting = Waiting(RULES)
    for number in range(10):
        waiting.add(a_request(number, priority=number % 2))
    order = []
    while len(waiting):
        order.append(next(waiting.order(4.9)))
        waiting.take(order[-1])
    assert [request.priority for request in order] == [0] * 5 + [1] * 5


def test_those_that_lost_their_worker_go_before_every_priority() -> None:
    waiting = Waiting(RULES)
    waiting.add(a_request(1, priority=-5))
    lost = a_request(2, priority=5)
    lost.accepted = True
    waiting.add(lost)
    assert [request.number for request in waiting.order(0.0)] == [2, 1]


def test_a_tenant_that_comes_back_is_owed_nothing_for_the_time_it_was_away() -> None:
    waiting = Waiting(RULES)
    waiting.add(a_request(1, "b"))
    for number in range(10, 30):
        waiting.add(a_request(number, "a"))
    for _ in range(11):
        waiting.take(next(waiting.order(0.0)))
    for number in range(40, 50):
        waiting.add(a_request(number, "b"))
    turns = []
    for _ in range(10):
        turns.append(next(waiting.order(0.0)))
        waiting.take(turns[-1])
    assert sum(request.tenant == "b" for request in turns) in (5, 6)


def test_offers_that_were_rejected_are_not_charged() -> None:
    waiting = Waiting(RULES)
    for number in range(6):
        waiting.add(a_request(number, "a" if number % 2 else "b", tokens=10 * number))
    before = list(waiting.order(0.0))
    for request in [*before, before[0], before[0]]:
        waiting.take(request)
        waiting.add(request)
    assert list(waiting.order(0.0)) == before


def test_offers_in_vain_that_had_emptied_the_wait_put_nobody_ahead() -> None:
    waiting = Waiting(RULES)
    offered = [a_request(number, "a") for number in range(10)]
    for request in offered:
        waiting.add(request)
    for request in offered:
        waiting.take(request)
    for request in [*offered, *(a_request(number, "b") for number in range(10, 20))]:
        waiting.add(request)
    assert "".join(request.tenant for request in waiting.order(0.0)) == "ab" * 10


def test_the_estimate_is_by_the_tenants_own_share() -> None:
    waiting = Waiting(RULES)
    for number in range(100):
        waiting.add(a_request(number, "a"))
    for second in range(10):  # a slot each second
        waiting.pace.got(float(second), 8 + REQUEST_TOKENS, others_wait=True)
    newcomer, another = a_request(200, "b"), a_request(201, "a", deadline=500.0)
    waiting.add(newcomer)
    waiting.add(another)
    served = list(waiting.order(0.0))
    for request in (newcomer, another):
        said = waiting.wait_s(request)
        assert said is not None
        assert abs(said - (served.index(request) + 1)) <= 1.0
    assert (waiting.wait_s(newcomer) or 0) < 3
    assert (waiting.wait_s(another) or 0) > 90


@given(st.lists(TENANTS, min_size=1, max_size=80), TOKENS, INDEX)
def test_the_estimate_is_what_is_really_served_before_within_a_request_of_each_other_tenant(
    tenants: list[str], tokens: int, which: int
) -> None:
    waiting = Waiting(RULES)
    for number, tenant in enumerate(tenants):
        waiting.add(a_request(number, tenant, tokens))
    order = list(waiting.order(0.0))
    target = order[which % len(order)]
    real = order.index(target) + 1
    said = waiting._shares[0].ahead(target) / target.cost
    assert abs(said - real) <= len(set(tenants)) - 1 + ROUNDING
