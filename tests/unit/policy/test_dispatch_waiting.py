"""The wait before a dispatcher: its order, who is drawn from it, its bounds, and who is refused when it is full."""

import pytest

from shared.errors import Code
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import (
    AttemptFailed,
    Cause,
    DispatchRules,
    Offer,
    OfferAccepted,
    OfferRejected,
    Refuse,
    Withdraw,
)
from tests.unit.policy.builders import arrived, mapped, seen
from tests.unit.policy.dispatchers import dispatcher_of, hold, stream


def test_one_waiting_request_is_drawn_for_each_freed_slot_and_no_more(dispatcher: Dispatcher) -> None:
    hold(dispatcher, "a")
    for name in ("b", "c", "d"):
        assert dispatcher.handle(arrived(name), 0.1) == []
    assert dispatcher.handle(seen("p1", 2, slots=4), 0.2) == [
        Offer("b", 0, "p1", Cause.ARRIVED),
        Offer("c", 0, "p1", Cause.ARRIVED),
    ]
    assert dispatcher.waiting("chat") == 1


def test_a_new_member_draws_waiting_requests(dispatcher: Dispatcher) -> None:
    hold(dispatcher, "a")
    dispatcher.handle(arrived("b"), 0.1)
    assert dispatcher.handle(mapped("p1", "p2", "d1", version=2), 0.2) == []
    assert dispatcher.handle(seen("p2"), 0.3) == [Offer("b", 0, "p2", Cause.ARRIVED)]


def test_the_wait_is_ordered_by_priority_then_deadline_then_arrival(dispatcher: Dispatcher) -> None:
    hold(dispatcher, "a")
    dispatcher.handle(arrived("late", deadline=90.0), 0.1)
    dispatcher.handle(arrived("soon", deadline=50.0), 0.1)
    dispatcher.handle(arrived("soon too", deadline=50.0), 0.1)
    dispatcher.handle(arrived("urgent", priority=-1), 0.1)
    drawn = [action.request_id for action in dispatcher.handle(seen("p1", 4), 0.2)]
    assert drawn == ["urgent", "soon", "soon too", "late"]


def test_a_request_that_lost_its_worker_goes_before_new_ones(dispatcher: Dispatcher) -> None:
    stream(dispatcher, "old", deadline=900.0)
    dispatcher.handle(arrived("new"), 0.1)
    assert dispatcher.handle(AttemptFailed("old", 0, Code.KV_REFUSED), 0.2) == [Withdraw("old", 0, Cause.FAILED)]
    assert dispatcher.handle(seen("p1"), 0.3) == [Offer("old", 1, "p1", Cause.FAILED)]


def test_what_a_worker_rejects_lets_another_go_first_once_and_does_not_starve(dispatcher: Dispatcher) -> None:
    dispatcher.handle(arrived("big"), 0.0)
    for name in ("b", "c"):
        dispatcher.handle(arrived(name), 0.0)
    dispatcher.handle(OfferRejected("big", 0, "p1", Code.OVERLOADED), 0.1)
    assert dispatcher.handle(seen("p1"), 0.2) == [Offer("b", 0, "p1", Cause.ARRIVED)]
    dispatcher.handle(OfferAccepted("b", 0, "p1"), 0.2)
    assert dispatcher.handle(seen("p1"), 0.3) == [Offer("big", 1, "p1", Cause.REJECTED)]


def test_a_full_wait_takes_the_place_of_the_tenant_that_holds_most_for_its_weight() -> None:
    dispatcher = dispatcher_of("p1", "d1", rules=DispatchRules(max_waiting=4))
    hold(dispatcher, "a")
    for number in range(4):
        dispatcher.handle(arrived(f"f{number}", tenant="flood"), 0.0)
    text = "4 requests wait for a slot already, and those of higher priority or of tenants that hold less than their "
    refusal = Refuse("f3", Code.OVERLOADED, text + "share go first", Cause.DISPLACED, 1.0)
    assert dispatcher.handle(arrived("b", tenant="b"), 0.0) == [refusal]
    drawn = [action.request_id for action in dispatcher.handle(seen("p1", 2, slots=4), 0.2)]
    assert drawn == ["f0", "b"]


def test_a_flood_does_not_refuse_another_tenant_for_a_wait_that_is_the_floods() -> None:
    dispatcher = dispatcher_of("p1", "d1")
    for number in range(60):
        dispatcher.handle(arrived(f"f{number}", tenant="flood", deadline=500.0), 0.0)
    for number in range(10):  # a slot comes free each second
        dispatcher.handle(OfferAccepted(f"f{number}", 0, "p1"), float(number))
        for name in ("d1", "p1"):
            dispatcher.handle(seen(name), number + 0.9)
    assert dispatcher.handle(arrived("b", tenant="b", deadline=15.0), 9.9) == []
    [refusal] = dispatcher.handle(arrived("f60", tenant="flood", deadline=15.0, priority=1), 9.9)
    assert isinstance(refusal, Refuse)
    assert (refusal.request_id, refusal.cause) == ("f60", Cause.DEADLINE)
    assert (refusal.retry_after_s or 0) > 40


def test_a_full_wait_refuses_whoever_would_go_last() -> None:
    dispatcher = dispatcher_of("p1", "d1", rules=DispatchRules(max_waiting=2))
    hold(dispatcher, "a")
    dispatcher.handle(arrived("b"), 0.0)
    dispatcher.handle(arrived("c"), 0.0)
    text = "2 requests wait for a slot already"
    assert dispatcher.handle(arrived("d"), 0.0) == [Refuse("d", Code.OVERLOADED, text, Cause.FULL, 1.0)]
    [displaced] = dispatcher.handle(arrived("e", priority=-1), 0.0)
    assert isinstance(displaced, Refuse)
    assert (displaced.request_id, displaced.code, displaced.cause) == ("c", Code.OVERLOADED, Cause.DISPLACED)


def test_more_open_requests_than_allowed_are_refused_at_the_door() -> None:
    dispatcher = dispatcher_of("p1", "d1", free=9, rules=DispatchRules(max_open=1))
    hold(dispatcher, "a")
    assert dispatcher.handle(arrived("b"), 0.0) == [
        Refuse("b", Code.OVERLOADED, "1 requests are open already", Cause.CROWDED, 1.0)
    ]


def test_a_wait_that_would_outlast_the_deadline_is_refused_at_once_with_the_time_it_would_take() -> None:
    dispatcher = dispatcher_of("p1", "d1")
    for number in range(20):
        dispatcher.handle(arrived(f"r{number}", deadline=500.0), 0.0)
    for number in range(10):  # a slot comes free each second
        dispatcher.handle(OfferAccepted(f"r{number}", 0, "p1"), float(number))
        for name in ("d1", "p1"):
            dispatcher.handle(seen(name), number + 0.9)
    [refusal] = dispatcher.handle(arrived("impatient", deadline=14.0, priority=1), 9.9)
    assert isinstance(refusal, Refuse)
    assert (refusal.code, refusal.cause) == (Code.OVERLOADED, Cause.DEADLINE)
    assert refusal.retry_after_s == pytest.approx(10.0)
    assert dispatcher.handle(arrived("patient", deadline=30.0, priority=1), 9.9) == []
