"""Whom a view lets be asked, by the phase of the group and by who has joined it."""

import pytest
from msgspec import structs

from shared.messages import GroupPhase, Health, Role
from shared.policy.worker import Worker
from tests.unit.policy.builders import status
from tests.unit.policy.parted import group, map_of, view_over
from tests.unit.policy.views import prefills, rank

NOT_OPEN = [phase for phase in GroupPhase if phase is not GroupPhase.OPEN]


@pytest.mark.parametrize("phase", NOT_OPEN)
def test_only_an_open_group_is_an_entrance(phase: GroupPhase) -> None:
    view = view_over(group("a", "p1", "d1"), group("b", "p2", "d2", phase=phase))
    assert prefills(view) == ["p1"]
    assert prefills(view, group="b") == []
    assert rank(view, "chat", Role.DECODE, 0.0) == ["d1"]


def test_a_group_that_opens_lets_all_its_members_in() -> None:
    view = view_over(group("a", "p1", "p2", "d1", phase=GroupPhase.CONNECT))
    assert prefills(view) == []
    view.see(map_of(group("a", "p1", "p2", "d1"), version=2), 0.1)
    assert sorted(prefills(view, 0.1)) == ["p1", "p2"]


def test_the_prefills_of_a_closing_group_may_still_push_to_its_decodes() -> None:
    view = view_over(group("a", "p1", "d1", phase=GroupPhase.CLOSING))
    assert rank(view, "chat", Role.DECODE, 0.0, group="a") == ["d1"]
    assert sorted(view.members("chat", 0.0)) == ["d1", "p1"]


def test_the_members_of_a_closing_group_are_not_taken_for_lost() -> None:
    view = view_over(group("a", "p1", "d1"))
    lost = view.see(map_of(group("a", "p1", "d1", phase=GroupPhase.CLOSING), version=2), 0.1)
    for beat in range(1, 9):
        for name in ("p1", "d1"):
            lost += view.see(status(name, group="a"), 0.1 + beat * 1000.0)
    assert lost == []


def test_one_that_has_not_joined_is_not_asked() -> None:
    view = view_over(group("a", "p1", "p2", "d1", "d2", waiting=("p2", "d2")))
    assert prefills(view) == ["p1"]
    assert rank(view, "chat", Role.DECODE, 0.0, group="a") == ["d1"]
    view.see(map_of(group("a", "p1", "p2", "d1", "d2"), version=2), 0.1)
    assert sorted(prefills(view, 0.1)) == ["p1", "p2"]
    assert sorted(rank(view, "chat", Role.DECODE, 0.1, group="a")) == ["d1", "d2"]


def test_a_group_whose_only_decode_has_not_joined_gets_nothing() -> None:
    view = view_over(group("a", "p1", "d1", waiting=("d1",)))
    assert prefills(view) == []


def test_one_whose_device_has_failed_is_not_asked() -> None:
    worker = Worker("p1", 0, role=Role.PREFILL, member=(1, 1), status=status("p1"))
    assert worker.routable
    worker.status = structs.replace(status("p1"), health=Health.FAILED)
    assert not worker.routable
    worker.status = structs.replace(status("p1"), health=Health.DEGRADED)
    assert worker.routable


def test_groups_that_come_and_go_leave_nothing_behind() -> None:
    view = view_over(group("a", "p1", "d1"))
    for number in range(2, 100):
        view.see(map_of(group(f"g{number}", "p1", "d1"), version=number), 0.1)
        for name in ("p1", "d1"):
            view.see(status(name, group=f"g{number}"), 0.1)
    assert len(view.candidates._scenarios["chat"].groups) < 3
    assert len(view.candidates.ring("chat")._points) < 10
