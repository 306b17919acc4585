"""Instances that are not well, that are lost again and again, that are too many or too few."""

import msgspec

from shared.messages import Group, Health, Member, Role, State
from shared.policy.fleet import Fleet
from shared.policy.fleet.events import (
    Assign,
    AssignAccepted,
    AssignFailed,
    Cause,
    FleetRules,
    HeldOff,
    LeaderGained,
    LeaseLost,
    Provide,
    PublishMap,
    Release,
    Retire,
    SendDrain,
    Substituted,
)
from shared.policy.fleet.flapping import Flapping
from shared.policy.plan import GroupPlan
from shared.policy.world import StatusSeen
from tests.unit.policy.builders import seen, status
from tests.unit.policy.fleets import (
    DECODE,
    RULES,
    assigned,
    beat,
    kinds,
    leading,
    led,
    linked,
    mapping,
    plan,
    published,
    sent_home,
    sized,
)

PROVIDED = FleetRules(settle_s=5.0, provide=True, standbys=1, release=True, release_s=10.0)


def feels(instance: str, health: Health, **others: object) -> StatusSeen:
    said = status(instance, **others)  # type: ignore[arg-type]
    return StatusSeen(msgspec.structs.replace(said, health=health))


def lose_d1(fleet: Fleet, *alive: str, now: float, epoch: tuple[int, int] = (1, 1)) -> list[object]:
    beat(fleet, *alive, now=now)
    return list(fleet.handle(LeaseLost("d1", epoch), now))


def test_one_whose_device_failed_is_lost_at_once() -> None:
    fleet = leading("p1", "d1", "s1")
    assert fleet.handle(feels("d1", Health.FAILED), 0.1) == [
        published("p1", version=2, cause=Cause.SICK),
        Retire("d1", (1, 1), Cause.SICK),
        SendDrain("d1", Cause.SICK),
        assigned("s1", DECODE, Cause.SICK),
    ]
    assert fleet.handle(feels("d1", Health.FAILED), 0.2) == []


def test_a_degraded_member_serves_until_a_standby_has_taken_its_place() -> None:
    fleet = leading("p1", "d1")
    assert fleet.handle(feels("d1", Health.DEGRADED), 0.1) == []
    assert fleet.handle(seen("s1"), 0.2) == [assigned("s1", DECODE, Cause.DEGRADED)]
    assert fleet.handle(seen("s2"), 0.3) == []
    fleet.handle(AssignAccepted("s1"), 0.3)
    as_decode = {"role": Role.DECODE, "epoch": (1, 5)}
    assert kinds(beat(fleet, "s1", now=0.4, **as_decode)) == ["PublishMap"]
    assert fleet.handle(feels("d1", Health.DEGRADED), 0.5) == []
    assert not fleet.settled("chat")
    actions = fleet.handle(linked("p1", "d1", "s1", s1=(1, 5)), 0.6)
    assert kinds(actions) == ["PublishMap", "Substituted", "SendDrain"]
    gone = Group("main", [Member("p1", (1, 1))], [Member("s1", (1, 5))], prefills=1, decodes=1)
    assert actions[0] == PublishMap(mapping(gone, version=3), Cause.JOINED)
    assert [member.instance for place, member in fleet.members("chat") if place == DECODE] == ["s1"]
    assert fleet.handle(feels("d1", Health.DEGRADED), 0.7) == []
    assert fleet.settled("chat")


def test_a_degraded_member_that_is_well_again_stays_and_the_newcomer_goes_home() -> None:
    fleet = leading("p1", "d1", "s1")
    assert fleet.handle(feels("d1", Health.DEGRADED), 0.1) == [assigned("s1", DECODE, Cause.DEGRADED)]
    assert fleet.handle(feels("d1", Health.OK), 0.2) == []
    assert beat(fleet, "s1", now=0.4, role=Role.DECODE, epoch=(1, 5)) == [sent_home("s1")]


def test_a_degraded_member_that_dies_needs_no_second_substitute() -> None:
    fleet = leading("p1", "d1", "s1", "s2")
    assert fleet.handle(feels("d1", Health.DEGRADED), 0.1) == [assigned("s1", DECODE, Cause.DEGRADED)]
    assert kinds(lose_d1(fleet, "p1", "s2", now=1.0)) == ["PublishMap", "Retire"]  # type: ignore[arg-type]


