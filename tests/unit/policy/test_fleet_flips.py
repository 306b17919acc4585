"""Members that move: from a place with too many to one with too few, home, and under a new leader."""

from msgspec import structs

from shared.messages import GroupPhase, Revision, Role, State
from shared.policy.fleet import Fleet
from shared.policy.fleet.events import (
    Assign,
    AssignAccepted,
    AssignFailed,
    Cause,
    LeaderGained,
    LeaderLost,
    LeaseLost,
    PublishMap,
)
from shared.policy.plan import GroupPlan
from shared.policy.world import BusDown, BusUp, MapSeen, Tick
from tests.unit.policy.builders import seen
from tests.unit.policy.fleets import (
    DECODE,
    MAIN,
    RULES,
    SECOND,
    TWO,
    assigned,
    beat,
    group,
    kinds,
    led,
    link_all,
    linked,
    mapping,
    phases,
    plan,
    planned,
    sent_home,
    sized,
    two_groups,
)


def test_a_surplus_member_fills_a_hole_of_the_plan_in_place_and_keeps_its_name() -> None:
    fleet = led(sized(2, 1), "p1", "p2", "d1", "s1")
    beat(fleet, "p1", free=1, slots=2, now=0.1)
    beat(fleet, "p2", free=2, slots=2, now=0.1)
    one_two = GroupPlan("main", 1, 2)
    actions = plan(fleet, one_two, now=0.2)
    assert actions == [
        PublishMap(mapping(group("p1", "d1", plan=one_two), version=2), Cause.PLANNED),
        assigned("p2", DECODE, Cause.PLANNED),
    ]
    assert fleet.handle(AssignAccepted("p2"), 0.3) == []
    for state in (State.READY, State.DRAINING, State.STOPPED):
        assert beat(fleet, "p2", now=0.4, state=state) == []
    now = 0.5
    while now < 20.0:  # silent while it drains and starts
        now += 0.5
        assert beat(fleet, "p1", "d1", "s1", now=now) == []
    as_decode = {"role": Role.DECODE, "epoch": (1, 5)}
    assert beat(fleet, "p2", now=now, state=State.STARTING, **as_decode) == []
    assert kinds(beat(fleet, "p2", now=now, **as_decode)) == ["PublishMap"]
    assert not fleet.settled("chat")
    assert kinds(fleet.handle(linked("p1", "d1", "p2", p2=(1, 5)), now)) == ["PublishMap", "Substituted"]
    assert fleet.settled("chat")


def test_a_hole_that_a_loss_made_gets_a_standby_though_another_place_has_a_surplus() -> None:
    fleet = led(sized(2, 1), "p1", "p2", "d1", "s1")
    fleet.handle(BusDown(), 0.1)
    fleet.handle(LeaseLost("d1", (1, 1)), 1.0)
    assert kinds(plan(fleet, MAIN, now=1.1)) == ["PublishMap"]
    actions = fleet.handle(BusUp(), 1.2)
    assert actions[1:] == [assigned("s1", DECODE, Cause.LEASE_LOST), sent_home("p1")]


def test_a_surplus_member_takes_the_place_of_a_lost_one_where_there_is_no_standby() -> None:
    fleet = led(sized(2, 1), "p1", "p2", "d1")
    beat(fleet, "p1", "p2", now=1.0)
    fleet.handle(LeaseLost("d1", (1, 1)), 1.0)
    assert plan(fleet, MAIN, now=1.1)[1:] == [assigned("p1", DECODE, Cause.LEASE_LOST)]


def test_a_surplus_leaves_only_when_as_many_as_wanted_have_joined_without_it() -> None:
    fleet = led(sized(1, 2), "p1", "d1", "d2")
    fleet.handle(seen("d1", epoch=(1, 9), number=1), 0.1)  # a new process: it must be verified again
    one_one = plan(fleet, MAIN, now=0.2)
    assert one_one[1:] == [sent_home("d1")]  # it serves nobody yet, so it is the one to go
    fleet = led(sized(1, 3), "p1", "d1", "d2", "d3")
    beat(fleet, "d1", now=0.1, epoch=(1, 9), number=1)
    beat(fleet, "d2", now=0.1, epoch=(1, 9), number=1)
    fleet._parts.spares.unfit("d1", 0.1)
    fleet._parts.spares.unfit("d2", 0.1)
    assert kinds(plan(fleet, MAIN, now=0.2)) == ["PublishMap"]  # d3 alone serves, so it stays
    assert fleet._groups.joined(DECODE) == 1


