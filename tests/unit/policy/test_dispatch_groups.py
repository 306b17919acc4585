"""Which groups a request is offered to: canaries by lot, strategies by preference, a stream's own revision."""

from collections import Counter
from hashlib import blake2b

from shared.errors import Code
from shared.messages import GroupPhase, State
from shared.policy.dispatch_events import (
    Cause,
    DispatchRules,
    FirstToken,
    HandedOff,
    Offer,
    OfferAccepted,
    OfferRejected,
    OfferUnanswered,
    Refuse,
)
from shared.policy.partition import Partition
from shared.policy.world import MapSeen
from tests.unit.policy.builders import arrived, seen
from tests.unit.policy.parted import dispatcher_over, group, map_of, offer, offers

ORDINARY = group("a", "p1", "d1")
CANARY = group("b", "p2", "d2", canary=30, revision=1)
PARTED = Partition.of({one.name: one for one in (ORDINARY, CANARY)})
assert PARTED is not None
NAMES = [f"cmpl-{blake2b(bytes([number % 256, number // 256]), digest_size=16).hexdigest()}" for number in range(400)]
DRAWN = [name for name in NAMES if PARTED.drawn(name)]
OTHERS = [name for name in NAMES if not PARTED.drawn(name)]


def test_the_lot_falls_as_often_as_it_should_and_on_all_choices_of_a_request_alike() -> None:
    assert PARTED is not None
    assert 0.25 < len(DRAWN) / len(NAMES) < 0.35
    assert {PARTED.drawn(f"{DRAWN[0]}-{choice}") for choice in range(50)} == {"b"}


def test_several_canaries_share_the_lots() -> None:
    groups = [group(name, canary=percent) for name, percent in (("x", 20), ("y", 30))]
    parted = Partition.of({one.name: one for one in (*groups, ORDINARY)})
    assert parted is not None
    drawn = Counter(parted.drawn(name) for name in NAMES)
    assert drawn["x"] < drawn["y"] < drawn[""]


def test_the_drawn_go_to_the_canary_and_no_other() -> None:
    dispatcher = dispatcher_over(ORDINARY, CANARY, free=400)
    assert {offer(dispatcher, name).instance for name in DRAWN} == {"p2"}
    assert {offer(dispatcher, name).instance for name in OTHERS} == {"p1"}


def test_an_offer_says_that_it_was_the_lot() -> None:
    dispatcher = dispatcher_over(ORDINARY, CANARY)
    assert offer(dispatcher, DRAWN[0]) == Offer(DRAWN[0], 0, "p2", Cause.ARRIVED, "canary")
    assert offer(dispatcher, OTHERS[0]) == Offer(OTHERS[0], 0, "p1", Cause.ARRIVED, "fewest_streams")


def test_others_wait_though_the_canary_is_free_and_the_drawn_pass_them_however_many_there_are() -> None:
    dispatcher = dispatcher_over(ORDINARY, CANARY, free=1)
    offer(dispatcher, OTHERS[0])
    for name in OTHERS[1:40]:
        assert dispatcher.handle(arrived(name), 0.0) == []
    assert offer(dispatcher, DRAWN[0]).instance == "p2"
    assert dispatcher.waiting("chat") == 39


def test_the_drawn_do_not_wait_for_a_full_canary_while_others_are_free() -> None:
    dispatcher = dispatcher_over(ORDINARY, CANARY, free=1)
    assert [offer(dispatcher, name).instance for name in DRAWN[:2]] == ["p2", "p1"]


def test_others_go_to_the_canary_where_nothing_else_exists() -> None:
    dispatcher = dispatcher_over(ORDINARY, CANARY, free=1)
    dispatcher.handle(MapSeen(map_of(group("a", "p1", "d1", phase=GroupPhase.CLOSING), CANARY, version=2)), 0.1)
    assert offer(dispatcher, OTHERS[0], 0.2) == Offer(OTHERS[0], 0, "p2", Cause.ARRIVED, "canary")


def test_a_rejected_one_of_the_drawn_goes_elsewhere() -> None:
    dispatcher = dispatcher_over(ORDINARY, CANARY)
    offer(dispatcher, DRAWN[0])
    rejected = OfferRejected(DRAWN[0], 0, "p2", Code.OVERLOADED)
    assert dispatcher.handle(rejected, 0.1) == [Offer(DRAWN[0], 1, "p1", Cause.REJECTED, "fewest_streams")]


def test_a_suspect_canary_is_not_asked_while_others_are_free() -> None:
    dispatcher = dispatcher_over(ORDINARY, CANARY)
    offer(dispatcher, DRAWN[0])
    dispatcher.handle(OfferUnanswered(DRAWN[0], 0, "p2"), 0.1)
    assert offer(dispatcher, DRAWN[1], 0.1).instance == "p1"