def test_a_degraded_standby_is_used_only_where_there_is_no_other() -> None:
    fleet = leading("p1", "d1")
    fleet.handle(feels("s1", Health.DEGRADED), 0.1)
    assert fleet.handle(feels("d1", Health.DEGRADED), 0.1) == []  # that would change nothing
    fleet.handle(feels("d1", Health.OK), 0.2)
    fleet.handle(seen("s2"), 0.2)
    assert lose_d1(fleet, "p1", now=1.0)[-1] == assigned("s2", DECODE, Cause.LEASE_LOST)
    fleet = leading("p1", "d1")
    fleet.handle(feels("s1", Health.DEGRADED), 0.1)
    assert lose_d1(fleet, "p1", now=1.0)[-1] == assigned("s1", DECODE, Cause.LEASE_LOST)


def test_one_that_was_lost_too_often_gets_no_place_for_a_while() -> None:
    fleet = led(sized(1, 2), "p1", "d1", "d2")
    now, held = 1.0, []
    for life in range(2, 2 + RULES.flaps):
        actions = lose_d1(fleet, "p1", "d2", now=now, epoch=(1, life - 1))
        held = [one for one in actions if isinstance(one, HeldOff)]
        fleet.handle(seen("d1", epoch=(1, life)), now + 0.1)
        now += 2.0
    assert held == [HeldOff("d1", RULES.flaps, RULES.hold_off_s)]
    assert [member.instance for place, member in fleet.members("chat") if place == DECODE] == ["d2"]
    assert beat(fleet, "d1", now=now, epoch=(1, 9), state=State.STARTING) == []
    assert fleet.handle(seen("s1"), now)[-1:] == [assigned("s1", DECODE, Cause.LEASE_LOST)]
    beat(fleet, "s1", now=now + 0.1, role=Role.DECODE, epoch=(1, 4))
    fleet.handle(linked("p1", "d2", "s1", s1=(1, 4)), now + 0.2)
    until = now - 2.0 + RULES.hold_off_s
    while now < until:
        assert beat(fleet, "d1", now=now, epoch=(1, 9)) == []
        beat(fleet, "p1", "d2", now=now)
        beat(fleet, "s1", now=now, role=Role.DECODE, epoch=(1, 4))
        now += 0.5
    assert beat(fleet, "d1", now=now, epoch=(1, 9)) == [sent_home("d1")]  # s1 has its place


def test_a_standby_that_was_lost_too_often_is_not_sent() -> None:
    fleet = leading("p1", "d1")
    for life in range(1, 1 + RULES.flaps):
        fleet.handle(seen("s1", epoch=(1, life)), 0.1 * life)
        beat(fleet, "p1", "d1", now=float(life))
        fleet.handle(LeaseLost("s1", (1, life)), float(life))
    fleet.handle(seen("s1", epoch=(1, 9)), 3.1)
    assert "Assign" not in kinds(lose_d1(fleet, "p1", now=4.0))  # type: ignore[arg-type]
    assert fleet.handle(seen("s2"), 4.1) == [assigned("s2", DECODE, Cause.LEASE_LOST)]


def test_where_nobody_else_would_serve_one_that_flaps_serves() -> None:
    fleet = leading("p1", "d1")
    now = 1.0
    for life in range(2, 3 + RULES.flaps):
        lose_d1(fleet, "p1", now=now, epoch=(1, life - 1))
        fleet.handle(seen("d1", epoch=(1, life)), now + 0.1)
        assert [member.instance for place, member in fleet.members("chat") if place == DECODE] == ["d1"]
        now += 2.0


def test_a_hold_is_doubled_each_time_up_to_its_bound_and_starts_again_after_calm() -> None:
    rules = FleetRules(flaps=2, hold_off_s=60.0, hold_off_max_s=200.0, flap_window_s=600.0)
    flapping = Flapping(rules)
    assert [flapping.lost("d1", now) for now in (0.0, 1.0, 2.0, 3.0, 4.0)] == [None, 60.0, 120.0, 200.0, 200.0]
    assert flapping.held("d1", 203.9)
    assert not flapping.held("d1", 204.0)
    assert [flapping.lost("d1", now) for now in (900.0, 901.0)] == [None, 60.0]
    assert not flapping.held("d2", 0.0)


