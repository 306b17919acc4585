"""Whom a view ranks first, and whom it does not ask: streams, slots, answers and room."""

from shared.messages import Role
from shared.policy.placement import FleetView, ViewRules
from tests.unit.policy.builders import scenario_map, status, view_of
from tests.unit.policy.views import prefills, rank


def test_fewest_streams_go_first() -> None:
    view = FleetView()
    view.see(scenario_map("p1", "p2", "p3", "d1"), 0.0)
    view.see(status("d1"), 0.0)
    for name, free in (("p1", 1), ("p2", 4), ("p3", 2)):
        view.see(status(name, free=free, slots=4), 0.0)
    assert prefills(view) == ["p2", "p3", "p1"]
    assert view.best("chat", Role.PREFILL, 0.0) == "p2"


def test_own_offers_count_before_any_status_can_show_them() -> None:
    view = view_of("p1", "p2", "d1", free=2)
    first = view.best("chat", Role.PREFILL, 0.0)
    assert first is not None
    view.dispatched(first)
    assert view.best("chat", Role.PREFILL, 0.0) == next(name for name in ("p1", "p2") if name != first)


def test_equals_take_turns() -> None:
    view = view_of("p1", "p2", "p3", "d1", free=8)
    asked = []
    for _ in range(6):
        best = view.best("chat", Role.PREFILL, 0.0)
        assert best is not None
        asked.append(best)
        view.dispatched(best)
        view.accepted(best)
    assert sorted(asked[:3]) == ["p1", "p2", "p3"]
    assert asked[3:] == asked[:3]


def test_a_worker_known_to_be_full_is_not_asked_but_ranked_after_the_others() -> None:
    view = view_of("p1", "p2", "d1")
    view.see(status("p1", free=0, slots=1), 0.0)
    assert prefills(view) == ["p2", "p1"]
    view.dispatched("p2")
    assert view.best("chat", Role.PREFILL, 0.0) is None


def test_a_rejection_closes_a_worker_until_its_next_status() -> None:
    view = view_of("p1", "d1", free=4)
    view.dispatched("p1")
    view.rejected("p1")
    assert view.best("chat", Role.PREFILL, 0.0) is None
    view.see(status("p1", free=4), 0.1)
    assert view.best("chat", Role.PREFILL, 0.1) == "p1"


def test_accepted_streams_use_up_the_slots_reported_before() -> None:
    view = view_of("p1", "d1", free=2)
    for _ in range(2):
        assert view.best("chat", Role.PREFILL, 0.0) == "p1"
        view.dispatched("p1")
        view.accepted("p1")
    assert view.best("chat", Role.PREFILL, 0.0) is None
    view.see(status("p1", free=1, slots=2), 0.1)
    assert view.best("chat", Role.PREFILL, 0.1) == "p1"


def test_a_settled_stream_counts_no_more() -> None:
    view = view_of("p1", "p2", "d1", free=2)
    for name in ("p1", "p1", "p2"):
        view.dispatched(name)
        view.accepted(name)
    view.see(status("p1", free=2), 0.1)  # reports nothing in use, but we know better
    assert prefills(view, 0.1)[0] == "p2"
    view.settled("p1")
    view.settled("p1")
    assert prefills(view, 0.1)[0] == "p1"


def test_decodes_are_ranked_within_a_group_and_by_their_room() -> None:
    view = FleetView()
    view.see(scenario_map("p1", "d1", "d2", group="a"), 0.0)
    view.see(status("d1", kv_free_bytes=10), 0.0)
    view.see(status("d2", kv_free_bytes=99), 0.0)
    assert rank(view, "chat", Role.DECODE, 0.0, group="a") == ["d2", "d1"]
    assert rank(view, "chat", Role.DECODE, 0.0, group="b") == []
    assert rank(view, "chat", Role.DECODE, 0.0, exclude={"d2"}) == ["d1"]


def test_an_unanswered_offer_makes_suspect_for_longer_each_time_until_an_answer() -> None:
    view = view_of("p1", "p2", "d1", free=9, rules=ViewRules(heartbeat_s=100.0))
    view.see(status("p2", free=1, slots=9), 0.0)
    for now, penalty in ((0.0, 1.0), (1.0, 2.0), (3.0, 4.0)):
        assert prefills(view, now) == ["p1", "p2"]
        view.dispatched("p1")
        view.unanswered("p1", now)
        assert prefills(view, now + penalty - 0.1) == ["p2", "p1"]
        assert view.next_deadline() == now + penalty
    view.dispatched("p1")
    assert prefills(view, 4.0) == ["p2", "p1"]
    view.accepted("p1")
    assert prefills(view, 4.0) == ["p1", "p2"]


def test_a_withdrawn_offer_leaves_no_stream_behind() -> None:
    view = view_of("p1", "d1", free=2)
    view.dispatched("p1")
    view.withdrawn("p1")
    view.see(status("p1", free=2), 0.1)
    assert view._workers["p1"].streams == 0


def test_different_watchers_prefer_different_workers_among_equals() -> None:
    names = [f"p{number}" for number in range(8)]
    first = set()
    for watcher in (f"gateway-{number}" for number in range(16)):
        view = FleetView(watcher=watcher)
        view.see(scenario_map(*names, "d1"), 0.0)
        for name in (*names, "d1"):
            view.see(status(name), 0.0)
        first.add(view.best("chat", Role.PREFILL, 0.0))
    assert len(first) > 3