def test_suspects_of_a_group_are_not_asked_merely_because_the_others_are_full() -> None:
    dispatcher = dispatcher_over(group("a", "p1", "d1", strategy="tp4"), group("b", "p2", "d2", strategy="tp8"), free=1)
    dispatcher.prefer("chat", ("tp8", "tp4"))
    assert offer(dispatcher, "a").instance == "p2"
    [_, second] = dispatcher.handle(OfferUnanswered("a", 0, "p2"), 0.0)
    assert isinstance(second, Offer)
    assert second.instance == "p1"
    assert dispatcher.handle(arrived("b"), 0.1) == []


TP4, TP8 = group("a", "p1", "d1", strategy="tp4"), group("b", "p2", "d2", strategy="tp8")


def test_the_preferred_strategy_is_asked_first_and_the_others_when_it_is_full() -> None:
    dispatcher = dispatcher_over(TP4, TP8, free=2)
    dispatcher.prefer("chat", ("tp8", "tp4"))
    made = offers(dispatcher, 4)
    assert [one.instance for one in made] == ["p2", "p2", "p1", "p1"]
    assert [one.route for one in made] == ["strategy tp8", "strategy tp8", "strategy tp4", "strategy tp4"]
    assert made[0].kind == "strategy"


def test_without_a_preference_strategies_share_by_streams() -> None:
    made = offers(dispatcher_over(TP4, TP8, free=2), 4)
    assert Counter(one.instance for one in made) == {"p1": 2, "p2": 2}
    assert {one.route for one in made} == {"fewest_streams"}


def test_a_strategy_that_nobody_prefers_still_gets_what_the_others_cannot_take() -> None:
    dispatcher = dispatcher_over(TP4, TP8, free=1)
    dispatcher.prefer("chat", ("tp8", "gone"))
    assert [one.instance for one in offers(dispatcher, 2)] == ["p2", "p1"]


OLD, NEW = group("a", "p1", "d1", "p3", "d3"), group("b", "p2", "d2", revision=1)


def _streams_at(name: str, place: str, decode: str) -> tuple[object, ...]:
    return OfferAccepted(name, 0, place), FirstToken(name, 0), HandedOff(name, 0, decode)


def test_a_replay_stays_with_the_revision_that_its_stream_began_with() -> None:
    dispatcher = dispatcher_over(OLD, NEW, free=4)
    for name in ("p1", "p3"):
        dispatcher.handle(seen(name, 0, slots=4, group="a"), 0.0)
    assert offer(dispatcher, "r").instance == "p2"
    for event in _streams_at("r", "p2", "d2"):
        dispatcher.handle(event, 0.1)  # type: ignore[arg-type]
    for name in ("p1", "p3"):
        dispatcher.handle(seen(name, 4, slots=4, group="a"), 0.2)
    dispatcher.handle(seen("p2", 1, slots=4, group="b"), 0.2)  # busier than the others
    failed = dispatcher.handle(MapSeen(map_of(OLD, group("b", "p2", "d4", revision=1), version=2)), 0.3)
    assert failed == []
    dispatcher.handle(seen("d4", 4, group="b"), 0.3)
    actions = dispatcher.handle(seen("d2", 0, state=State.STOPPED, group="b"), 0.4)
    assert actions[-1] == Offer("r", 1, "p2", Cause.LOST, "revision 1")


def test_a_replay_goes_anywhere_when_its_revision_is_gone() -> None:
    dispatcher = dispatcher_over(OLD, NEW, free=4)
    for name in ("p1", "p3"):
        dispatcher.handle(seen(name, 0, slots=4, group="a"), 0.0)
    offer(dispatcher, "r")
    for event in _streams_at("r", "p2", "d2"):
        dispatcher.handle(event, 0.1)  # type: ignore[arg-type]
    dispatcher.handle(seen("p1", 4, slots=4, group="a"), 0.2)
    dispatcher.handle(MapSeen(map_of(OLD, version=2)), 0.3)
    actions = dispatcher.handle(seen("d2", 0, state=State.STOPPED, group="b"), 0.4)
    assert actions[-1] == Offer("r", 1, "p1", Cause.LOST, "fewest_streams")


def test_a_wait_that_would_be_too_long_is_refused_at_once_and_never_where_a_slot_is_free() -> None:
    dispatcher = dispatcher_over(ORDINARY, CANARY, free=1, rules=DispatchRules(max_waiting=100))
    offer(dispatcher, OTHERS[0])
    for number, name in enumerate(OTHERS[1:30]):
        dispatcher.handle(arrived(name), float(number) / 100)
    for turn in range(12):  # a slot each second, others waiting
        dispatcher.handle(seen("p1", 1, group="a"), 1.0 + turn)
        last = next(iter(dispatcher._book._at["p1"]))
        dispatcher.handle(OfferAccepted(last, 0, "p1"), 1.0 + turn)
        dispatcher.handle(FirstToken(last, 0), 1.0 + turn)
        dispatcher.handle(HandedOff(last, 0, "d1"), 1.0 + turn)
    [refusal] = dispatcher.handle(arrived(OTHERS[50], deadline=14.0, priority=1), 12.5)
    assert isinstance(refusal, Refuse)
    assert (refusal.code, refusal.cause) == (Code.OVERLOADED, Cause.DEADLINE)
    assert offer(dispatcher, DRAWN[0], 12.5, deadline=12.6).instance == "p2"
