"""Requests that take workers down with them, and innocent ones that are there when workers die."""

import pytest

from shared.errors import Code
from shared.messages import State
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import (
    Action,
    CancelledByClient,
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
from shared.policy.world import Tick
from tests.unit.policy.builders import mapped, seen
from tests.unit.policy.dispatchers import dispatcher_of, hold


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


def fall(dispatcher: Dispatcher, attempt: int, *, lasts_s: float, token: bool, now: float) -> list[Action]:
    """Bring the attempt offered to p1 to a decode of its own, and let that die."""
    decode = f"d{attempt}"
    dispatcher.handle(mapped("p1", decode, "d99", version=attempt + 2), now)
    dispatcher.handle(seen(decode), now)
    dispatcher.handle(seen("d99"), now)
    dispatcher.handle(OfferAccepted("a", attempt, "p1"), now)
    if token:
        dispatcher.handle(FirstToken("a", attempt), now)
    dispatcher.handle(HandedOff("a", attempt, decode), now)
    dispatcher.handle(seen("p1", 9), now + lasts_s)
    return dispatcher.handle(seen(decode, state=State.FAILED), now + lasts_s)


POISON = Refuse("a", Code.ENGINE_FAILED, "2 workers died with this request; no other gets it", Cause.POISON)


@pytest.mark.parametrize(
    ("lasts_s", "token", "kills"), [(0.0, True, True), (1.9, True, True), (2.0, True, False), (9.0, False, True)]
)
def test_a_second_death_counts_only_if_it_came_soon_or_no_token_did(
    lasts_s: float, *, token: bool, kills: bool
) -> None:
    dispatcher = dispatcher_of("p1", "d99", free=9)
    hold(dispatcher, "a")
    assert fall(dispatcher, 0, lasts_s=60.0, token=True, now=0.0)[-1] == Offer("a", 1, "p1", Cause.LOST)
    last = fall(dispatcher, 1, lasts_s=lasts_s, token=token, now=60.0)[-1]
    assert last == (POISON if kills else Offer("a", 2, "p1", Cause.LOST))


def test_workers_that_die_after_they_brought_tokens_do_not_use_up_the_attempts() -> None:
    dispatcher = dispatcher_of("p1", "d99", free=9, rules=DispatchRules(losses=10))
    hold(dispatcher, "a", deadline=1e6, expires=1e6)
    for attempt in range(9):
        actions = fall(dispatcher, attempt, lasts_s=5.0, token=True, now=10.0 * attempt)
        assert actions == [Withdraw("a", attempt, Cause.LOST), Offer("a", attempt + 1, "p1", Cause.LOST)]
    [_, refusal] = fall(dispatcher, 9, lasts_s=5.0, token=True, now=90.0)
    assert isinstance(refusal, Refuse)
    assert (refusal.code, refusal.cause) == (Code.WORKER_LOST, Cause.FAILED)
    assert refusal.message.startswith("given up after 10 failed attempts; the last: d9 is gone")


def test_a_request_that_stands_still_wherever_it_is_without_a_token_is_given_up() -> None:
    dispatcher = dispatcher_of("p1", "d1", free=9, rules=DispatchRules(attempts=3))
    hold(dispatcher, "a")
    for attempt in range(2):
        last = dispatcher.handle(Stalled("a", attempt), float(attempt))[-1]
        assert last == Offer("a", attempt + 1, "p1", Cause.STALLED)
        dispatcher.handle(OfferAccepted("a", attempt + 1, "p1"), float(attempt))
    refusal = dispatcher.handle(Stalled("a", 2), 3.0)[-1]
    assert isinstance(refusal, Refuse)
    assert (refusal.code, refusal.cause) == (Code.WORKER_LOST, Cause.FAILED)


def test_a_stream_that_stands_still_again_and_again_but_brings_tokens_goes_on() -> None:
    dispatcher = dispatcher_of("p1", "d1", free=9, rules=DispatchRules(attempts=3))
    hold(dispatcher, "a")
    for attempt in range(6):
        dispatcher.handle(FirstToken("a", attempt), 20.0 * attempt)
        last = dispatcher.handle(Stalled("a", attempt), 20.0 * attempt + 11.0)[-1]
        assert last == Offer("a", attempt + 1, "p1", Cause.STALLED)
        dispatcher.handle(OfferAccepted("a", attempt + 1, "p1"), 20.0 * attempt + 11.0)


def crowd(dispatcher: Dispatcher, names: list[str], worker: str, now: float) -> dict[str, int]:
    """Let the last offers of these requests be accepted by a prefill and handed to one decode."""
    attempts: dict[str, int] = {}
    for name in names:
        request = dispatcher._book.get(name)
        assert request is not None
        attempts[name] = request.attempt
        dispatcher.handle(OfferAccepted(name, request.attempt, request.instance), now)
        dispatcher.handle(FirstToken(name, request.attempt), now)
        dispatcher.handle(HandedOff(name, request.attempt, worker), now)
    return attempts


def out(dispatcher: Dispatcher, names: list[str]) -> list[str]:
    """Those that are with some worker, or offered to one."""
    return [name for name in names if (one := dispatcher._book.get(name)) is not None and one.instance]


def tried(dispatcher: Dispatcher, names: list[str]) -> list[str]:
    """The suspects among them."""
    return [name for name in out(dispatcher, names) if dispatcher._book._requests[name].suspect]


def beat(dispatcher: Dispatcher, workers: list[str], now: float) -> list[Action]:
    """Let the living be heard."""
    number = round(now * 1000) + 1
    return [one for name in ("p1", *workers) for one in dispatcher.handle(seen(name, 9, number=number), now)]


def test_those_that_died_with_two_workers_together_go_on_one_by_one_and_only_the_killer_is_refused() -> None:
    names = ["a", "b", "poison"]
    alive = [f"d{number}" for number in range(1, 9)]
    dispatcher = dispatcher_of("p1", *alive, free=9)
    for name in names:
        hold(dispatcher, name, deadline=1e6, expires=1e6)

    def die(now: float) -> list[Action]:
        return dispatcher.handle(seen(alive.pop(0), 9, number=10_000, state=State.FAILED), now)

    crowd(dispatcher, names, alive[0], 1.0)
    die(1.1)
    assert out(dispatcher, names) == names, "one death says nothing yet"
    crowd(dispatcher, names, alive[0], 1.2)
    die(1.3)
    now, refused, turns = 1.3, [], []
    while not refused:
        alone = tried(dispatcher, names)
        assert len(alone) == 1, "suspects are out one at a time"
        turns += alone
        crowd(dispatcher, alone, alive[0], now)
        now += 0.1
        if alone == ["poison"]:
            refused = [one for one in die(now) if isinstance(one, Refuse)]
        while not refused and tried(dispatcher, names) == alone:  # until it has gone on well for long enough
            now += 0.25
            beat(dispatcher, alive, now)
    assert [(one.request_id, one.cause) for one in refused] == [("poison", Cause.POISON)]
    assert len(alive) == 8 - 3, "it took three workers, and no innocent request"
    for _ in range(20):
        now += 0.25
        beat(dispatcher, alive, now)
        waiting = [name for name in ("a", "b") if name not in turns and name in out(dispatcher, ["a", "b"])]
        if waiting:
            crowd(dispatcher, waiting, alive[0], now)
            turns += waiting
    assert out(dispatcher, ["a", "b"]) == ["a", "b"]


def test_a_suspect_that_ends_or_leaves_lets_the_next_one_go() -> None:
    names = ["a", "b", "c"]
    dispatcher = dispatcher_of("p1", "d1", "d2", "d3", free=9)
    for name in names:
        hold(dispatcher, name, deadline=1e6, expires=1e6)
    for worker in ("d1", "d2"):
        crowd(dispatcher, names, worker, 1.0)
        dispatcher.handle(seen(worker, 9, number=10_000, state=State.FAILED), 1.1)
    for _ in names:
        (alone,) = out(dispatcher, names)
        dispatcher.handle(CancelledByClient(alone), 1.2)
        dispatcher.handle(Tick(), 1.2)
    assert dispatcher.open == 0
    assert dispatcher._suspects.next_deadline() is None
