"""The times a request brings along: until when it may wait, when its first token is due, when it expires."""

from shared.errors import Code
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import (
    AttemptFailed,
    Cause,
    Offer,
    OfferAccepted,
    OfferRejected,
    Refuse,
    Withdraw,
)
from shared.policy.world import Tick
from tests.unit.policy.builders import arrived, seen
from tests.unit.policy.dispatchers import hold, stream


def test_a_request_nobody_accepted_by_its_deadline_is_refused_as_overloaded(dispatcher: Dispatcher) -> None:
    hold(dispatcher, "a")
    dispatcher.handle(arrived("b", deadline=1.0), 0.0)
    dispatcher.handle(seen("p1", 0), 0.9)
    dispatcher.handle(seen("d1", 0), 0.9)
    assert dispatcher.next_deadline() == 1.0
    text = "all workers were busy for as long as the request may wait"
    assert dispatcher.handle(Tick(), 1.0) == [Refuse("b", Code.OVERLOADED, text, Cause.DEADLINE, 1.0)]


def test_an_offer_without_answer_at_the_deadline_is_withdrawn(dispatcher: Dispatcher) -> None:
    dispatcher.handle(arrived("a", deadline=0.5), 0.0)
    text = "all workers were busy for as long as the request may wait"
    assert dispatcher.handle(Tick(), 0.5) == [
        Withdraw("a", 0, Cause.DEADLINE),
        Refuse("a", Code.OVERLOADED, text, Cause.DEADLINE, 1.0),
    ]
    assert dispatcher.handle(OfferAccepted("a", 0, "p1"), 0.6) == []


def test_an_accepted_request_is_not_ended_by_its_first_token_deadline(dispatcher: Dispatcher) -> None:
    hold(dispatcher, "a", deadline=1.0)
    assert dispatcher.handle(Tick(), 1.0) == []
    assert dispatcher.open == 1


def test_a_request_ends_when_it_expires_in_whatever_state(dispatcher: Dispatcher) -> None:
    stream(dispatcher, "a", expires=5.0)
    assert dispatcher.handle(Tick(), 5.0) == [
        Withdraw("a", 0, Cause.EXPIRED),
        Refuse("a", Code.DEADLINE, "the request took longer than it may", Cause.EXPIRED),
    ]


def test_a_request_whose_own_time_ends_while_it_waits_was_kept_waiting(dispatcher: Dispatcher) -> None:
    hold(dispatcher, "a")
    dispatcher.handle(arrived("b", expires=1.0), 0.0)
    dispatcher.handle(seen("p1", 0), 0.9)
    text = "all workers were busy for as long as the request may wait"
    assert dispatcher.handle(Tick(), 1.0) == [Refuse("b", Code.OVERLOADED, text, Cause.DEADLINE, 1.0)]


def test_a_first_wait_ends_before_the_first_token_is_due_and_a_later_one_only_then(dispatcher: Dispatcher) -> None:
    hold(dispatcher, "a", deadline=5.0, wait_by=1.0)
    dispatcher.handle(arrived("b", deadline=5.0, wait_by=1.0), 0.0)
    dispatcher.handle(AttemptFailed("a", 0, Code.ENGINE_FAILED), 0.5)
    text = "all workers were busy for as long as the request may wait"
    assert dispatcher.handle(Tick(), 1.0) == [Refuse("b", Code.OVERLOADED, text, Cause.DEADLINE, 1.0)]
    late = "no first token in time, after an attempt that failed"
    assert dispatcher.handle(Tick(), 5.0) == [Refuse("a", Code.DEADLINE, late, Cause.DEADLINE)]


def test_a_request_that_comes_late_is_refused_at_the_door(dispatcher: Dispatcher) -> None:
    text = "the request came after its own deadline"
    assert dispatcher.handle(arrived("a", deadline=1.0), 1.0) == [Refuse("a", Code.DEADLINE, text, Cause.DEADLINE)]


def test_a_replay_before_the_first_token_keeps_its_deadline(dispatcher: Dispatcher) -> None:
    hold(dispatcher, "a", deadline=1.0)
    dispatcher.handle(AttemptFailed("a", 0, Code.ENGINE_FAILED), 0.5)
    text = "no first token in time, after an attempt that failed"
    assert dispatcher.handle(Tick(), 1.0) == [Refuse("a", Code.DEADLINE, text, Cause.DEADLINE)]


def test_a_replay_after_the_first_token_has_no_deadline_but_expiry(dispatcher: Dispatcher) -> None:
    stream(dispatcher, "a", deadline=1.0)
    assert dispatcher.handle(AttemptFailed("a", 0, Code.ENGINE_FAILED), 2.0) == [Withdraw("a", 0, Cause.FAILED)]
    assert dispatcher.handle(seen("p1"), 3.0) == [Offer("a", 1, "p1", Cause.FAILED)]
    assert dispatcher.handle(OfferRejected("a", 1, "p1", Code.OVERLOADED), 3.1) == []
    assert dispatcher.open == 1
