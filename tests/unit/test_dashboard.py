"""The dashboard's page and what it shows: escaped, fresh, bounded."""

from services.monitor.sight import FORGET_S, MOST, Sight
from services.monitor.view import page
from shared.messages import Group, InstanceRecord, Member, Role, ScenarioMap, State, Status
from shared.report import report
from tests.fakes import Clock

EVIL = "<script>alert('x')</script>"


def _status(
    instance: str = "d1", *, counter: int = 1, number: int = 1, state: State = State.READY, free: int = 2
) -> Status:
    return Status(instance, (1, counter), Role.DECODE, state, "chat", "main", 8, free, number=number)


def test_whatever_an_instance_calls_itself_is_escaped() -> None:
    record = InstanceRecord(EVIL, Role.DECODE, State.FAILED, (1, 1), EVIL, EVIL, 1, EVIL, 2, 1, EVIL, reason=EVIL + '"')
    scenario_map = ScenarioMap(EVIL, 1, (1, 1), [Group(EVIL, [Member(EVIL, (1, 1))])])
    shown = page(report([record], set(), [scenario_map]), EVIL, leading=False)
    assert "alert" in shown
    assert EVIL not in shown
    assert shown.count("<script>") == 1


def test_an_empty_fleet_has_a_page_too() -> None:
    shown = page(report([], set(), []), "monitor-1", leading=True)
    assert "0 of 0 instances ready" in shown
    assert "Nobody has reported yet." in shown


def test_an_older_status_that_comes_late_is_ignored() -> None:
    sight = Sight(Clock())
    assert sight.see(_status(number=2))
    assert not sight.see(_status(number=1))
    assert not sight.see(_status(number=2))
    assert sight.see(_status(counter=2, number=1))
    assert not sight.see(_status(counter=1, number=99))


def test_the_late_are_those_that_live_and_are_silent_but_not_forgotten() -> None:
    clock = Clock()
    sight = Sight(clock)
    sight.see(_status("d1"))
    sight.see(_status("d2", state=State.STOPPED))
    clock.advance(1.0)
    sight.see(_status("d3"))
    assert [one.instance for one in sight.late(0.5)] == ["d1"]
    clock.advance(FORGET_S - 0.5)
    assert [one.instance for one in sight.late(0.5)] == ["d3"]
    sight.forget()
    assert set(sight.statuses) == {"d3"}


def test_a_sender_of_made_up_names_does_not_fill_the_memory() -> None:
    sight = Sight(Clock())
    for number in range(MOST + 10):
        sight.see(_status(f"d{number}"))
    assert (len(sight.statuses), sight.refused) == (MOST, 10)
    assert sight.see(_status("d1", number=2))


def test_a_record_is_freshened_by_what_was_heard_since() -> None:
    sight = Sight(Clock())
    record = InstanceRecord("d1", Role.DECODE, State.STARTING, (1, 1), pid=7)
    sight.see(_status("d1", free=3))
    (joined,) = sight.freshened({"d1": record})
    assert (joined.state, joined.load, joined.pid) == (State.READY, 5, 7)


def test_a_failure_in_the_record_stands_until_a_later_epoch_speaks() -> None:
    sight = Sight(Clock())
    failed = InstanceRecord("d1", Role.DECODE, State.FAILED, (1, 1), reason="silent")
    sight.see(_status("d1", number=1))
    assert sight.freshened({"d1": failed}) == [failed]
    sight.see(_status("d1", counter=2))
    (joined,) = sight.freshened({"d1": failed})
    assert (joined.state, joined.epoch, joined.reason) == (State.READY, (1, 2), "")
