"""What counts as the loss of a member and what does not: the map changes first, then one substitute is sent."""

from shared.messages import State
from shared.policy.fleet import Fleet
from shared.policy.fleet.events import (
    Action,
    Assign,
    Cause,
    ConnectionRefused,
    FleetRules,
    LeaderGained,
    LeaseLost,
    PublishMap,
    Retire,
    SendDrain,
)
from shared.policy.world import PulseSeen, Tick
from tests.unit.policy.builders import seen
from tests.unit.policy.fleets import (
    BEAT,
    DECODE,
    LEAD,
    RULES,
    assigned,
    beat,
    group,
    leading,
    led,
    linked,
    mapping,
    published,
    sized,
)


def test_a_silent_member_leaves_the_map_and_then_one_standby_takes_its_place() -> None:
    fleet = leading("p1", "d1", "s1", "s2")
    for step in range(1, 4):
        assert beat(fleet, "p1", "s1", "s2", now=step * BEAT) == []
    assert fleet.next_deadline() == 4 * BEAT
    assert fleet.handle(Tick(), 4 * BEAT) == [
        published("p1", version=2, cause=Cause.SILENT),
        Retire("d1", (1, 1), Cause.SILENT),
        assigned("s1", DECODE, Cause.SILENT),
    ]


def test_a_member_that_lost_its_lease_and_is_silent_is_lost_at_once() -> None:
    fleet = leading("p1", "d1", "s1")
    beat(fleet, "p1", "s1", now=1.0)
    assert fleet.handle(LeaseLost("d1", (1, 1)), 1.0) == [
        published("p1", version=2, cause=Cause.LEASE_LOST),
        Retire("d1", (1, 1), Cause.LEASE_LOST),
        assigned("s1", DECODE, Cause.LEASE_LOST),
    ]


def test_a_member_that_lost_its_lease_but_speaks_may_come_with_a_new_epoch() -> None:
    fleet = leading("p1", "d1", "s1")
    assert fleet.handle(LeaseLost("d1", (1, 1)), 0.1) == []
    assert fleet.handle(seen("d1", epoch=(2, 1)), 1.0) == [
        published("p1", "d1", version=2, cause=Cause.NEW_EPOCH, d1=(2, 1))
    ]
    beat(fleet, "p1", "s1", now=2.0)
    assert fleet.handle(Tick(), 0.1 + RULES.lease_grace_s) == []


def test_a_member_that_speaks_on_without_a_lease_is_lost_and_never_believed_again() -> None:
    fleet = leading("p1", "d1", "s1")
    fleet.handle(LeaseLost("d1", (1, 1)), 0.1)
    for step in range(1, 5):
        assert beat(fleet, "p1", "d1", "s1", now=step * BEAT) == []
    assert fleet.handle(Tick(), 0.1 + RULES.lease_grace_s) == [
        published("p1", version=2, cause=Cause.LEASE_LOST),
        Retire("d1", (1, 1), Cause.LEASE_LOST),
        assigned("s1", DECODE, Cause.LEASE_LOST),
    ]
    assert fleet.handle(seen("d1"), 2.2) == []
    assert fleet.handle(seen("d1", epoch=(1, 2)), 2.3) == [
        PublishMap(mapping(group("p1", waiting=("d1",), d1=(1, 2)), version=3), Cause.READY)
    ]
    assert fleet.handle(linked("p1", "d1", d1=(1, 2)), 2.4)[0] == published(
        "p1", "d1", version=4, cause=Cause.JOINED, d1=(1, 2)
    )


def test_a_refused_connection_of_one_that_is_late_is_a_loss_and_of_one_just_heard_is_not() -> None:
    fleet = leading("p1", "d1", "s1")
    assert fleet.handle(ConnectionRefused("d1", (1, 1)), 0.1) == []
    beat(fleet, "p1", "s1", now=0.9)
    assert fleet.handle(ConnectionRefused("d1", (1, 1)), 1.0) == [
        published("p1", version=2, cause=Cause.REFUSED),
        Retire("d1", (1, 1), Cause.REFUSED),
        assigned("s1", DECODE, Cause.REFUSED),
    ]


def test_news_about_an_older_epoch_is_no_news() -> None:
    fleet = leading("p1", "d1", "s1")
    fleet.handle(seen("d1", epoch=(1, 5)), 0.1)
    assert fleet.handle(LeaseLost("d1", (1, 1)), 0.2) == []
    assert fleet.handle(ConnectionRefused("d1", (1, 1)), 1.0) == []


def test_several_signs_of_one_loss_bring_one_substitute() -> None:
    fleet = leading("p1", "d1", "s1", "s2", "s3")
    beat(fleet, "p1", "s1", "s2", "s3", now=1.0)
    first = fleet.handle(LeaseLost("d1", (1, 1)), 1.0)
    assert [type(action) for action in first] == [PublishMap, Retire, Assign]
    assert fleet.handle(ConnectionRefused("d1", (1, 1)), 1.1) == []
    assert fleet.handle(LeaseLost("d1", (1, 1)), 1.2) == []
    assert fleet.handle(seen("d1", state=State.FAILED), 1.3) == []
    assert beat(fleet, "p1", "s2", "s3", now=1.4) == []


def test_a_worker_that_is_busy_without_a_step_is_stuck_and_sent_away() -> None:
    fleet = led(sized(), "p1", "d1", "s1", rules=FleetRules(stuck_s=2.0), settled=False)
    actions: list[Action] = []
    for step in range(5):
        actions += fleet.handle(seen("d1", busy=True, steps=7), step * BEAT)
        actions += beat(fleet, "p1", "s1", now=step * BEAT)
    assert actions == [
        published("p1", version=2, cause=Cause.STUCK),
        Retire("d1", (1, 1), Cause.STUCK),
        SendDrain("d1", Cause.STUCK),
        assigned("s1", DECODE, Cause.STUCK),
    ]
    assert fleet.handle(seen("d1"), 2.6) == []


def test_a_busy_worker_that_makes_steps_is_not_stuck() -> None:
    fleet = Fleet([sized(1, 1)], FleetRules(stuck_s=2.0))
    fleet.handle(seen("d1"), 0.0)
    fleet.handle(LeaderGained(LEAD), 0.0)
    assert [fleet.handle(seen("d1", busy=True, steps=step), step * BEAT) for step in range(1, 20)] == [[]] * 19


def test_nobody_is_lost_while_nobody_is_heard() -> None:
    fleet = leading("p1", "d1", "s1")
    assert fleet.handle(Tick(), 60.0) == []
    assert beat(fleet, "p1", "d1", "s1", now=60.1) == []
    assert fleet.handle(Tick(), 61.0) == []


def test_a_pulse_shows_that_the_silence_of_all_others_is_real() -> None:
    fleet = leading("p1", "d1")
    actions: list[Action] = []
    for now in (1.0, 2.0):
        actions += fleet.handle(PulseSeen(), now)
    assert actions[0] == published(version=2, cause=Cause.SILENT)
    assert {action.instance for action in actions if isinstance(action, Retire)} == {"p1", "d1"}
