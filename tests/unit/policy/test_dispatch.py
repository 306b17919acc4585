"""One claim per test; each compares the whole list of actions."""

import pytest

from shared.errors import Code
from shared.messages import State
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import (
    AttemptFailed,
    CancelledByClient,
    Cause,
    DispatchRules,
    Ended,
    FirstToken,
    HandedOff,
    Offer,
    OfferAccepted,
    OfferRejected,
    OfferUnanswered,
    Refuse,
    Stalled,
    Withdraw,
)
from shared.policy.world import BusDown, BusUp, PulseSeen, Tick
from tests.unit.policy.builders import arrived, mapped, seen, view_of


def dispatcher_of(*workers: str, free: int = 1, rules: DispatchRules | None = None) -> Dispatcher:
    return Dispatcher(view_of(*workers, free=free), rules)


@pytest.fixture
def dispatcher() -> Dispatcher:
    """One prefill with one slot, one decode."""
    return dispatcher_of("p1", "d1")


def hold(dispatcher: Dispatcher, request_id: str, now: float = 0.0, **others: object) -> Offer:
    """Bring a request to the worker it is offered to."""
    offer = dispatcher.handle(arrived(request_id, **others), now)[0]  # type: ignore[arg-type]
    assert isinstance(offer, Offer)
    assert dispatcher.handle(OfferAccepted(request_id, offer.attempt, offer.instance), now) == []
    return offer


def stream(dispatcher: Dispatcher, request_id: str, decode: str = "d1", now: float = 0.0, **others: object) -> None:
    """Bring a request to the decode, its first token delivered."""
    offer = hold(dispatcher, request_id, now, **others)
    assert dispatcher.handle(FirstToken(request_id, offer.attempt), now) == []
    assert dispatcher.handle(HandedOff(request_id, offer.attempt, decode), now) == []


# ---- placing


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


def test_nothing_is_offered_while_the_bus_is_down(dispatcher: Dispatcher) -> None:
    dispatcher.handle(BusDown(), 0.0)
    assert dispatcher.handle(arrived("a"), 0.1) == []
    assert dispatcher.handle(BusUp(), 0.2) == [Offer("a", 0, "p1", Cause.ARRIVED)]


# ---- bounds and deadlines


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


# ---- nobody there


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


# ---- losses and replays


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


def test_a_request_that_died_with_two_workers_is_given_to_no_third() -> None:
    dispatcher = dispatcher_of("p1", "p2", "p3", "d1")
    names = []
    offer = hold(dispatcher, "poison")
    for _ in range(2):
        names.append(offer.instance)
        actions = dispatcher.handle(seen(offer.instance, state=State.FAILED), 0.1)
        if isinstance(actions[-1], Offer):
            offer = actions[-1]
            dispatcher.handle(OfferAccepted("poison", offer.attempt, offer.instance), 0.1)
    text = "2 workers died with this request; no other gets it"
    assert len(set(names)) == 2
    assert actions == [
        Withdraw("poison", 1, Cause.LOST),
        Refuse("poison", Code.ENGINE_FAILED, text, Cause.POISON),
    ]


def test_a_request_that_ran_long_before_its_second_worker_died_is_innocent() -> None:
    dispatcher = dispatcher_of("p1", "d1", "d2", free=9, rules=DispatchRules(poison_window_s=10.0))
    stream(dispatcher, "a", "d1")
    dispatcher.handle(seen("d1", state=State.FAILED), 0.1)
    dispatcher.handle(OfferAccepted("a", 1, "p1"), 0.2)
    dispatcher.handle(HandedOff("a", 1, "d2"), 0.3)
    dispatcher.handle(mapped("p1", "d3", version=2), 20.0)
    dispatcher.handle(seen("p1", 9), 20.0)
    dispatcher.handle(seen("d3"), 20.0)
    assert dispatcher.handle(seen("d2", state=State.FAILED), 20.1) == [
        Withdraw("a", 1, Cause.LOST),
        Offer("a", 2, "p1", Cause.LOST),
    ]


def test_an_orderly_stop_is_nobodys_death() -> None:
    dispatcher = dispatcher_of("p1", "p2", "p3", "d1")
    offer = hold(dispatcher, "a")
    for attempt in (1, 2):
        actions = dispatcher.handle(seen(offer.instance, state=State.STOPPED), 0.1)
        assert isinstance(actions[-1], Offer)
        offer = actions[-1]
        assert offer.attempt == attempt
        dispatcher.handle(OfferAccepted("a", attempt, offer.instance), 0.1)


# ---- ends, and what comes too late


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