def test_a_surplus_without_a_hole_becomes_a_standby_again() -> None:
    fleet = led(sized(1, 2), "p1", "d1", "d2")
    assert plan(fleet, MAIN, now=0.1) == [
        PublishMap(mapping(group("p1", "d2"), version=2), Cause.PLANNED),
        sent_home("d1"),
    ]
    fleet.handle(AssignAccepted("d1"), 0.2)
    assert beat(fleet, "d1", now=0.3, state=State.DRAINING) == []
    assert beat(fleet, "d1", now=0.4, state=State.STOPPED) == []
    assert beat(fleet, "d1", now=0.9, role=Role.STANDBY, epoch=(1, 4)) == []
    beat(fleet, "p1", now=1.5)
    lost = fleet.handle(LeaseLost("d2", (1, 1)), 1.5)
    assert lost[-1] == assigned("d1", DECODE, Cause.LEASE_LOST)


def test_a_worker_that_says_no_stays_a_member_and_is_not_asked_again_for_a_while() -> None:
    fleet = led(sized(1, 2), "p1", "d1", "d2")
    assert plan(fleet, MAIN, now=0.1)[-1] == sent_home("d1")
    assert fleet.handle(AssignFailed("d1", "no", certain=True), 0.2) == []
    now = 0.3
    while now < RULES.unfit_s:
        assert [one for one in beat(fleet, "p1", "d1", "d2", now=now) if isinstance(one, Assign)] == []
        now += 0.5
    assert beat(fleet, "p1", "d2", "d1", now=0.3 + RULES.unfit_s) == [sent_home("d1")]


def test_a_new_leader_knows_the_plan_from_the_map() -> None:
    first = two_groups()
    plan(first, MAIN, GroupPlan("two", 2, 1, strategy="tp2", canary=10), now=0.1)
    found = first.map("chat")
    assert found is not None
    second = Fleet([sized(4, 4)], RULES)
    beat(second, "p1", "d1", now=0.2)
    beat(second, "p2", "d2", now=0.2, **TWO)
    second.handle(LeaderGained((1, 2), (found,)), 0.2)
    assert second.plan("chat") == planned(
        MAIN, GroupPlan("two", 2, 1, strategy="tp2", canary=10), revisions=(Revision(0),)
    )
    assert [member.joined for _, member in second.members("chat")] == [True] * 4


def test_a_new_leader_goes_on_with_a_group_that_closes() -> None:
    first = two_groups()
    plan(first, MAIN, now=0.1)
    found = first.map("chat")
    assert found is not None
    second = Fleet([planned(MAIN, SECOND)], RULES)
    beat(second, "p1", "d1", now=0.2)
    beat(second, "d2", now=0.2, **TWO)
    beat(second, "p2", now=0.2, state=State.DRAINING, **TWO)
    second.handle(LeaderGained((1, 2), (found,)), 0.2)
    assert phases(second) == {"main": GroupPhase.OPEN, "two": GroupPhase.CLOSING}
    actions = []
    now = 0.2
    while now < RULES.settle_s + 1.0:
        now += 0.5
        actions += beat(second, "p1", "d1", now=now) + beat(second, "d2", now=now, **TWO)
    assert [one for one in actions if isinstance(one, Assign)] == [sent_home("d2")]


def test_a_flip_goes_on_under_a_new_leader_without_a_second_one() -> None:
    first = led(sized(2, 1), "p1", "p2", "d1", "s1")
    plan(first, GroupPlan("main", 1, 2), now=0.1)
    found = first.map("chat")
    assert found is not None
    [gone] = {"p1", "p2"} - {member.instance for _, member in first.members("chat")}
    [stays] = {"p1", "p2"} - {gone}
    second = Fleet([sized(2, 1)], RULES)
    beat(second, stays, gone, "d1", "s1", now=0.2)
    link_all(second, stays, "d1", now=0.2)
    actions = second.handle(LeaderGained((1, 2), (found,)), 0.2)
    now = 0.2
    while now < 15.0:  # it drains for longer than a new leader waits for those who are on their way
        now += 0.5
        actions += beat(second, stays, "d1", "s1", now=now) + beat(second, gone, now=now, state=State.DRAINING)
    actions += beat(second, gone, now=now, state=State.STOPPED)
    actions += beat(second, gone, now=now + 1.0, epoch=(1, 8), role=Role.DECODE, state=State.STARTING)
    actions += beat(second, gone, now=now + 1.5, epoch=(1, 8), role=Role.DECODE)
    assert "Assign" not in kinds(actions)
    assert {member.instance for place, member in second.members("chat") if place == DECODE} == {"d1", gone}


