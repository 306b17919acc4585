"""Which worker a dispatcher offers a request to, what follows its answer, and what happens where no worker is there."""

from shared.errors import Code
from shared.messages import State
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import (
    Cause,
    DispatchRules,
    Offer,
    OfferRejected,
    OfferUnanswered,
    Refuse,
    Withdraw,
)
from shared.policy.world import BusDown, BusUp, Tick
from tests.unit.policy.builders import arrived, mapped, seen
from tests.unit.policy.dispatchers import dispatcher_of, stream


def test_an_arrival_is_offered_to_the_worker_with_the_fewest_streams() -> None:
    dispatcher = dispatcher_of("p1", "p2", "d1", free=4)
    dispatcher.handle(seen("p1", 1, slots=4), 0.0)
    assert dispatcher.handle(arrived("a"), 0.0) == [Offer("a", 0, "p2", Cause.ARRIVED)]


def test_a_rejected_request_goes_to_the_next_candidate_under_its_own_attempt_number() -> None:
    dispatcher = dispatcher_of("p1", "p2", "d1")
    [first] = dispatcher.handle(arrived("a"), 0.0)
    assert isinstance(first, Offer)
    second = "p2" if first.instance == "p1" else "p1"
    rejected = OfferRejected("a", 0, first.instance, Code.OVERLOADED)
    assert dispatcher.handle(rejected, 0.1) == [Offer("a", 1, second, Cause.REJECTED)]


def test_a_request_that_all_reject_waits_and_a_freed_slot_draws_it(dispatcher: Dispatcher) -> None:
    dispatcher.handle(arrived("a"), 0.0)
    assert dispatcher.handle(OfferRejected("a", 0, "p1", Code.OVERLOADED), 0.1) == []
    assert dispatcher.waiting("chat") == 1
    assert dispatcher.handle(seen("p1", 0), 0.2) == []
    assert dispatcher.handle(seen("p1", 1), 0.3) == [Offer("a", 1, "p1", Cause.REJECTED)]


def test_a_rejection_that_no_worker_would_lift_ends_the_request(dispatcher: Dispatcher) -> None:
    dispatcher.handle(arrived("a"), 0.0)
    rejected = OfferRejected("a", 0, "p1", Code.CONTEXT_TOO_LONG, "9 tokens", retryable=False)
    assert dispatcher.handle(rejected, 0.1) == [Refuse("a", Code.CONTEXT_TOO_LONG, "9 tokens", Cause.REJECTED)]
    assert dispatcher.open == 0


def test_an_unanswered_offer_is_withdrawn_before_the_next_candidate_is_asked() -> None:
    dispatcher = dispatcher_of("p1", "p2", "d1")
    [first] = dispatcher.handle(arrived("a"), 0.0)
    assert isinstance(first, Offer)
    second = "p2" if first.instance == "p1" else "p1"
    assert dispatcher.handle(OfferUnanswered("a", 0, first.instance), 1.0) == [
        Withdraw("a", 0, Cause.UNANSWERED),
        Offer("a", 1, second, Cause.UNANSWERED),
    ]


def test_nothing_is_offered_while_the_bus_is_down(dispatcher: Dispatcher) -> None:
    dispatcher.handle(BusDown(), 0.0)
    assert dispatcher.handle(arrived("a"), 0.1) == []
    assert dispatcher.handle(BusUp(), 0.2) == [Offer("a", 0, "p1", Cause.ARRIVED)]


def test_without_any_worker_requests_wait_for_a_substitute_and_are_then_refused_as_no_capacity() -> None:
    dispatcher = dispatcher_of(rules=DispatchRules(grace_s=2.0))
    assert dispatcher.handle(arrived("a"), 0.0) == []
    assert dispatcher.handle(arrived("b"), 1.5) == []
    assert dispatcher.next_deadline() == 2.0
    text = "scenario chat has no worker"
    refusals = [Refuse(name, Code.NO_CAPACITY, text, Cause.ABSENT, 5.0) for name in ("a", "b")]
    assert dispatcher.handle(Tick(), 2.0) == refusals
    assert dispatcher.handle(arrived("c"), 2.1) == [Refuse("c", Code.NO_CAPACITY, text, Cause.ABSENT, 5.0)]


def test_a_substitute_that_comes_in_time_gets_the_waiting_request() -> None:
    dispatcher = dispatcher_of(rules=DispatchRules(grace_s=2.0))
    dispatcher.handle(arrived("a"), 0.0)
    dispatcher.handle(mapped("p1", "d1", version=2), 1.0)
    dispatcher.handle(seen("d1"), 1.0)
    assert dispatcher.handle(seen("p1"), 1.0) == [Offer("a", 0, "p1", Cause.ARRIVED)]
    assert dispatcher.handle(Tick(), 2.0) == []


def test_the_deadline_of_one_that_waits_for_a_first_worker_ends_it_as_no_capacity() -> None:
    dispatcher = dispatcher_of()
    dispatcher.handle(arrived("a", deadline=1.0), 0.0)
    text = "scenario chat had no worker for as long as the request may wait"
    assert dispatcher.handle(Tick(), 1.0) == [Refuse("a", Code.NO_CAPACITY, text, Cause.DEADLINE, 5.0)]


def test_a_stream_without_any_worker_left_is_given_more_time_than_a_new_request() -> None:
    dispatcher = dispatcher_of("p1", "d1", rules=DispatchRules(grace_s=2.0, replay_grace_s=9.0))
    stream(dispatcher, "a", deadline=1.0)
    assert dispatcher.handle(seen("d1", state=State.FAILED), 0.0) == [Withdraw("a", 0, Cause.LOST)]
    assert dispatcher.handle(Tick(), 2.0) == []
    text = "scenario chat has no worker"
    assert dispatcher.handle(Tick(), 9.0) == [Refuse("a", Code.NO_CAPACITY, text, Cause.ABSENT, 5.0)]
