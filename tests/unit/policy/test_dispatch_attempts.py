"""What ends an attempt but not the request: a lost worker, a stall, a failure; which are replayed, and how often."""

from shared.errors import Code
from shared.messages import State
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import (
    AttemptFailed,
    Cause,
    DispatchRules,
    Ended,
    HandedOff,
    Offer,
    OfferAccepted,
    Refuse,
    Stalled,
    Withdraw,
)
from shared.policy.world import PulseSeen, Tick
from tests.unit.policy.builders import arrived, seen
from tests.unit.policy.dispatchers import dispatcher_of, hold, stream


def test_losing_a_decode_replays_only_its_requests() -> None:
    dispatcher = dispatcher_of("p1", "d1", "d2", free=9)
    stream(dispatcher, "a", "d1")
    stream(dispatcher, "b", "d2")
    assert dispatcher.handle(seen("d1", state=State.FAILED), 1.0) == [
        Withdraw("a", 0, Cause.LOST),
        Offer("a", 1, "p1", Cause.LOST),
    ]


def test_losing_a_prefill_replays_what_it_held_or_was_offered() -> None:
    dispatcher = dispatcher_of("p1", "d1", free=9)
    hold(dispatcher, "held")
    dispatcher.handle(arrived("offered"), 0.0)
    assert dispatcher.handle(seen("p1", state=State.FAILED), 0.1) == [
        Withdraw("held", 0, Cause.LOST),
        Withdraw("offered", 0, Cause.LOST),
    ]
    assert dispatcher.waiting("chat") == 2


def test_a_silent_worker_is_lost_with_a_tick() -> None:
    dispatcher = dispatcher_of("p1", "d1", "d2", free=9)
    stream(dispatcher, "a", "d1")
    for now in (0.5, 1.0, 1.5):
        for name in ("p1", "d2"):
            assert dispatcher.handle(seen(name, 9), now) == []
    assert dispatcher.next_deadline() == 2.0
    assert dispatcher.handle(Tick(), 2.0) == [Withdraw("a", 0, Cause.LOST), Offer("a", 1, "p1", Cause.LOST)]


def test_nothing_is_replayed_when_the_whole_bus_falls_silent(dispatcher: Dispatcher) -> None:
    stream(dispatcher, "a")
    assert dispatcher.handle(Tick(), 30.0) == []
    assert dispatcher.handle(PulseSeen(), 30.0) == []
    assert dispatcher.open == 1


def test_a_hand_off_to_a_decode_that_is_already_lost_is_replayed() -> None:
    dispatcher = dispatcher_of("p1", "d1", "d2", free=9)
    hold(dispatcher, "a")
    dispatcher.handle(seen("d1", state=State.FAILED), 0.1)
    assert dispatcher.handle(HandedOff("a", 0, "d1"), 0.2) == [
        Withdraw("a", 0, Cause.LOST),
        Offer("a", 1, "p1", Cause.LOST),
    ]


def test_a_stalled_attempt_is_withdrawn_and_replayed_elsewhere() -> None:
    dispatcher = dispatcher_of("p1", "p2", "d1", free=1)
    first = hold(dispatcher, "a")
    second = "p2" if first.instance == "p1" else "p1"
    assert dispatcher.handle(Stalled("a", 0), 1.0) == [
        Withdraw("a", 0, Cause.STALLED),
        Offer("a", 1, second, Cause.STALLED),
    ]


def test_what_a_stalled_attempt_still_brings_ends_the_wait_for_another(dispatcher: Dispatcher) -> None:
    stream(dispatcher, "a")
    dispatcher.handle(seen("p1", 0), 0.5)
    assert dispatcher.handle(Stalled("a", 0), 1.0) == [Withdraw("a", 0, Cause.STALLED)]
    assert dispatcher.handle(Stalled("a", 0), 2.0) == []  # asked again while it waits
    assert dispatcher.handle(Ended("a", 0), 2.1) == []
    assert (dispatcher.open, dispatcher.waiting("chat")) == (0, 0)


def test_a_failure_that_another_attempt_cannot_mend_ends_the_request(dispatcher: Dispatcher) -> None:
    hold(dispatcher, "a")
    failed = AttemptFailed("a", 0, Code.BAD_REQUEST, "bad", retryable=False)
    assert dispatcher.handle(failed, 0.1) == [
        Withdraw("a", 0, Cause.FAILED),
        Refuse("a", Code.BAD_REQUEST, "bad", Cause.FAILED),
    ]


def test_attempts_are_bounded() -> None:
    dispatcher = dispatcher_of("p1", "d1", free=9, rules=DispatchRules(attempts=2))
    stream(dispatcher, "a")
    failed = AttemptFailed("a", 0, Code.KV_REFUSED, "checksum")
    assert dispatcher.handle(failed, 0.1) == [Withdraw("a", 0, Cause.FAILED), Offer("a", 1, "p1", Cause.FAILED)]
    dispatcher.handle(OfferAccepted("a", 1, "p1"), 0.1)
    text = "given up after 2 failed attempts; the last: checksum"
    assert dispatcher.handle(AttemptFailed("a", 1, Code.KV_REFUSED, "checksum"), 0.2) == [
        Withdraw("a", 1, Cause.FAILED),
        Refuse("a", Code.KV_REFUSED, text, Cause.FAILED),
    ]


def test_preemptions_do_not_use_up_the_attempts() -> None:
    dispatcher = dispatcher_of("p1", "d1", free=1, rules=DispatchRules(attempts=1, preemptions=5))
    hold(dispatcher, "a")
    for attempt in range(4):
        dispatcher.handle(seen("p1"), 0.1)
        assert dispatcher.handle(AttemptFailed("a", attempt, Code.OVERLOADED), 0.1) == [
            Withdraw("a", attempt, Cause.FAILED),
            Offer("a", attempt + 1, "p1", Cause.FAILED),
        ]
        dispatcher.handle(OfferAccepted("a", attempt + 1, "p1"), 0.1)
    [_, refusal] = dispatcher.handle(AttemptFailed("a", 4, Code.OVERLOADED), 0.1)
    assert isinstance(refusal, Refuse)
    assert refusal.code is Code.OVERLOADED


def test_an_orderly_stop_is_nobodys_death() -> None:
    dispatcher = dispatcher_of("p1", "p2", "p3", "d1")
    offer = hold(dispatcher, "a")
    for attempt in (1, 2):
        actions = dispatcher.handle(seen(offer.instance, state=State.STOPPED), 0.1)
        assert isinstance(actions[-1], Offer)
        offer = actions[-1]
        assert offer.attempt == attempt
        dispatcher.handle(OfferAccepted("a", attempt, offer.instance), 0.1)
