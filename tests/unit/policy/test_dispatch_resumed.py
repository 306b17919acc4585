"""Requests that another gateway had before us: their attempts go on counting, and their streams have begun."""

from shared.errors import Code
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import Cause, FirstToken, Offer, OfferAccepted, Refuse, Withdraw
from shared.policy.world import Tick
from tests.unit.policy.builders import arrived, scenario_map, seen, status
from tests.unit.policy.dispatchers import dispatcher_of, hold


def test_the_attempts_of_a_resumed_request_are_greater_than_those_before(dispatcher: Dispatcher) -> None:
    assert dispatcher.handle(arrived("a", attempt=3, begun=True), 0.0) == [Offer("a", 4, "p1", Cause.ARRIVED)]
    assert dispatcher.handle(OfferAccepted("a", 3, "p1"), 0.1) == []  # of the other gateway's attempt
    assert dispatcher.handle(OfferAccepted("a", 4, "p1"), 0.1) == []
    assert dispatcher.handle(FirstToken("a", 4), 0.2) == []


def test_a_resumed_stream_has_no_first_token_deadline_and_ends_when_it_expires(dispatcher: Dispatcher) -> None:
    hold(dispatcher, "other")
    resumed = arrived("a", attempt=0, begun=True, deadline=1.0, wait_by=0.5, expires=9.0)
    assert dispatcher.handle(resumed, 2.0) == []
    assert dispatcher.handle(seen("p1", 0), 8.9) == []
    assert dispatcher.handle(Tick(), 9.0) == [
        Refuse("a", Code.DEADLINE, "the request took longer than it may", Cause.EXPIRED)
    ]


def test_a_resumed_stream_goes_before_new_requests_and_takes_no_place_of_theirs(dispatcher: Dispatcher) -> None:
    hold(dispatcher, "other")
    dispatcher.handle(arrived("urgent", priority=-9), 0.0)
    dispatcher.handle(arrived("a", attempt=0, begun=True), 0.1)
    drawn = dispatcher.handle(seen("p1", 2), 0.2)
    assert [(action.request_id, action.attempt) for action in drawn if isinstance(action, Offer)] == [
        ("a", 1),
        ("urgent", 0),
    ]


def test_a_request_whose_gateway_died_before_any_token_keeps_its_deadline(dispatcher: Dispatcher) -> None:
    hold(dispatcher, "other")
    dispatcher.handle(arrived("a", attempt=2, wait_by=1.0), 0.0)
    dispatcher.handle(seen("p1", 0), 0.9)
    text = "all workers were busy for as long as the request may wait"
    assert dispatcher.handle(Tick(), 1.0) == [Refuse("a", Code.OVERLOADED, text, Cause.DEADLINE, 1.0)]


def test_a_resumed_stream_waits_longer_for_a_worker_than_a_new_request() -> None:
    dispatcher = dispatcher_of()
    dispatcher.handle(arrived("early"), 0.0)  # from here on it is known that nobody is there
    assert isinstance(dispatcher.handle(Tick(), 10.0)[-1], Refuse)
    assert isinstance(dispatcher.handle(arrived("new"), 20.0)[-1], Refuse)
    assert dispatcher.handle(arrived("a", attempt=0, begun=True), 20.0) == []
    dispatcher.view.see(scenario_map("p1", "d1", version=2), 21.0)
    dispatcher.view.see(status("d1"), 21.0)
    assert dispatcher.handle(seen("p1"), 21.0) == [Offer("a", 1, "p1", Cause.ARRIVED)]


def test_a_resumed_stream_that_nobody_serves_is_withdrawn_when_it_expires(dispatcher: Dispatcher) -> None:
    hold(dispatcher, "a", attempt=5, begun=True, expires=3.0)
    assert dispatcher.handle(Tick(), 3.0)[0] == Withdraw("a", 6, Cause.EXPIRED)
