"""Newcomers join when their pairs are verified; one that cannot be is lost, and never an old member because of it."""

from shared.messages import GroupPhase, Role, State
from shared.policy.fleet import Fleet
from shared.policy.fleet.events import Assign, Cause, LeaderGained, LeaseLost, PublishMap, Retire, SendDrain
from shared.policy.plan import GroupPlan
from shared.policy.world import BusDown, BusUp, Tick
from tests.unit.policy.builders import seen
from tests.unit.policy.fleets import (
    DECODE,
    RULES,
    assigned,
    beat,
    group,
    kinds,
    leading,
    led,
    linked,
    mapping,
    published,
    sized,
)

LATE = RULES.verify_s


def joined(fleet: Fleet) -> set[str]:
    return {member.instance for _, member in fleet.members("chat") if member.joined}


def everyone(fleet: Fleet) -> set[str]:
    return {member.instance for _, member in fleet.members("chat")}


def wait(fleet: Fleet, *names: str, since: float, until: float) -> list[object]:
    """Beat; everything that is done meanwhile."""
    actions: list[object] = []
    now = since
    while now < until:
        now = min(now + 0.5, until)
        actions += beat(fleet, *names, now=now)
    return actions


def test_a_decode_joins_when_every_joined_prefill_has_reached_it() -> None:
    fleet = led(sized(2, 2), "p1", "p2", "d1")
    fleet.handle(seen("d2"), 0.1)
    fleet.handle(linked("p1", "d1", "d2"), 0.2)
    assert joined(fleet) == {"p1", "p2", "d1"}
    fleet.handle(linked("p2", "d1", "d2"), 0.3)
    assert joined(fleet) == {"p1", "p2", "d1", "d2"}


def test_a_prefill_joins_when_it_has_reached_every_joined_decode() -> None:
    fleet = led(sized(2, 2), "p1", "d1", "d2")
    fleet.handle(seen("p2"), 0.1)
    fleet.handle(linked("p2", "d1"), 0.2)
    assert "p2" not in joined(fleet)
    fleet.handle(linked("p2", "d1", "d2"), 0.3)
    assert "p2" in joined(fleet)


def test_a_link_to_another_life_of_a_decode_counts_for_nothing() -> None:
    fleet = leading("p1")
    fleet.handle(seen("d1", epoch=(1, 2)), 0.1)
    fleet.handle(linked("p1", "d1", d1=(1, 1)), 0.2)
    fleet.handle(linked("p1", "d1", p1=(1, 0), d1=(1, 2)), 0.3)
    assert joined(fleet) == set()
    fleet.handle(linked("p1", "d1", d1=(1, 2)), 0.4)
    assert joined(fleet) == {"p1", "d1"}


def test_whoever_has_joined_stays_joined_whatever_is_said_of_the_link_later() -> None:
    fleet = leading("p1", "d1")
    assert fleet.handle(linked("p1", failing=("d1",)), 0.1) == []
    assert wait(fleet, "p1", "d1", since=0.1, until=3 * LATE) == []


def test_a_process_that_takes_its_lease_again_stays_joined_and_a_new_process_does_not() -> None:
    fleet = leading("p1", "d1")
    assert fleet.handle(seen("d1", epoch=(2, 1)), 0.1) == [
        published("p1", "d1", version=2, cause=Cause.NEW_EPOCH, d1=(2, 1))
    ]
    assert fleet.handle(seen("d1", epoch=(2, 2), number=1), 0.2) == [
        PublishMap(mapping(group("p1", waiting=("d1",), d1=(2, 2)), version=3), Cause.NEW_EPOCH)
    ]


