"""Only a leader acts: how it follows a later one, and what a new one makes of the maps it finds."""

from shared.messages import InstanceRecord, Role, State
from shared.policy.fleet import Fleet
from shared.policy.fleet.events import (
    Action,
    Cause,
    DrainAsked,
    LeaderGained,
    LeaderLost,
    LeaseLost,
    PublishMap,
    Retire,
)
from shared.policy.plan import GroupPlan
from shared.policy.world import MapSeen, Tick
from tests.unit.policy.builders import scenario_map, seen
from tests.unit.policy.fleets import BEAT, DECODE, RULES, assigned, beat, leading, published, sent_home, sized


def test_a_follower_observes_and_does_nothing() -> None:
    fleet = Fleet([sized(1, 1)], RULES)
    assert beat(fleet, "p1", "d1", "s1", now=0.0) == []
    assert fleet.handle(LeaseLost("d1", (1, 1)), 5.0) == []
    assert fleet.handle(DrainAsked("p1"), 5.0) == []


def test_a_leader_that_lost_its_lead_does_nothing_any_more() -> None:
    fleet = leading("p1", "d1", "s1")
    assert fleet.handle(LeaderLost(), 0.1) == []
    assert fleet.handle(LeaseLost("d1", (1, 1)), 5.0) == []
    assert fleet.handle(Tick(), 50.0) == []


def test_a_leader_that_sees_the_map_of_a_later_one_follows_it() -> None:
    fleet = leading("p1", "d1", "s1")
    later = scenario_map("p1", version=9, leader=(1, 2))
    assert fleet.handle(MapSeen(later), 0.1) == []
    assert fleet.map("chat") == later
    assert not fleet.leading


def test_a_new_leader_outranks_the_old_maps_and_sends_no_second_substitute() -> None:
    fleet = Fleet([sized(1, 1)], RULES)
    beat(fleet, "p1", "s2", now=0.0)
    old = scenario_map("p1", version=4, leader=(1, 1))  # d1 was lost, and s1 sent, under the old leader
    assert fleet.handle(LeaderGained((1, 2), (old,)), 0.0) == [
        published("p1", version=5, cause=Cause.LED, leader=(1, 2))
    ]
    assert fleet.handle(seen("s1", role=Role.DECODE, epoch=(1, 7), state=State.STARTING), 3.0) == []
    assert beat(fleet, "p1", "s2", now=4.0) == []
    assert fleet.handle(Tick(), RULES.settle_s) == []
    assert [type(action) for action in fleet.handle(seen("s1", role=Role.DECODE, epoch=(1, 7)), 9.0)] == [PublishMap]


def test_a_new_leader_learns_from_the_records_who_is_on_the_way() -> None:
    fleet = Fleet([sized(1, 1)], RULES)
    beat(fleet, "p1", "s2", now=0.0)
    record = InstanceRecord("s1", Role.DECODE, State.STARTING, (1, 7), "chat", "main")
    fleet.handle(LeaderGained((1, 2), (scenario_map("p1", version=4),), (record,)), 0.0)
    for step in range(1, 20):
        assert beat(fleet, "p1", "s2", now=step * BEAT) == []


def test_a_new_leader_fills_old_holes_when_those_on_the_way_had_time_to_show() -> None:
    fleet = Fleet([sized(1, 1)], RULES)
    beat(fleet, "p1", "s2", now=0.0)
    fleet.handle(LeaderGained((1, 2), (scenario_map("p1", version=4),)), 0.0)
    assert beat(fleet, "p1", "s2", now=RULES.settle_s - 0.1) == []
    assert fleet.handle(Tick(), RULES.settle_s) == [assigned("s2", DECODE, Cause.MISSING)]


def test_a_new_leader_that_misses_nobody_need_not_wait_for_anybody() -> None:
    fleet = Fleet([sized(1, 1)], RULES)
    beat(fleet, "p1", "d1", "d2", now=0.0)
    actions = fleet.handle(LeaderGained((1, 2), (scenario_map("p1", "d1", version=4),)), 0.0)
    assert actions[1:] == [sent_home("d2")]
    assert fleet._holes.settled


def test_a_new_leader_fills_at_once_what_is_lost_under_its_own_lead() -> None:
    fleet = Fleet([sized(2, 1)], RULES)
    beat(fleet, "p1", "s1", "s2", now=0.0)
    fleet.handle(LeaderGained((1, 2), (scenario_map("p1", "d1", version=4),)), 0.0)
    actions: list[Action] = []
    for now in (0.5, 1.0, 1.5, 2.0):
        actions += beat(fleet, "p1", "s1", "s2", now=now)
    assert actions == [
        published("p1", version=6, cause=Cause.SILENT, leader=(1, 2), plan=GroupPlan("main", 2, 1)),
        Retire("d1", (1, 1), Cause.SILENT),
        assigned("s1", DECODE, Cause.SILENT),
    ]


def test_a_leader_whose_maps_redis_forgot_goes_on_with_its_own() -> None:
    fleet = leading("p1", "d1")
    fleet.handle(LeaderLost(), 0.1)
    assert fleet.handle(LeaderGained((2, 1)), 0.2) == [published("p1", "d1", version=2, cause=Cause.LED, leader=(2, 1))]
