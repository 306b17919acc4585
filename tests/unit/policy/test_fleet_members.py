"""Who is in the map: instances join when they are ready, leave when they drain, and may come back."""

from shared.messages import GroupPhase, Role, State
from shared.policy.fleet import Fleet
from shared.policy.fleet.events import (
    Cause,
    DrainAsked,
    LeaderGained,
    LeaseLost,
    PublishMap,
    SendDrain,
)
from shared.policy.plan import GroupPlan
from shared.policy.world import Tick
from tests.unit.policy.builders import seen
from tests.unit.policy.fleets import (
    DECODE,
    LEAD,
    RULES,
    assigned,
    beat,
    group,
    leading,
    linked,
    mapping,
    published,
    sent_home,
    sized,
)


def test_ready_instances_join_their_group_one_version_each() -> None:
    fleet = Fleet([sized(1, 1)], RULES)
    empty, first, both = (
        group(waiting=names, phase=phase)
        for names, phase in (
            ((), GroupPhase.COLLECT),
            (("p1",), GroupPhase.COLLECT),
            (("p1", "d1"), GroupPhase.CONNECT),
        )
    )
    assert fleet.handle(LeaderGained(LEAD), 0.0) == [PublishMap(mapping(empty, version=1), Cause.LED)]
    assert fleet.handle(seen("p1"), 0.1) == [PublishMap(mapping(first, version=2), Cause.READY)]
    assert fleet.handle(seen("d1"), 0.2) == [PublishMap(mapping(both, version=3), Cause.READY)]
    assert fleet.handle(linked("p1"), 0.3) == []
    assert fleet.handle(linked("p1", "d1"), 0.4) == [published("p1", "d1", version=4, cause=Cause.JOINED)]
    assert beat(fleet, "p1", "d1", now=0.5) == []
    assert fleet.handle(linked("p1", "d1"), 0.5) == []


def test_one_that_still_starts_is_not_in_the_map() -> None:
    fleet = leading("p1", "d1", decode=2)
    two = GroupPlan("main", 1, 2)
    loading = mapping(group("p1", "d1", plan=two, phase=GroupPhase.LOAD), version=2)
    assert fleet.handle(seen("d2", state=State.STARTING), 0.1) == [PublishMap(loading, Cause.PHASE)]
    assert fleet.handle(linked("p1", "d1", "d2"), 0.1) == []
    assert fleet.handle(seen("d2"), 0.2) == [published("p1", "d1", "d2", version=3, cause=Cause.READY, plan=two)]


def test_one_that_names_no_group_joins_the_default_one_and_others_form_their_own() -> None:
    fleet = leading("p1")
    [action] = fleet.handle(seen("d1", group=""), 0.1)
    waiting = group(waiting=("p1", "d1"), phase=GroupPhase.CONNECT)
    assert action == PublishMap(mapping(waiting, version=2), Cause.READY)
    [action] = fleet.handle(seen("d3", group="other"), 0.2)
    assert isinstance(action, PublishMap)
    assert [one.name for one in action.map.groups] == ["main", "other"]


def test_a_worker_beyond_the_plan_is_not_in_the_map_but_becomes_a_standby() -> None:
    fleet = leading("p1", "d1")
    assert fleet.handle(seen("d2"), 0.2) == [sent_home("d2")]
    assert fleet.handle(seen("d2"), 0.3) == []
    assert fleet.handle(seen("d2", state=State.DRAINING), 0.4) == []
    assert fleet.handle(seen("d2", state=State.STOPPED), 0.5) == []
    assert beat(fleet, "p1", "d1", now=1.0) == []
    assert fleet.handle(seen("d2", role=Role.STANDBY, epoch=(1, 3)), 1.5) == []
    beat(fleet, "p1", now=2.0)
    assert fleet.handle(LeaseLost("d1", (1, 1)), 2.0)[-1] == assigned("d2", DECODE, Cause.LEASE_LOST)


def test_a_new_epoch_of_a_member_is_a_new_version() -> None:
    fleet = leading("p1", "d1")
    assert fleet.handle(seen("d1", epoch=(2, 1)), 0.1) == [
        published("p1", "d1", version=2, cause=Cause.NEW_EPOCH, d1=(2, 1))
    ]


def test_a_status_of_an_older_epoch_or_number_is_refused() -> None:
    fleet = leading("p1", "d1")
    fleet.handle(seen("d1", epoch=(1, 5), number=3), 0.1)
    assert fleet.handle(seen("d1", epoch=(1, 4), number=9, state=State.FAILED), 0.2) == []
    assert fleet.handle(seen("d1", epoch=(1, 5), number=2, state=State.FAILED), 0.2) == []
    assert fleet.map("chat") == mapping(group("p1", waiting=("d1",), d1=(1, 5)), version=2)


def test_a_member_that_drains_by_itself_leaves_the_map_and_is_replaced() -> None:
    fleet = leading("p1", "d1", "s1")
    assert fleet.handle(seen("d1", state=State.DRAINING), 0.1) == [
        published("p1", version=2, cause=Cause.DRAINING),
        assigned("s1", DECODE, Cause.DRAINING),
    ]
    assert fleet.handle(seen("d1", state=State.STOPPED), 0.2) == []


def test_a_drain_that_was_asked_for_removes_first_and_does_not_let_it_back() -> None:
    fleet = leading("p1", "d1", "s1")
    assert fleet.handle(DrainAsked("d1"), 0.1) == [
        published("p1", version=2, cause=Cause.DRAINING),
        SendDrain("d1", Cause.DRAINING),
        assigned("s1", DECODE, Cause.DRAINING),
    ]
    assert fleet.handle(seen("d1"), 0.2) == []
    assert fleet.handle(seen("d1", state=State.DRAINING), 0.3) == []
    assert fleet.handle(DrainAsked("unknown"), 0.4) == []


def test_a_member_that_was_only_silent_for_a_while_may_come_back() -> None:
    fleet = leading("p1", "d1")
    beat(fleet, "p1", now=1.0)
    assert fleet.handle(Tick(), 2.0)[0] == published("p1", version=2, cause=Cause.SILENT)
    assert fleet.handle(seen("d1"), 2.1) == [published("p1", "d1", version=3, cause=Cause.READY)]
