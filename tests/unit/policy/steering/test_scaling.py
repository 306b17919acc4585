"""How many groups: by the clock and by orders at once, by load when it lasts, and never to and fro."""

import math
import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from shared.messages import ScaleOrder, Traffic
from shared.policy.plan import Plan
from shared.policy.steering import GroupFigures, ScaleRules, ScenarioFigures, SteeringRules
from shared.policy.steering.scaling import Scaling, affordable, resized
from tests.unit.policy.steering.fleet import UNIX, Fleet, plan_of, shape

LOADED = ScaleRules(least=1, most=4, target=0.7, slack=0.2, up_s=10.0, down_s=60.0)


def steer(scaling: Scaling, plan: Plan, load: float, now: float, **totals: float) -> int:
    """Ask, with so many groups' worth of load spread evenly."""
    count = len(plan.groups)
    seen = {
        group.name: GroupFigures(group.name, 2, 2, c_p=1.0, c_d=1.0, use_p=load / count, use_d=0.1, rate=load / count)
        for group in plan.groups
    }
    return scaling.sought(plan, seen, replace(ScenarioFigures(), **totals), now, UNIX + now).groups


def test_load_must_last_before_groups_come_or_leave() -> None:
    scaling, plan = Scaling(SteeringRules("chat", scale=LOADED)), plan_of(("main", 2, 2), ("main-2", 2, 2))
    assert [steer(scaling, plan, 1.9, now) for now in (0.0, 9.0, 10.0)] == [2, 2, 3]
    assert [steer(scaling, plan, 1.2, now) for now in (11.0, 100.0)] == [2, 2]  # between target and slack
    assert [steer(scaling, plan, 0.4, now) for now in (101.0, 160.0, 161.0)] == [2, 2, 1]


def test_the_mildest_wish_of_the_hold_is_granted_and_a_pause_begins_anew() -> None:
    scaling, plan = Scaling(SteeringRules("chat", scale=LOADED)), plan_of(("main", 2, 2))
    assert [steer(scaling, plan, load, now) for load, now in ((2.7, 0.0), (1.2, 5.0), (2.7, 10.0))] == [1, 1, 2]
    scaling.changed()
    assert [steer(scaling, plan, load, now) for load, now in ((2.7, 20.0), (0.6, 25.0), (2.7, 31.0))] == [1, 1, 1]


def test_the_load_never_takes_more_than_most_nor_leaves_fewer_than_least() -> None:
    rules = SteeringRules("chat", scale=replace(LOADED, least=2, most=3, up_s=0.0, down_s=0.0))
    plan = plan_of(("main", 2, 2), ("main-2", 2, 2))
    assert steer(Scaling(rules), plan, 50.0, 0.0) == 3
    assert steer(Scaling(rules), plan, 0.0, 0.0) == 2


def test_requests_that_find_no_slot_count_as_load() -> None:
    scaling = Scaling(SteeringRules("chat", scale=replace(LOADED, up_s=0.0)))
    assert steer(scaling, plan_of(("main", 2, 2)), 1.0, 0.0, arriving=2.5, waiting=30) == 4


def test_what_is_not_measured_changes_nothing() -> None:
    scaling = Scaling(SteeringRules("chat", scale=replace(LOADED, down_s=0.0)))
    assert scaling.sought(plan_of(("main", 1, 1), ("main-2", 1, 1)), {}, ScenarioFigures(), 0.0, UNIX).groups == 2


def test_a_scenario_without_groups_gets_one_when_a_request_comes() -> None:
    rules = SteeringRules("chat", 2, 3, scale=replace(LOADED, least=0))
    fleet = Fleet(plan_of(), rules, spare=5, per_tick=0)
    fleet.tick(5)
    assert fleet.shapes() == [""]
    fleet.steering.see(Traffic("gw", (1, 1), "chat", 1, arrived=1, waiting=1), fleet.now)
    fleet.tick()
    assert fleet.shapes() == ["", "main 2:3"]


def test_new_groups_are_as_the_largest_take_the_lowest_number_and_the_last_leaves_first() -> None:
    rules = SteeringRules("chat", 1, 1, named=frozenset({"big", "main-3"}))
    plan = plan_of(("main", 2, 4), ("big", 9, 9), ("main-4", 1, 1))
    assert shape(resized(plan, 4, rules)) == "main 2:4, big 9:9, main-4 1:1, main-2 2:4, main-5 2:4"
    assert shape(resized(plan, 1, rules)) == "main 2:4, big 9:9"
    upgraded = replace(plan_of(("main-r2", 2, 4)), target=2)
    (_, second) = resized(upgraded, 2, rules).groups
    assert (second.name, second.revision) == ("main-2-r2", 2)


