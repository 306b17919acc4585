"""Who is asked for a sign of life and when, and when the word that nobody is there makes a worker lost."""

from shared.messages import State
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import Cause, Offer, OfferAccepted, Withdraw
from shared.policy.placement import Lost
from shared.policy.probing import Probing
from shared.policy.world import BusDown, BusUp, NobodyThere
from tests.unit.policy.builders import arrived, seen, status, view_of
from tests.unit.policy.dispatchers import dispatcher_of, hold, stream
from tests.unit.policy.views import prefills


def test_a_holder_is_probed_when_it_is_quiet_and_again_while_it_stays_so() -> None:
    probing = Probing()
    probing.heard("d1", 0.0)
    times = [0.1, 0.15, 0.2, 0.3, 0.45]
    assert [probing.due(now, ["d1"]) for now in times] == [[], ["d1"], [], ["d1"], ["d1"]]
    probing.heard("d1", 0.5)
    assert [probing.due(now, ["d1"]) for now in (0.6, 0.65)] == [[], ["d1"]]


def test_one_that_was_never_heard_is_probed_at_once_and_one_that_holds_nothing_never() -> None:
    probing = Probing()
    assert probing.due(0.0, ["d1"]) == ["d1"]
    assert probing.due(9.0, []) == []
    assert probing._asked == {}


def test_nobody_is_probed_while_the_bus_is_down_or_has_just_come_back() -> None:
    probing = Probing()
    probing.bus(0.0, up=False)
    assert probing.due(100.0, ["d1"]) == []
    probing.bus(100.0, up=True)
    assert [probing.due(now, ["d1"]) for now in (100.0, 102.9, 103.0)] == [[], [], ["d1"]]


def test_the_first_word_makes_a_worker_suspect_and_the_second_makes_it_lost() -> None:
    view = view_of("p1", "p2", "d1")
    assert view.nobody_there("p1", 0.1) == []
    assert prefills(view, 0.1) == ["p2", "p1"]
    assert view.nobody_there("p1", 0.15) == []  # an answer to the same question, as good as
    assert view.nobody_there("p1", 0.2) == [Lost("p1", (1, 1), "nobody listens")]
    assert prefills(view, 0.2) == ["p2"]
    assert view.nobody_there("p1", 0.4) == []


def test_a_sign_of_life_in_between_begins_it_anew() -> None:
    view = view_of("p1", "p2", "d1")
    view.nobody_there("p1", 0.1)
    view.probing.heard("p1", 0.15)  # a frame
    assert view.nobody_there("p1", 0.3) == []
    view.see(status("p1"), 0.35)
    assert view.nobody_there("p1", 0.5) == []
    assert view.nobody_there("p1", 0.6) == [Lost("p1", (1, 1), "nobody listens")]


def test_a_worker_whose_connection_comes_back_is_back_with_its_next_status() -> None:
    view = view_of("p1", "d1")
    view.nobody_there("p1", 0.1)
    view.nobody_there("p1", 0.3)
    assert view.see(status("p1"), 0.4) == []
    assert not view.lost("p1")
    assert view.nobody_there("p1", 0.5) == []  # its new life has a first word of its own
    assert view.nobody_there("p1", 0.6) == [Lost("p1", (1, 1), "nobody listens")]


def test_a_word_about_one_that_is_in_no_map_counts_too() -> None:
    view = view_of("p1", "d1")
    assert view.nobody_there("d9", 0.1) == []
    assert view.nobody_there("d9", 0.3) == [Lost("d9", (0, 0), "nobody listens")]
    assert view.lost("d9")
    assert "d9" not in view._workers


def test_the_loss_of_a_decode_found_by_probing_replays_its_requests() -> None:
    dispatcher = dispatcher_of("p1", "d1", "d2", free=9)
    stream(dispatcher, "a")
    assert list(dispatcher.holding()) == ["d1"]
    assert dispatcher.handle(NobodyThere("d1"), 0.2) == []
    assert dispatcher.handle(NobodyThere("d1"), 0.35) == [
        Withdraw("a", 0, Cause.LOST),
        Offer("a", 1, "p1", Cause.LOST),
    ]
    assert list(dispatcher.holding()) == ["p1"]


def test_an_answer_to_an_offer_is_a_sign_of_life(dispatcher: Dispatcher) -> None:
    dispatcher.handle(arrived("a"), 0.0)
    dispatcher.handle(NobodyThere("p1"), 0.1)
    dispatcher.handle(OfferAccepted("a", 0, "p1"), 0.15)
    assert dispatcher.handle(NobodyThere("p1"), 0.3) == []


def test_after_our_own_reconnection_nobody_is_lost_by_such_words_for_a_while(dispatcher: Dispatcher) -> None:
    hold(dispatcher, "a")
    dispatcher.handle(NobodyThere("p1"), 0.1)
    dispatcher.handle(BusDown(), 0.15)
    assert dispatcher.handle(NobodyThere("p1"), 0.3) == []
    dispatcher.handle(BusUp(), 1.0)
    assert [dispatcher.handle(NobodyThere("p1"), now) for now in (1.1, 1.3, 3.9)] == [[], [], []]
    assert dispatcher.handle(NobodyThere("p1"), 4.0) == []  # the first that counts
    assert dispatcher.handle(NobodyThere("p1"), 4.2) == [Withdraw("a", 0, Cause.LOST)]


def test_who_holds_is_known_at_every_stage(dispatcher: Dispatcher) -> None:
    assert list(dispatcher.holding()) == []
    dispatcher.handle(arrived("a"), 0.0)
    assert list(dispatcher.holding()) == ["p1"]
    dispatcher.handle(seen("p1", state=State.FAILED), 0.1)
    assert list(dispatcher.holding()) == []