def test_a_flip_that_its_supervisor_undoes_is_tried_again() -> None:
    fleet = led(sized(2, 1), "p1", "p2", "d1")
    plan(fleet, GroupPlan("main", 1, 2), now=0.1)
    fleet.handle(AssignAccepted("p1"), 0.2)
    beat(fleet, "p1", now=0.3, state=State.DRAINING)
    assert beat(fleet, "p1", now=0.8, epoch=(1, 6), state=State.STARTING, number=1) == []
    assert beat(fleet, "p1", now=0.9, epoch=(1, 6), number=2) == [assigned("p1", DECODE, Cause.MISSING)]


def test_a_worker_whose_flip_takes_too_long_is_given_up_and_another_is_sent() -> None:
    fleet = led(sized(2, 1), "p1", "p2", "d1")
    plan(fleet, GroupPlan("main", 1, 2), now=0.0)
    fleet.handle(AssignAccepted("p1"), 0.0)
    beat(fleet, "p1", now=0.1, state=State.DRAINING)
    late = RULES.drain_s + RULES.begin_s
    now = 0.5
    while now < late:
        assert beat(fleet, "p2", "d1", now=now) == []
        now += 0.5
    beat(fleet, "s1", now=late - 0.1)
    assert "Retire" in kinds(fleet.handle(Tick(), late))
    assert fleet.handle(Tick(), late + RULES.retry_s) == [assigned("s1", DECODE, Cause.MISSING)]


def test_a_worker_that_stops_instead_of_becoming_another_role_is_given_up_however_often_it_says_so() -> None:
    fleet = led(sized(2, 1), "p1", "p2", "d1")
    plan(fleet, GroupPlan("main", 1, 2), now=0.2)
    moved = next(iter({"p1", "p2"} - {one for one, _ in fleet._groups.members()}))
    now = 0.5
    while now < 2 * RULES.begin_s:
        now += 5.0
        beat(fleet, *({"p1", "p2", "d1"} - {moved}), now=now)
        beat(fleet, moved, now=now, state=State.STOPPED)
    assert [one.place for one in fleet._substitutes._sent.values()] == []
    assert beat(fleet, "s1", now=now) == [assigned("s1", DECODE, Cause.MISSING)]


def test_an_order_of_an_earlier_lead_that_was_not_heard_hides_no_hole_in_a_later_one() -> None:
    fleet = led(sized(2, 1), "p1", "p2", "d1")
    before = fleet.map("chat")
    assert before is not None
    one_two = GroupPlan("main", 1, 2)
    moved = next(one.instance for one in plan(fleet, one_two, now=0.2) if isinstance(one, Assign))
    fleet.handle(LeaderLost(), 0.3)
    theirs = structs.replace(before, epoch=(1, 9), version=before.version + 5)  # another leader has it as it was
    fleet.handle(MapSeen(theirs), 0.4)
    beat(fleet, "p1", "p2", "d1", now=0.5)
    fleet.handle(LeaderGained((1, 10), maps=(theirs,)), 0.6)
    beat(fleet, "p1", "p2", "d1", now=0.7)
    assert moved in [one.instance for one in plan(fleet, one_two, now=0.8) if isinstance(one, Assign)]
    fleet.handle(AssignFailed(moved, "no", certain=True), 0.9)
    fleet.handle(LeaseLost(moved, (1, 1)), 5.0)
    now = 5.0
    while now < 5.0 + RULES.settle_s + RULES.retry_max_s:
        now += 0.5
        beat(fleet, *({"p1", "p2", "d1"} - {moved}), now=now)
    assert beat(fleet, "s1", now=now) == [assigned("s1", DECODE, Cause.MISSING)]
