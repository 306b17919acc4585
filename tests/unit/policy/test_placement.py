"""One observer's view, claim by claim."""

from shared.messages import Role, State
from shared.policy.placement import FleetView, Lost, ViewRules
from tests.unit.policy.builders import scenario_map, status, view_of

BEAT = ViewRules().heartbeat_s
PATIENCE = BEAT * ViewRules().misses


def prefills(view: FleetView, now: float = 0.0, **others: object) -> list[str]:
    return view.rank("chat", Role.PREFILL, now, **others)  # type: ignore[arg-type]


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


def test_only_members_that_said_they_are_ready_are_candidates() -> None:
    view = FleetView()
    view.see(scenario_map("p1", "p2", "p3", "d1"), 0.0)
    view.see(status("d1"), 0.0)
    view.see(status("p1", state=State.STARTING), 0.0)
    view.see(status("p2", state=State.DRAINING), 0.0)
    view.see(status("p4"), 0.0)  # in no map
    assert prefills(view) == []
    view.see(status("p1"), 0.1)
    assert prefills(view, 0.1) == ["p1"]


def test_a_prefill_without_a_decode_in_its_group_is_no_candidate() -> None:
    view = FleetView()
    view.see(scenario_map("p1", "d1"), 0.0)
    view.see(status("p1"), 0.0)
    assert not view.exists("chat", Role.PREFILL)
    view.see(status("d1"), 0.0)
    assert prefills(view) == ["p1"]
    view.see(status("d1", state=State.STOPPED), 0.1)
    assert not view.exists("chat", Role.PREFILL)


def test_decodes_are_ranked_within_a_group_and_by_their_room() -> None:
    view = FleetView()
    view.see(scenario_map("p1", "d1", "d2", group="a"), 0.0)
    view.see(status("d1", kv_free_bytes=10), 0.0)
    view.see(status("d2", kv_free_bytes=99), 0.0)
    assert view.rank("chat", Role.DECODE, 0.0, group="a") == ["d2", "d1"]
    assert view.rank("chat", Role.DECODE, 0.0, group="b") == []
    assert view.rank("chat", Role.DECODE, 0.0, exclude={"d2"}) == ["d1"]


def test_older_maps_and_older_leaders_are_refused() -> None:
    view = view_of("p1", "d1")
    view.see(scenario_map("p2", "d1", version=1), 0.1)  # the same version
    view.see(scenario_map("p2", "d1", version=9, leader=(1, 0)), 0.1)  # an older leader
    assert prefills(view, 0.1) == ["p1"]
    view.see(scenario_map("d1", version=1, leader=(1, 2)), 0.1)  # a new leader counts anew
    assert prefills(view, 0.1) == []


def test_a_status_of_an_older_epoch_or_number_is_refused() -> None:
    view = view_of("p1", "d1")
    view.see(status("p1", free=3, slots=3, epoch=(2, 1), number=5), 0.1)
    view.see(status("p1", free=0, epoch=(1, 9), number=9), 0.1)
    view.see(status("p1", free=0, epoch=(2, 1), number=4), 0.1)
    assert view.best("chat", Role.PREFILL, 0.1) == "p1"
    assert not view.current("p1", (1, 9))
    assert view.current("p1", (2, 1))


def test_a_member_is_no_candidate_under_an_epoch_older_than_the_maps() -> None:
    view = view_of("p1", "d1")
    view.see(scenario_map("p1", "d1", version=2, epochs={"p1": (1, 2)}), 0.1)
    assert prefills(view, 0.1) == []
    view.see(status("p1", epoch=(1, 2)), 0.2)
    assert prefills(view, 0.2) == ["p1"]


def test_a_worker_that_misses_heartbeats_is_suspect_and_then_lost() -> None:
    view = view_of("p1", "p2", "d1")
    for now in (0.5, 1.0, 1.5):
        view.see(status("p2"), now)
        view.see(status("d1"), now)
    assert view.tick(1.5) == []
    assert prefills(view, 1.5) == ["p2", "p1"]
    view.see(status("p2", free=0), 1.5)
    assert view.best("chat", Role.PREFILL, 1.5) is None  # a suspect is not asked while another is merely full
    assert view.tick(2.0) == [Lost("p1", (1, 1), "silent")]
    assert prefills(view, 2.0) == ["p2"]
    assert view.lost("p1")


def test_a_suspect_is_asked_where_there_is_nobody_else() -> None:
    view = view_of("p1", "d1")
    view.see(status("d1"), 1.5)
    assert prefills(view, 1.5) == ["p1"]
    assert view.best("chat", Role.PREFILL, 1.5) == "p1"


def test_a_worker_taken_for_lost_by_mistake_is_back_with_its_next_status() -> None:
    view = view_of("p1", "d1")
    view.see(status("d1"), 1.5)
    assert view.tick(2.0) == [Lost("p1", (1, 1), "silent")]
    assert view.see(status("p1"), 2.1) == []
    assert prefills(view, 2.1) == ["p1"]
    assert not view.lost("p1")


