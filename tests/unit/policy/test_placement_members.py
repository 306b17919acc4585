"""Whom a view takes for a candidate: the map, the epochs and states it believes, and those who left."""

from shared.messages import Role, State
from shared.policy.placement import FleetView, Lost
from tests.unit.policy.builders import scenario_map, status, view_of
from tests.unit.policy.views import BEAT, prefills, rank


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


def test_one_that_left_the_map_gets_nothing_and_may_finish_when_it_drains() -> None:
    view = view_of("p1", "d1", "d2")
    view.see(scenario_map("p1", "d2", version=2), 0.1)
    view.see(status("d1", state=State.DRAINING), 0.2)
    assert rank(view, "chat", Role.DECODE, 0.2) == ["d2"]
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
    assert lost == [Lost("d1", (1, 1), "removed from the map", died=False)]


def test_an_instance_may_move_to_another_scenario() -> None:
    view = view_of("p1", "d1")
    view.see(scenario_map("p1", "d9", scenario="code", epochs={"p1": (1, 2)}), 0.1)
    view.see(status("p1", epoch=(1, 2), scenario="code"), 0.1)
    view.see(status("d9", scenario="code"), 0.1)
    view.see(scenario_map("d1", version=2), 0.2)  # the old scenario strikes it off later
    assert rank(view, "code", Role.PREFILL, 0.2) == ["p1"]
    assert prefills(view, 0.2) == []


def test_one_that_was_lost_may_be_struck_off_afterwards() -> None:
    view = view_of("p1", "d1")
    view.see(status("p1", state=State.FAILED), 0.1)
    view.see(scenario_map("d1", version=2), 0.2)
    for now in (1.0, 2.0, 3.0, 4.0):
        view.hear(now)
    assert [lost.instance for lost in view.tick(4.0)] == ["d1"]


def test_what_is_gone_is_forgotten() -> None:
    view = view_of("p1", "d1")
    for number in range(2, 200):
        view.see(scenario_map(f"p{number}", "d1", version=number), 0.0)
        view.see(status(f"p{number}"), 0.0)
        view.see(status(f"p{number - 1}", state=State.STOPPED), 0.0)
    assert len(view._workers) <= 3
    assert len(view.candidates._scenarios["chat"].prefills) == 1
