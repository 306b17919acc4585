"""How many requests may leave workers that stand still, and which moves are not counted."""

from hypothesis import given
from hypothesis import strategies as st

from shared.messages import State
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import (
    Cause,
    DispatchRules,
    FirstToken,
    HandedOff,
    Offer,
    OfferAccepted,
    Refuse,
    Stalled,
    Withdraw,
)
from shared.policy.hedging import HedgeBudget
from tests.unit.policy.builders import mapped, seen
from tests.unit.policy.dispatchers import dispatcher_of, stream

RULES = DispatchRules(min_hedges=2, hedge_share=0.5, hedge_window_s=10.0)


def took(budget: HedgeBudget, *requests: str, now: float = 0.0, everybody: int = 4, left: str = "d1") -> list[bool]:
    return [budget.take("chat", request, left, everybody, now) for request in requests]


def test_a_share_of_the_open_requests_may_move_within_a_window_and_never_less_than_the_least() -> None:
    assert took(HedgeBudget(RULES), "a", "b", "c", everybody=1) == [True, True, False]
    assert took(HedgeBudget(RULES), "a", "b", "c", "d", everybody=6) == [True, True, True, False]


def test_a_charge_ends_with_its_window() -> None:
    budget = HedgeBudget(RULES)
    assert took(budget, "a", "b", "c", now=0.0) == [True, True, False]
    assert took(budget, "c", now=9.9) == [False]
    assert took(budget, "c", "d", "e", now=10.0) == [True, True, False]
    assert took(budget, now=99.0) == []
    budget._expire(99.0)
    assert (len(budget._charges), dict(budget._of), dict(budget._left)) == (0, {}, {})


def test_scenarios_do_not_share_a_budget() -> None:
    budget = HedgeBudget(RULES)
    took(budget, "a", "b")
    assert budget.take("other", "z", "d9", 1, 0.0)


def test_leaving_one_that_turns_out_to_be_gone_costs_nothing() -> None:
    budget = HedgeBudget(RULES)
    took(budget, "a", left="d1")
    took(budget, "b", left="d2")
    budget.lost("d1")
    budget.lost("d1")
    assert took(budget, "c", "d") == [True, False]


def test_a_request_that_goes_on_returns_its_charge_once_in_a_window() -> None:
    budget = HedgeBudget(RULES)
    took(budget, "a", "b")
    budget.went_on("a")
    assert took(budget, "a", now=5.0) == [True]
    budget.went_on("a")
    assert took(budget, "c", now=5.0) == [False]


def test_a_frozen_worker_of_two_is_covered_in_full_and_one_that_dies_always() -> None:
    dispatcher = dispatcher_of("p1", "d1", "d2", free=100)
    for number in range(40):
        stream(dispatcher, f"r{number}", "d1" if number % 2 else "d2")
    frozen = [f"r{number}" for number in range(1, 40, 2)]
    moved = [dispatcher.handle(Stalled(name, 0), 3.0) for name in frozen]
    assert moved == [[Withdraw(name, 0, Cause.STALLED), Offer(name, 1, "p1", Cause.STALLED)] for name in frozen]
    assert dispatcher.handle(Stalled("r0", 0), 3.0) == []  # one more than the budget: it stays where it is
    assert len(dispatcher.handle(seen("d2", state=State.FAILED), 3.1)) == 2 * 20  # a loss is not charged


def test_a_request_beyond_the_budget_stays_and_may_move_when_asked_again(dispatcher: Dispatcher) -> None:
    dispatcher = dispatcher_of("p1", "d1", free=9, rules=DispatchRules(min_hedges=1, hedge_share=0.0))
    stream(dispatcher, "a")
    stream(dispatcher, "b")
    assert dispatcher.handle(Stalled("a", 0), 1.0) != []
    assert dispatcher.handle(Stalled("b", 0), 1.0) == []
    assert list(dispatcher.holding()) == ["d1", "p1"]
    assert dispatcher.handle(Stalled("b", 0), 11.0) == [
        Withdraw("b", 0, Cause.STALLED),
        Offer("b", 1, "p1", Cause.STALLED),
    ]


@given(
    requests=st.integers(1, 40),
    patience_s=st.sampled_from((1.0, 3.0, 10.0)),
    first_tokens=st.booleans(),
    seconds=st.integers(5, 60),
)
def test_a_fleet_that_is_slow_as_a_whole_is_not_flooded(
    requests: int, patience_s: float, *, first_tokens: bool, seconds: int
) -> None:
    """Every stream stands still wherever it is, for as long as the fleet is slow; prefills may still be fast."""
    rules = DispatchRules(attempts=1000, losses=1000)
    dispatcher = dispatcher_of("p1", "d1", free=1000, rules=rules)
    attempts = dict.fromkeys((f"r{number}" for number in range(requests)), 0)
    for name in attempts:
        stream(dispatcher, name)
    moves: list[float] = []
    now = 0.0
    while now < seconds:
        now += patience_s
        dispatcher.handle(mapped("p1", "d1", version=int(now) + 2), now)
        for name in ("p1", "d1"):
            dispatcher.handle(seen(name, 1000), now)
        for name, attempt in attempts.items():
            for action in dispatcher.handle(Stalled(name, attempt), now):
                assert not isinstance(action, Refuse)
                if isinstance(action, Offer):
                    moves.append(now)
                    attempts[name] = action.attempt
                    key = (name, action.attempt)
                    dispatcher.handle(OfferAccepted(*key, action.instance), now)
                    if first_tokens:
                        dispatcher.handle(FirstToken(*key), now)
                    dispatcher.handle(HandedOff(*key, "d1"), now)
    most = max(rules.min_hedges, int(rules.hedge_share * requests)) + (requests if first_tokens else 0)
    for moment in moves:
        within = [at for at in moves if moment <= at < moment + rules.hedge_window_s]
        assert len(within) <= most, (len(within), most)
