"""The one ending of a request, and events that come after it, twice, or of an attempt that is over."""

import pytest

from shared.errors import Code
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import (
    AttemptFailed,
    CancelledByClient,
    Cause,
    Ended,
    FirstToken,
    HandedOff,
    OfferAccepted,
    OfferRejected,
    OfferUnanswered,
    Stalled,
    Withdraw,
)
from shared.policy.world import Tick
from tests.unit.policy.builders import arrived, seen
from tests.unit.policy.dispatchers import hold, stream


def test_an_ended_request_is_forgotten_and_its_place_is_settled(dispatcher: Dispatcher) -> None:
    stream(dispatcher, "a")
    assert dispatcher.handle(Ended("a", 0), 1.0) == []
    assert dispatcher.open == 0
    assert dispatcher.view._workers["p1"].open == 0


@pytest.mark.parametrize("stage", ["waiting", "offered", "held", "decoding"])
def test_a_cancelled_request_is_withdrawn_from_whoever_has_it(dispatcher: Dispatcher, stage: str) -> None:
    if stage == "waiting":
        hold(dispatcher, "other")
        dispatcher.handle(arrived("a"), 0.0)
    elif stage == "offered":
        dispatcher.handle(arrived("a"), 0.0)
    elif stage == "held":
        hold(dispatcher, "a")
    else:
        stream(dispatcher, "a")
    withdrawn = [] if stage == "waiting" else [Withdraw("a", 0, Cause.CANCELLED)]
    assert dispatcher.handle(CancelledByClient("a"), 1.0) == withdrawn
    assert dispatcher.waiting("chat") == 0
    assert dispatcher.handle(CancelledByClient("a"), 1.1) == []


def test_a_token_or_a_hand_off_shows_that_an_unanswered_offer_was_accepted(dispatcher: Dispatcher) -> None:
    dispatcher.handle(arrived("a", deadline=1.0), 0.0)
    assert dispatcher.handle(FirstToken("a", 0), 0.1) == []
    assert dispatcher.handle(OfferUnanswered("a", 0, "p1"), 1.0) == []  # the answer was lost, the work was not
    assert dispatcher.handle(HandedOff("a", 0, "d1"), 1.1) == []
    assert dispatcher.handle(Ended("a", 0), 1.2) == []
    assert dispatcher.open == 0


@pytest.mark.parametrize("stage", ["waiting", "offered", "held"])
def test_events_of_older_attempts_and_unknown_requests_do_nothing(dispatcher: Dispatcher, stage: str) -> None:
    stream(dispatcher, "a")
    dispatcher.handle(AttemptFailed("a", 0, Code.KV_REFUSED), 0.1)
    if stage != "waiting":
        dispatcher.handle(seen("p1"), 0.1)
    if stage == "held":
        dispatcher.handle(OfferAccepted("a", 1, "p1"), 0.1)
    late = [
        OfferAccepted("a", 0, "p1"),
        OfferRejected("a", 0, "p1", Code.OVERLOADED, retryable=False),
        OfferUnanswered("a", 0, "p1"),
        HandedOff("a", 0, "d1"),
        *([] if stage == "waiting" else [FirstToken("a", 0), Ended("a", 0)]),
        AttemptFailed("a", 0, Code.BAD_REQUEST, retryable=False),
        Stalled("a", 0),
        Ended("unknown", 0),
        CancelledByClient("unknown"),
    ]
    assert [dispatcher.handle(event, 0.2) for event in late] == [[]] * len(late)
    assert (dispatcher.open, dispatcher.waiting("chat")) == (1, int(stage == "waiting"))


def test_a_withdrawn_attempt_that_still_reached_the_client_counts(dispatcher: Dispatcher) -> None:
    hold(dispatcher, "a", deadline=1.0)
    assert dispatcher.handle(Stalled("a", 0), 0.5) == [Withdraw("a", 0, Cause.STALLED)]
    assert dispatcher.handle(FirstToken("a", 0), 0.6) == []
    assert dispatcher.handle(Tick(), 1.0) == []  # no first-token deadline any more
    assert dispatcher.handle(Ended("a", 0), 1.1) == []
    assert (dispatcher.open, dispatcher.waiting("chat")) == (0, 0)


def test_an_arrival_under_the_id_of_an_open_request_does_nothing(dispatcher: Dispatcher) -> None:
    hold(dispatcher, "a")
    assert dispatcher.handle(arrived("a"), 0.1) == []
    assert dispatcher.open == 1