def test_a_newcomer_that_cannot_be_reached_in_time_is_lost_and_another_takes_its_place() -> None:
    fleet = led(sized(1, 2), "p1", "d1")
    fleet.handle(seen("d2"), 0.1)
    fleet.handle(seen("s1"), 0.1)
    fleet.handle(linked("p1", "d1", failing=("d2",)), 0.2)
    assert wait(fleet, "p1", "d1", "d2", "s1", since=0.2, until=LATE) == []
    plan = GroupPlan("main", 1, 2)
    assert fleet.handle(Tick(), 0.1 + LATE) == [
        PublishMap(mapping(group("p1", "d1", plan=plan, phase=GroupPhase.LOAD), version=3), Cause.UNREACHABLE),
        Retire("d2", (1, 1), Cause.UNREACHABLE),
        SendDrain("d2", Cause.UNREACHABLE),
        assigned("s1", DECODE, Cause.UNREACHABLE),
    ]
    assert joined(fleet) == {"p1", "d1"}
    assert beat(fleet, "d2", now=0.2 + LATE) == []


def test_a_newcomer_of_which_nobody_says_anything_is_waited_for() -> None:
    fleet = led(sized(1, 2), "p1", "d1", "s1")
    fleet.handle(seen("p1", epoch=(1, 2)), 0.0)  # its links are of an earlier epoch: it has said nothing yet
    fleet.handle(seen("d2"), 0.1)
    now = 0.1
    while now < 3 * LATE:
        now += 0.5
        beat(fleet, "d1", "d2", "s1", now=now)
        beat(fleet, "p1", now=now, epoch=(1, 2))
    assert everyone(fleet) == {"p1", "d1", "d2"}
    fleet.handle(linked("p1", "d1", "d2", p1=(1, 2)), now)
    assert joined(fleet) == {"p1", "d1", "d2"}


def test_of_a_new_pair_that_fails_the_last_to_come_is_given_up_and_the_other_waits_for_the_next() -> None:
    fleet = leading("p1", "s1")
    fleet.handle(seen("d1"), 0.1)
    fleet.handle(linked("p1", failing=("d1",)), 0.2)
    actions = wait(fleet, "p1", "d1", "s1", since=0.2, until=0.2 + LATE)
    assert [one for one in actions if isinstance(one, Retire)] == [Retire("d1", (1, 1), Cause.UNREACHABLE)]
    assert everyone(fleet) == {"p1"}


def test_in_a_new_group_the_one_whose_pairs_fail_most_is_given_up() -> None:
    fleet = led(sized(2, 2), settled=False)
    for name in ("d2", "p1", "p2", "d1"):
        fleet.handle(seen(name), 0.0)
    for name in ("p1", "p2"):
        fleet.handle(linked(name, "d1", failing=("d2",)), 0.1)
    assert joined(fleet) == {"d1"}
    actions = wait(fleet, "p1", "p2", "d1", "d2", since=0.1, until=LATE + 1.0)
    assert [one.instance for one in actions if isinstance(one, Retire)] == ["d2"]
    assert joined(fleet) == {"p1", "p2", "d1"}


def test_a_decode_that_others_cannot_reach_either_is_not_the_newcomers_fault() -> None:
    fleet = led(sized(2, 2), "p1", "d1", "d2")
    fleet.handle(linked("p1", "d1", failing=("d2",)), 0.1)
    fleet.handle(seen("p2"), 0.2)
    fleet.handle(linked("p2", "d1", failing=("d2",)), 0.3)
    assert joined(fleet) == {"p1", "p2", "d1", "d2"}


def test_the_only_newcomer_of_a_role_that_reaches_some_serves_rather_than_nobody() -> None:
    fleet = led(sized(1, 2), "p1", "d1", "d2")
    fleet.handle(LeaseLost("p1", (1, 1)), 5.0)
    beat(fleet, "d1", "d2", now=5.0)
    fleet.handle(seen("p2"), 5.1)
    fleet.handle(linked("p2", "d1", failing=("d2",)), 5.2)
    assert joined(fleet) == {"d1", "d2"}
    actions = wait(fleet, "p2", "d1", "d2", since=5.2, until=5.2 + LATE)
    assert [one for one in actions if isinstance(one, Retire)] == []
    assert joined(fleet) == {"p2", "d1", "d2"}