def test_the_provisioner_is_told_how_many_are_missing_when_that_changes() -> None:
    fleet = Fleet([sized()], PROVIDED)
    beat(fleet, "p1", "d1", now=5.0)
    assert fleet.handle(LeaderGained((1, 1)), 5.0)[1:] == [Provide(1)]  # a standby, to be kept free
    assert fleet.handle(seen("s1"), 5.1) == [Provide(0)]
    assert [one for one in lose_d1(fleet, "p1", "s1", now=6.0) if isinstance(one, Provide)] == [Provide(1)]
    assert beat(fleet, "p1", now=6.5) == []
    assert plan(fleet, GroupPlan("main", 2, 3), now=6.6)[-1] == Provide(4)
    assert fleet.handle(seen("s2"), 6.7)[-1] == Provide(3)


def test_standbys_that_say_no_are_not_made_good_for_by_ever_more_new_ones() -> None:
    """A hole and a standby to be kept free: once so many have said no, nobody is asked for any more."""
    fleet = led(sized(), "p1", "d1", "s1", rules=PROVIDED)
    told = [one for one in lose_d1(fleet, "p1", "s1", now=6.0) if isinstance(one, Provide)]
    now, number = 6.0, 1
    while number < 8 and told[-1:] != [Provide(0)]:
        actions = fleet.handle(AssignFailed(f"s{number}", "no such model", certain=True), now + 0.1)
        number += 1
        actions += fleet.handle(seen(f"s{number}"), now + 0.2)  # as it was asked for
        told += [one for one in actions if isinstance(one, Provide)]
        now += 0.2
    assert told[-1] == Provide(0)
    assert number <= 4


def test_a_standby_too_many_is_released_after_a_while_and_not_sent_any_more() -> None:
    fleet = led(sized(), "p1", "d1", "s1", "s2", rules=PROVIDED)
    now, actions = 5.0, []
    while now < 16.0:
        now += 0.5
        actions += beat(fleet, "p1", "d1", "s1", "s2", now=now)
    assert [one for one in actions if not isinstance(one, Provide)] == [Release("s2")]
    beat(fleet, "p1", "s1", "s2", now=now + 1.0)
    assert [one for one in lose_d1(fleet, "p1", "s2", now=now + 1.5) if isinstance(one, Assign)] == [
        assigned("s1", DECODE, Cause.LEASE_LOST)
    ]
    assert fleet._substitutes.get("s2") is None


def test_without_a_provisioner_nobody_is_asked_for_or_released() -> None:
    fleet = leading("p1", "s1", "s2", "s3")
    actions = []
    now = 0.0
    while now < 100.0:
        now += 0.5
        actions += beat(fleet, "p1", "s2", "s3", now=now)
    assert not [one for one in actions if isinstance(one, Provide | Release)]


def test_the_steps_of_a_substitution_begin_when_the_member_was_lost() -> None:
    fleet = leading("p1", "d1")
    lose_d1(fleet, "p1", now=1.0)
    beat(fleet, "p1", now=1.5)
    assert fleet.handle(seen("s1"), 2.0) == [assigned("s1", DECODE, Cause.LEASE_LOST)]
    beat(fleet, "p1", now=2.5)
    fleet.handle(AssignAccepted("s1"), 2.5)
    beat(fleet, "s1", now=3.0, role=Role.DECODE, epoch=(1, 4))
    beat(fleet, "p1", now=3.0)
    [told] = [one for one in fleet.handle(linked("p1", "s1", s1=(1, 4)), 4.0) if isinstance(one, Substituted)]
    assert told.steps == (("ordered", 1.0), ("accepted", 0.5), ("ready", 0.5), ("joined", 1.0))


def test_a_degraded_member_of_a_group_that_closes_is_not_replaced_there() -> None:
    fleet = leading("p1", "d1")
    fleet.handle(feels("d1", Health.DEGRADED), 0.1)
    orders = list(plan(fleet, GroupPlan("three", 1, 2), now=0.2))
    for number in range(1, 5):
        orders += beat(fleet, f"s{number}", now=0.2 + number / 10)
    sent = [one for one in orders if isinstance(one, Assign)]
    assert {one.group for one in sent if one.cause is Cause.DEGRADED} <= {"three"}
    assert [one.group for one in sent].count("main") == 0
