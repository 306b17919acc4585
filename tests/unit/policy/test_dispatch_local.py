"""Short prompts at a decode: only where no prefill is free, and few at a time."""

from shared.errors import Code
from shared.messages import GroupPhase, State
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import (
    AttemptFailed,
    Cause,
    DispatchRules,
    Ended,
    FirstToken,
    HandedOff,
    Offer,
    OfferAccepted,
    OfferRejected,
    Refuse,
    Withdraw,
)
from shared.policy.routes import RouteRules
from shared.policy.world import MapSeen, Tick
from tests.unit.policy.builders import arrived, seen
from tests.unit.policy.parted import dispatcher_over, group, map_of, offer

SHORT = RouteRules(local_tokens=100, affinity=True)
GROUP = group("a", "p1", "d1")
PREFIX = (1, 2)


def busy(*, slots: int = 8, routes: RouteRules = SHORT) -> Dispatcher:
    """The one prefill is full; the decode has room."""
    dispatcher = dispatcher_over(GROUP, free=1, routes=routes)
    dispatcher.handle(seen("p1", 0, slots=1, group="a"), 0.0)
    dispatcher.handle(seen("d1", slots, slots=slots, group="a"), 0.0)
    return dispatcher


def test_a_short_prompt_goes_to_a_decode_when_no_prefill_is_free() -> None:
    assert offer(busy(), "a", tokens=99) == Offer("a", 0, "d1", Cause.ARRIVED, "local")


def test_never_where_a_prefill_is_free() -> None:
    assert offer(dispatcher_over(GROUP, routes=SHORT), "a", tokens=9).instance == "p1"


def test_a_longer_prompt_waits_for_a_prefill_and_lets_shorter_ones_pass() -> None:
    dispatcher = busy()
    assert dispatcher.handle(arrived("long", tokens=100), 0.0) == []
    assert offer(dispatcher, "short", tokens=10).instance == "d1"
    assert dispatcher.handle(seen("p1", 1, group="a"), 0.1) == [Offer("long", 0, "p1", Cause.ARRIVED)]


def test_without_the_setting_nothing_goes_to_a_decode() -> None:
    assert busy(routes=RouteRules()).handle(arrived("a", tokens=1), 0.0) == []


def test_short_prompts_are_served_though_all_prefills_are_gone_for_long() -> None:
    dispatcher = dispatcher_over(GROUP, routes=SHORT, rules=DispatchRules(grace_s=2.0))
    dispatcher.handle(seen("p1", 0, state=State.FAILED, group="a"), 0.0)
    assert dispatcher.handle(arrived("long", tokens=100, wait_by=20.0), 0.0) == []
    assert offer(dispatcher, "short", now=9.0, tokens=9).instance == "d1"
    [refusal] = dispatcher.handle(Tick(), 20.0)
    assert isinstance(refusal, Refuse)
    assert (refusal.request_id, refusal.code) == ("long", Code.NO_CAPACITY)


def test_what_all_prefills_refused_may_go_to_a_decode() -> None:
    dispatcher = dispatcher_over(GROUP, routes=SHORT)
    offer(dispatcher, "a", tokens=9)
    rejected = OfferRejected("a", 0, "p1", Code.OVERLOADED)
    assert dispatcher.handle(rejected, 0.1) == [Offer("a", 1, "d1", Cause.REJECTED, "local")]


def test_what_the_decode_refuses_waits() -> None:
    dispatcher = busy()
    offer(dispatcher, "a", tokens=9)
    assert dispatcher.handle(OfferRejected("a", 0, "d1", Code.NO_CAPACITY), 0.1) == []
    assert dispatcher.handle(seen("p1", 1, group="a"), 0.2) == [Offer("a", 1, "p1", Cause.REJECTED)]