def test_while_the_bus_is_down_no_newcomers_time_runs_out() -> None:
    fleet = led(sized(1, 2), "p1", "d1")
    fleet.handle(seen("d2"), 0.1)
    fleet.handle(linked("p1", "d1", failing=("d2",)), 0.2)
    fleet.handle(BusDown(), 1.0)
    assert set(kinds(fleet.handle(Tick(), 2 * LATE))) <= {"PublishMap"}
    fleet.handle(BusUp(), 2 * LATE)
    beat(fleet, "p1", "d1", "d2", now=2 * LATE)
    assert fleet.handle(linked("p1", "d1", "d2"), 2 * LATE + 0.1) != []
    assert joined(fleet) == {"p1", "d1", "d2"}


def test_members_of_one_role_alone_wait_and_whoever_comes_first_both_join_in_the_end() -> None:
    for first, then in (("p1", "d1"), ("d1", "p1")):
        fleet = led(sized(), settled=False)
        fleet.handle(seen(first), 0.1)
        fleet.handle(linked("p1"), 0.1)
        assert wait(fleet, first, since=0.1, until=2 * LATE) == []
        assert joined(fleet) == set()
        fleet.handle(seen(then), 2 * LATE)
        fleet.handle(linked("p1", "d1"), 2 * LATE)
        assert joined(fleet) == {"p1", "d1"}


def test_where_the_plan_wants_nobody_of_the_other_role_there_is_nothing_to_verify() -> None:
    fleet = led(sized(1, 0), settled=False)
    assert fleet.handle(seen("p1"), 0.1) == [
        published("p1", version=2, cause=Cause.READY, plan=GroupPlan("main", 1, 0))
    ]


def test_all_members_lost_at_once_come_back_into_the_open_group() -> None:
    fleet = leading("p1", "d1")
    fleet.handle(seen("p1", state=State.FAILED), 0.1)
    fleet.handle(seen("d1", state=State.FAILED), 0.1)
    for name in ("p1", "d1"):
        fleet.handle(seen(name, epoch=(1, 2)), 1.0)
    assert joined(fleet) == set()
    fleet.handle(linked("p1", "d1", p1=(1, 2), d1=(1, 2)), 1.1)
    assert joined(fleet) == {"p1", "d1"}


def test_a_new_leader_takes_over_who_has_joined() -> None:
    first = led(sized(1, 2), "p1", "d1")
    first.handle(seen("d2"), 0.1)
    found = first.map("chat")
    assert found is not None
    second = Fleet([sized(1, 2)], RULES)
    second.handle(LeaderGained((1, 2), (found,)), 0.2)
    assert joined(second) == {"p1", "d1"}
    beat(second, "p1", "d1", "d2", now=0.3)
    assert joined(second) == {"p1", "d1"}
    second.handle(linked("p1", "d1", "d2"), 0.4)
    assert joined(second) == {"p1", "d1", "d2"}


def test_a_substitute_that_cannot_be_reached_is_followed_by_one_other() -> None:
    fleet = leading("p1", "d1", "s1", "s2")
    beat(fleet, "p1", "s1", "s2", now=1.0)
    assert fleet.handle(LeaseLost("d1", (1, 1)), 1.0)[-1] == assigned("s1", DECODE, Cause.LEASE_LOST)
    fleet.handle(seen("s1", role=Role.DECODE, epoch=(1, 5)), 1.5)
    fleet.handle(linked("p1", failing=("s1",), s1=(1, 5)), 1.6)
    actions: list[object] = []
    now = 1.6
    while now < LATE + 5.0:
        now += 0.5
        actions += beat(fleet, "p1", "s2", now=now)
        actions += beat(fleet, "s1", now=now, role=Role.DECODE, epoch=(1, 5))
    assert [one for one in actions if isinstance(one, Assign)] == [assigned("s2", DECODE, Cause.UNREACHABLE)]
    assert [one.instance for one in actions if isinstance(one, Retire)] == ["s1"]