def test_groups_come_only_as_far_as_instances_do() -> None:
    rules, plan = SteeringRules("chat"), plan_of(("main", 1, 2))
    assert [affordable(plan, 4, rules, spare) for spare in (0, 2, 3, 8, 100)] == [1, 1, 2, 3, 4]
    assert affordable(plan, 0, rules, 0) == 0


def test_the_tide_comes_and_goes_by_the_clock_and_an_order_holds_until_its_next_line() -> None:
    rules = SteeringRules("chat", scale=ScaleRules(timetable=("0 8 * * * = 3", "0 20 * * * = 1")))
    fleet = Fleet(plan_of(("main", 1, 1)), rules, spare=10)
    morning = datetime(2027, 1, 16, 7, 59, tzinfo=UTC).timestamp() - UNIX
    fleet.now = morning
    fleet.tick()
    assert shape(fleet.plan) == "main 1:1"
    fleet.tick(60)
    assert shape(fleet.plan) == "main 1:1, main-2 1:1, main-3 1:1"
    assert fleet.order(ScaleOrder("chat", groups=2)).ok
    fleet.tick(70)
    assert shape(fleet.plan) == "main 1:1, main-2 1:1"
    fleet.now = morning + 12 * 3600 + 60
    fleet.tick(2)
    assert shape(fleet.plan) == "main 1:1"
    assert fleet.reasons[-1].text == 'from 2 to 1 groups: the time table says "0 20 * * * = 1"'


def test_what_cannot_be_filled_is_told_once_and_done_when_it_can() -> None:
    rules = SteeringRules("chat", scale=ScaleRules(least=3))
    fleet = Fleet(plan_of(("main", 1, 1)), rules, spare=3)
    fleet.tick(20)
    assert shape(fleet.plan) == "main 1:1, main-2 1:1"
    assert sum("instances to spare are enough for 2" in reason.text for reason in fleet.reasons) == 1
    fleet.spare = 2
    fleet.tick(2)
    assert shape(fleet.plan) == "main 1:1, main-2 1:1, main-3 1:1"


@pytest.mark.parametrize(
    ("order", "ok", "word", "after"),
    [
        (ScaleOrder("chat", prefill=3), True, "main from 2:2 to 3:2; big from 1:1 to 3:1", "main 3:2, big 3:1"),
        (ScaleOrder("chat", decode=4, group="big"), True, "3 more instances are needed", "main 2:2, big 1:4"),
        (ScaleOrder("chat", prefill=3, dry_run=True), True, "would do: main from", "main 2:2, big 1:1"),
        (ScaleOrder("chat", prefill=2, group="main"), True, "it is so already", "main 2:2, big 1:1"),
        (ScaleOrder("chat", prefill=2, group="x"), False, 'no group "x"; there are: main, big', "main 2:2, big 1:1"),
        (ScaleOrder("chat"), False, "nothing to scale", "main 2:2, big 1:1"),
        (ScaleOrder("chat", groups=2, group="big"), False, "not both", "main 2:2, big 1:1"),
        (ScaleOrder("chat", groups=2), True, "main-2 comes with 2:2; 4 more", "main 2:2, big 1:1"),
    ],
)
def test_orders_are_carried_out_or_refused_with_a_reason(order: ScaleOrder, ok: bool, word: str, after: str) -> None:  # noqa: FBT001
    fleet = Fleet(plan_of(("main", 2, 2), ("big", 1, 1)), SteeringRules("chat", named=frozenset({"big"})))
    answer = fleet.order(order)
    assert answer.ok is ok
    assert word in answer.text
    assert shape(fleet.plan) == after
    fleet.tick(5)
    assert shape(fleet.plan) == after


def test_nothing_is_scaled_while_an_upgrade_runs() -> None:
    fleet = Fleet(plan_of(("main", 2, 2)), spare=9)
    fleet.upgrade()
    answer = fleet.order(ScaleOrder("chat", groups=2))
    assert (answer.ok, answer.text) == (False, "an upgrade runs; scale after its end, or order it to go back")


def test_over_a_noisy_day_groups_follow_the_load_and_do_not_flap() -> None:
    rules = SteeringRules("chat", 2, 2, scale=replace(LOADED, most=8, up_s=15.0, down_s=300.0))
    scaling, plan, source = Scaling(rules), plan_of(("main", 2, 2)), random.Random(3)  # noqa: S311
    counts = []
    for now in range(0, 86_400, 10):
        load = (2.0 - 1.7 * math.cos(2 * math.pi * now / 86_400)) * source.gauss(1.0, 0.05)
        groups = steer(scaling, plan, load, float(now))
        if groups != len(plan.groups):
            plan = resized(plan, groups, rules)
            scaling.changed()
            counts.append(groups)
    assert counts == [2, 3, 4, 5, 6, 5, 4, 3, 2, 1]