def test_nobody_is_lost_while_nobody_is_heard_and_all_have_their_full_time_afterwards() -> None:
    view = view_of("p1", "d1")
    assert view.tick(60.0) == []  # the bus was down, or we were frozen
    lost = []
    for beat in range(4):
        lost += view.see(status("d1"), 60.0 + beat * BEAT)
    assert lost == []
    assert view.see(status("d1"), 60.0 + 4 * BEAT) == [Lost("p1", (1, 1), "silent")]


def test_a_pulse_is_enough_to_know_that_silence_is_real() -> None:
    view = view_of("p1", "d1")
    lost = []
    for now in (1.0, 2.0, 3.0):
        view.hear(now)
        lost += view.tick(now)
    assert sorted(one.instance for one in lost) == ["d1", "p1"]


def test_a_word_of_stopping_or_failing_is_a_loss_at_once_and_only_once() -> None:
    view = view_of("p1", "p2", "d1")
    assert view.see(status("p1", state=State.STOPPED), 0.1) == [Lost("p1", (1, 1), "stopped", died=False)]
    assert view.see(status("p2", state=State.FAILED), 0.1) == [Lost("p2", (1, 1), "failed")]
    assert view.see(status("p2", state=State.FAILED), 0.2) == []
    assert prefills(view, 0.2) == []


def test_a_restarted_process_has_lost_what_it_held() -> None:
    view = view_of("p1", "d1")
    view.dispatched("p1")
    view.accepted("p1")
    assert view.see(status("p1", epoch=(1, 2), number=1), 0.1) == [Lost("p1", (1, 1), "restarted")]
    assert view.best("chat", Role.PREFILL, 0.1) == "p1"


def test_a_process_that_took_a_new_lease_has_lost_nothing() -> None:
    view = view_of("p1", "d1")
    assert view.see(status("p1", epoch=(2, 1)), 0.1) == []
    assert prefills(view, 0.1) == ["p1"]


def test_one_that_left_the_map_gets_nothing_and_may_finish_when_it_drains() -> None:
    view = view_of("p1", "d1", "d2")
    view.see(scenario_map("p1", "d2", version=2), 0.1)
    view.see(status("d1", state=State.DRAINING), 0.2)
    assert view.rank("chat", Role.DECODE, 0.2) == ["d2"]
    lost = []
    for beat in range(1, 20):
        now = 0.2 + beat * BEAT
        for name in ("p1", "d2"):
            lost += view.see(status(name), now)
        lost += view.see(status("d1", state=State.DRAINING), now)
    assert lost == []
    assert view.see(status("d1", state=State.STOPPED), 11.0) == [Lost("d1", (1, 1), "stopped", died=False)]


def test_one_that_left_the_map_and_goes_on_as_if_ready_is_lost_in_time() -> None:
    view = view_of("p1", "d1", "d2")
    view.see(scenario_map("p1", "d2", version=2), 0.0)
    lost = []
    for beat in range(1, 5):
        for name in ("p1", "d1", "d2"):
            lost += view.see(status(name), beat * BEAT)
    assert lost == [Lost("d1", (1, 1), "removed from the map")]


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


def test_an_instance_may_move_to_another_scenario() -> None:
    view = view_of("p1", "d1")
    view.see(scenario_map("p1", "d9", scenario="code", epochs={"p1": (1, 2)}), 0.1)
    view.see(status("p1", epoch=(1, 2), scenario="code"), 0.1)
    view.see(status("d9", scenario="code"), 0.1)
    view.see(scenario_map("d1", version=2), 0.2)  # the old scenario strikes it off later
    assert view.rank("code", Role.PREFILL, 0.2) == ["p1"]
    assert prefills(view, 0.2) == []


def test_one_that_was_lost_may_be_struck_off_afterwards() -> None:
    view = view_of("p1", "d1")
    view.see(status("p1", state=State.FAILED), 0.1)
    view.see(scenario_map("d1", version=2), 0.2)
    for now in (1.0, 2.0, 3.0, 4.0):
        view.hear(now)
    assert [lost.instance for lost in view.tick(4.0)] == ["d1"]


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


def test_what_is_gone_is_forgotten() -> None:
    view = view_of("p1", "d1")
    for number in range(2, 200):
        view.see(scenario_map(f"p{number}", "d1", version=number), 0.0)
        view.see(status(f"p{number}"), 0.0)
        view.see(status(f"p{number - 1}", state=State.STOPPED), 0.0)
    assert len(view._workers) <= 3
    assert len(view._pools["chat", Role.PREFILL, ""]) == 1


def test_a_tick_at_the_next_deadline_always_moves_it() -> None:
    view = view_of("p1", "p2", "d1", now=0.1)
    view.hear(1.3)
    now = 0.1
    for _ in range(20):
        view.tick(now)
        deadline = view.next_deadline()
        if deadline is None:
            break
        assert deadline > now
        now = deadline
        view.hear(now)
    assert view.next_deadline() is None