def test_what_the_only_worker_refused_is_offered_to_it_again_once_it_has_room() -> None:
    dispatcher = dispatcher_over(GROUP, routes=SHORT)
    dispatcher.handle(seen("p1", 0, state=State.FAILED, group="a"), 0.0)
    assert offer(dispatcher, "a", tokens=9).instance == "d1"
    assert dispatcher.handle(OfferRejected("a", 0, "d1", Code.NO_CAPACITY), 0.1) == []
    assert dispatcher.handle(seen("d1", 0, slots=8, group="a"), 0.2) == []
    again = dispatcher.handle(seen("d1", 8, slots=8, group="a"), 0.3)
    assert again == [Offer("a", 1, "d1", Cause.REJECTED, "local")]


def test_a_decode_gives_a_share_of_its_slots() -> None:
    dispatcher = busy(slots=8)
    for name in ("a", "b"):
        assert offer(dispatcher, name, tokens=9).instance == "d1"
    assert dispatcher.handle(arrived("c", tokens=9), 0.0) == []
    dispatcher.handle(OfferAccepted("a", 0, "d1"), 0.1)
    assert dispatcher.handle(FirstToken("a", 0), 0.1) == []  # its prompt is computed
    assert dispatcher.handle(seen("d1", 6, slots=8, group="a"), 0.2) == [Offer("c", 0, "d1", Cause.ARRIVED, "local")]


def test_one_at_a_time_where_there_are_few_slots() -> None:
    dispatcher = busy(slots=2)
    offer(dispatcher, "a", tokens=9)
    assert dispatcher.handle(arrived("b", tokens=9), 0.0) == []


def test_the_second_of_two_decodes_is_asked_when_the_first_has_its_share() -> None:
    dispatcher = dispatcher_over(group("a", "p1", "d1", "d2"), free=2, routes=SHORT)
    dispatcher.handle(seen("p1", 0, slots=1, group="a"), 0.0)
    assert {offer(dispatcher, name, tokens=9).instance for name in ("a", "b")} == {"d1", "d2"}
    assert dispatcher.handle(arrived("c", tokens=9), 0.0) == []


def test_a_known_beginning_makes_a_long_prompt_short_at_the_decode_that_has_it() -> None:
    dispatcher = busy()
    dispatcher._routes.affinity.learn("chat", PREFIX, "d1")
    assert dispatcher.handle(arrived("a", tokens=300, prefix=PREFIX), 0.0) == []
    assert offer(dispatcher, "b", tokens=227, prefix=PREFIX) == Offer("b", 0, "d1", Cause.ARRIVED, "local, prefix 128")


def test_a_decode_of_a_closing_group_computes_nothing_new() -> None:
    dispatcher = busy()
    dispatcher.handle(MapSeen(map_of(group("a", "p1", "d1", phase=GroupPhase.CLOSING), version=2)), 0.1)
    assert dispatcher.handle(arrived("a", tokens=9), 0.2) == []


def test_a_stream_that_has_grown_is_not_computed_at_a_decode() -> None:
    dispatcher = busy()
    assert dispatcher.handle(arrived("a", tokens=9, begun=True, attempt=3), 0.0) == []


def test_every_way_out_gives_the_place_back() -> None:
    for number, event in enumerate(
        (
            Ended("a", 0),
            HandedOff("a", 0, "d1"),
            OfferRejected("a", 0, "d1", Code.NO_CAPACITY),
            AttemptFailed("a", 0, Code.ENGINE_FAILED),
        )
    ):
        dispatcher = busy(slots=2)
        offer(dispatcher, "a", tokens=9)
        assert dispatcher._book.local == {"d1": 1}
        if not isinstance(event, OfferRejected):
            dispatcher.handle(OfferAccepted("a", 0, "d1"), 0.1)
        dispatcher.handle(event, 0.1)
        held = dispatcher._book.get("a")
        again = held is not None and held.local
        assert dispatcher._book.local == ({"d1": 1} if again else {}), number
        assert dispatcher.view._workers["d1"].open == again


def test_losing_the_decode_loses_the_prompts_it_computes_and_their_places() -> None:
    dispatcher = busy()
    offer(dispatcher, "a", tokens=9)
    dispatcher.handle(OfferAccepted("a", 0, "d1"), 0.1)
    assert dispatcher.handle(seen("d1", 0, state=State.FAILED, group="a"), 0.2) == [Withdraw("a", 0, Cause.LOST)]
    assert not dispatcher._book.local
