"""Groups by plan: set up in phases, opened when all is verified, changed in size, closed without a loss."""

from shared.messages import GroupPhase, Revision, Role, State
from shared.policy.fleet import Fleet
from shared.policy.fleet.events import (
    Assign,
    Cause,
    LeaderGained,
    LeaseLost,
    Planned,
    PublishMap,
)
from shared.policy.plan import GroupPlan
from tests.unit.policy.builders import scenario_map, seen
from tests.unit.policy.fleets import (
    DECODE,
    MAIN,
    PREFILL,
    RULES,
    SECOND,
    TWO,
    assigned,
    beat,
    group,
    kinds,
    leading,
    led,
    linked,
    mapping,
    phases,
    plan,
    planned,
    second_place,
    sent_home,
    sized,
    two_groups,
)


def test_a_new_group_goes_through_all_phases_before_it_opens() -> None:
    fleet = leading("p1", "d1", "s1")
    actions = plan(fleet, MAIN, SECOND, now=0.1)
    assert kinds(actions) == ["PublishMap", "Assign"]
    assert actions[1] == assigned("s1", second_place(Role.PREFILL), Cause.PLANNED)
    assert phases(fleet) == {"main": GroupPhase.OPEN, "two": GroupPhase.COLLECT}
    assert kinds(fleet.handle(seen("s2"), 0.2)) == ["PublishMap", "Assign"]
    assert phases(fleet)["two"] is GroupPhase.LOAD
    for name, role in (("s1", Role.PREFILL), ("s2", Role.DECODE)):
        fleet.handle(seen(name, role=role, epoch=(1, 2), state=State.STARTING, **TWO), 0.3)
        assert phases(fleet)["two"] is GroupPhase.LOAD
    for name, role in (("s1", Role.PREFILL), ("s2", Role.DECODE)):
        fleet.handle(seen(name, role=role, epoch=(1, 2), **TWO), 0.4)
    assert phases(fleet)["two"] is GroupPhase.CONNECT
    assert not fleet.settled("chat")
    fleet.handle(linked("s1", "s2", s1=(1, 2), s2=(1, 2)), 0.5)
    assert phases(fleet)["two"] is GroupPhase.OPEN
    assert fleet.settled("chat")


def test_a_group_opens_incomplete_when_it_has_formed_for_long_enough_and_stays_open() -> None:
    fleet = led(sized(2, 1), "p1", "d1", settled=False)
    assert phases(fleet) == {"main": GroupPhase.COLLECT}
    now = 0.0
    while now < RULES.form_s - 0.5:
        now += 0.5
        beat(fleet, "p1", "d1", now=now)
        assert phases(fleet)["main"] is GroupPhase.COLLECT
    beat(fleet, "p1", "d1", now=RULES.form_s)
    assert phases(fleet)["main"] is GroupPhase.OPEN
    fleet.handle(LeaseLost("d1", (1, 1)), RULES.form_s + 1.0)
    assert phases(fleet)["main"] is GroupPhase.OPEN


def test_an_incomplete_group_without_a_verified_pair_does_not_open() -> None:
    fleet = led(sized(2, 1), "p1", "p2")
    now = 0.0
    while now < RULES.form_s + 5.0:
        now += 0.5
        beat(fleet, "p1", "p2", now=now)
    assert phases(fleet)["main"] is GroupPhase.COLLECT


def test_a_group_that_left_the_plan_closes_prefills_first_and_vanishes_when_it_is_empty() -> None:
    fleet = two_groups()
    actions = plan(fleet, MAIN, now=0.1)
    closing = group("d2", plan=GroupPlan("two", 0, 0), phase=GroupPhase.CLOSING)
    assert actions == [
        PublishMap(mapping(group("p1", "d1"), closing, version=2), Cause.PLANNED),
        sent_home("p2"),
    ]
    assert beat(fleet, "d2", now=0.2, **TWO) == []  # p2 may need it yet
    assert beat(fleet, "p2", now=0.3, state=State.DRAINING, **TWO) == []
    assert beat(fleet, "p2", now=0.4, state=State.STOPPED, **TWO) == [
        PublishMap(mapping(group("p1", "d1"), version=3), Cause.SURPLUS),
        sent_home("d2"),
    ]
    assert phases(fleet) == {"main": GroupPhase.OPEN}


def test_members_of_a_closing_group_fill_the_holes_of_a_growing_one() -> None:
    fleet = two_groups()
    bigger = GroupPlan("main", 2, 2)
    actions = plan(fleet, bigger, now=0.1)
    assert actions[1:] == [assigned("p2", PREFILL, Cause.PLANNED)]
    more = beat(fleet, "p2", now=0.2, state=State.STOPPED, **TWO)
    assert more[1:] == [assigned("d2", DECODE, Cause.PLANNED)]


def test_a_worker_that_is_started_again_for_a_closed_group_opens_it_not_again() -> None:
    fleet = two_groups()
    plan(fleet, MAIN, now=0.1)
    beat(fleet, "p2", now=0.2, state=State.STOPPED, **TWO)
    assert beat(fleet, "p2", now=0.3, epoch=(1, 7), state=State.STARTING, **TWO) == []
    assert beat(fleet, "p2", now=0.4, epoch=(1, 7), **TWO) == [sent_home("p2")]
    assert phases(fleet) == {"main": GroupPhase.OPEN}


def test_a_worker_of_another_revision_gets_no_place_but_an_order_to_run_the_right_one() -> None:
    fleet = leading("p1", "d1")
    new = GroupPlan("new", 1, 0, revision=2)
    fleet.handle(Planned(planned(MAIN, new, revisions=(Revision(2, "model-2"),), target=2), "upgrade"), 0.1)
    actions = fleet.handle(seen("p9", group="new"), 0.2)  # runs revision 0
    assert actions[-1] == Assign("p9", Role.PREFILL, "chat", "new", Cause.PLANNED, Revision(2, "model-2"))
    known = fleet.map("chat")
    assert known is not None
    assert (known.target, known.revisions) == (2, [Revision(2, "model-2")])
    assert [one.revision for one in known.groups] == [0, 2]


def test_a_change_of_revision_of_a_group_with_members_is_ignored() -> None:
    fleet = leading("p1", "d1")
    assert plan(fleet, GroupPlan("main", 1, 1, revision=3), now=0.1) == []
    assert fleet.plan("chat") == sized()


def test_the_same_plan_again_changes_nothing() -> None:
    fleet = leading("p1", "d1")
    assert plan(fleet, MAIN, now=0.1) == []


def test_a_follower_takes_no_plan() -> None:
    fleet = Fleet([sized()], RULES)
    assert plan(fleet, MAIN, SECOND, now=0.1) == []
    assert fleet.plan("chat") == sized()


def test_a_map_of_an_older_version_holds_no_plan_so_the_configured_one_is_in_force() -> None:
    fleet = Fleet([sized(1, 1)], RULES)
    fleet.handle(LeaderGained((1, 2), (scenario_map("p1", "d1", version=4),)), 0.0)
    assert fleet.plan("chat") == sized(1, 1)
    assert phases(fleet) == {"main": GroupPhase.OPEN}
