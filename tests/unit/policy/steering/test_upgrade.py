"""Upgrades: a canary, then group after group at an unchanged ratio; back when that does worse or does not come up."""

import pytest

from shared.messages import Revision, UpgradeOrder
from shared.policy.plan import Plan
from shared.policy.steering import SteeringRules, UpgradeRules
from tests.unit.policy.steering.fleet import Fleet, plan_of, shape


def quick(**changes: float) -> SteeringRules:
    return SteeringRules("chat", upgrade=UpgradeRules(settle_s=20.0, **changes))


def test_a_group_goes_over_pair_by_pair_behind_a_canary() -> None:
    fleet = Fleet(plan_of(("main", 3, 3)))
    answer = fleet.upgrade(trial_s=10.0)
    assert (answer.ok, answer.text) == (
        True,
        "revision 1 (new) begins with main-r1, with 10 % of the requests once it is open",
    )
    fleet.tick(60)
    assert fleet.shapes() == [
        "main 3:3",
        "main 2:2, main-r1 1:1 10%",
        "main 2:2, main-r1 1:1",
        "main 1:1, main-r1 2:2",
        "main-r1 3:3",
    ]
    assert fleet.plan.target == 1
    assert fleet.plan.revisions == (Revision(0), Revision(1, "new"))
    assert all(group.revision == 1 for group in fleet.plan.groups)
    assert fleet.reasons[-1].text == "all groups have revision 1"
    assert fleet.steering.upgrading == ""


def test_spare_instances_serve_beside_the_groups_until_the_end() -> None:
    fleet = Fleet(plan_of(("main", 1, 1)), spare=2)
    fleet.upgrade(trial_s=5.0)
    fleet.tick(40)
    assert fleet.shapes() == [
        "main 1:1",
        "main 1:1, main-canary-r1 1:1 10%",
        "main 1:1, main-canary-r1 1:1",
        "main-r1 1:1, main-canary-r1 1:1",
        "main-r1 1:1",
    ]
    assert fleet.spare == 2


def test_one_pair_alone_is_not_upgraded_with_a_loss() -> None:
    fleet = Fleet(plan_of(("main", 1, 1)), spare=1)
    answer = fleet.upgrade()
    assert not answer.ok
    assert "needs two more instances, and 1 can be had" in answer.text
    assert fleet.shapes() == ["main 1:1"]


def test_groups_of_one_pair_go_over_one_after_another() -> None:
    fleet = Fleet(plan_of(("main", 1, 1), ("main-2", 1, 1), ("main-3", 1, 1)))
    fleet.upgrade(trial_s=3.0)
    fleet.tick(40)
    assert fleet.shapes() == [
        "main 1:1, main-2 1:1, main-3 1:1",
        "main 1:1, main-2 1:1, main-3-r1 1:1 10%",
        "main 1:1, main-2 1:1, main-3-r1 1:1",
        "main-r1 1:1, main-2 1:1, main-3-r1 1:1",
        "main-r1 1:1, main-2-r1 1:1, main-3-r1 1:1",
    ]


def test_a_canary_whose_requests_fail_sends_it_back() -> None:
    fleet = Fleet(plan_of(("main", 3, 6)), failing={1: 0.3})
    fleet.upgrade(trial_s=600.0)
    fleet.tick(60)
    assert fleet.shapes() == ["main 3:6", "main 2:5, main-r1 1:1 10%", "main 3:6"]
    assert fleet.plan.target == 0
    told = [reason.text for reason in fleet.reasons]
    assert any("goes back from revision 1 to 0: main-r1 does worse" in text for text in told), told
    assert told[-1] == "all groups have revision 0"


def test_a_canary_that_fails_as_much_as_the_others_is_good() -> None:
    fleet = Fleet(plan_of(("main", 2, 2)), failing={0: 0.3, 1: 0.3})
    fleet.upgrade(trial_s=60.0)
    fleet.tick(100)
    assert shape(fleet.plan) == "main-r1 2:2"


def test_without_traffic_it_goes_on_and_says_so() -> None:
    fleet = Fleet(plan_of(("main", 2, 2)), per_tick=0)
    fleet.upgrade(trial_s=5.0)
    fleet.tick(30)
    assert shape(fleet.plan) == "main-r1 2:2"
    assert any("says nothing, the upgrade goes on" in reason.text for reason in fleet.reasons)


def test_a_step_that_does_not_come_up_sends_it_back() -> None:
    fleet = Fleet(plan_of(("main", 3, 3), ("main-2", 2, 2)), rules=quick(), settles_in=-1)
    fleet.upgrade(trial_s=5.0)
    fleet._unsettled = -1
    fleet.tick(25)
    assert shape(fleet.plan) == "main 3:3, main-2 2:2"
    assert "did not come up within 20 s" in fleet.reasons[-1].text
    fleet.tick(60)
    assert shape(fleet.plan) == "main 3:3, main-2 2:2"  # and it does not start over


def test_it_goes_back_from_the_middle_when_ordered_and_forward_again_under_a_new_number() -> None:
    fleet = Fleet(plan_of(("main", 4, 4)))
    fleet.upgrade(trial_s=2.0)
    while shape(fleet.plan) != "main 2:2, main-r1 2:2":
        fleet.tick()
    assert fleet.upgrade(back=True).ok
    fleet.tick(30)
    assert shape(fleet.plan) == "main 4:4"
    fleet.upgrade(canary=0)
    fleet.tick(30)
    assert shape(fleet.plan) == "main-r2 4:4"
    assert fleet.plan.revisions == (Revision(0), Revision(2, "new"))
    assert fleet.upgrade(back=True).ok
    fleet.tick(30)
    assert (shape(fleet.plan), fleet.plan.target) == ("main 4:4", 0)


def test_orders_are_idempotent_and_dry_runs_change_nothing() -> None:
    fleet = Fleet(plan_of(("main", 3, 3)))
    assert fleet.upgrade(dry_run=True).text.startswith("would do: revision 1 (new) begins with main-r1")
    assert fleet.shapes() == ["main 3:3"]
    fleet.upgrade(trial_s=5.0)
    assert fleet.upgrade(trial_s=5.0).text == "revision 1 is under way already"
    assert not fleet.upgrade(model="other").ok
    fleet.tick(60)
    assert fleet.upgrade().text == "revision 1 runs already"
    assert not fleet.order(UpgradeOrder("chat")).ok
    assert fleet.upgrade(model="", options={"dtype": "bfloat16"}).ok
    fleet.tick(90)
    assert fleet.plan.revisions[-1] == Revision(2, "new", {"dtype": "bfloat16"})


def test_going_back_needs_something_to_go_back_to() -> None:
    answer = Fleet(plan_of(("main", 3, 3))).upgrade(back=True)
    assert (answer.ok, answer.text) == (False, "there is no revision before 0 to go back to")


def test_few_revisions_are_remembered() -> None:
    fleet = Fleet(plan_of(("main", 2, 2)))
    for number in range(12):
        assert fleet.upgrade(model=f"m{number}", canary=0).ok
        fleet.tick(20)
    assert [one.number for one in fleet.plan.revisions] == [5, 6, 7, 8, 9, 10, 11, 12]


START = plan_of(("main", 3, 6), ("big", 2, 2), ("main-2", 1, 2))


@pytest.mark.parametrize("bad", [False, True])
@pytest.mark.parametrize("at", [0, 1, 2, 5, 9, 13, 18, 24])
def test_a_new_leader_at_any_moment_brings_it_to_the_same_end(bad: bool, at: int) -> None:  # noqa: FBT001
    rules = SteeringRules("chat", named=frozenset({"big"}), upgrade=UpgradeRules(settle_s=20.0))
    spare = (0, 2, 9)[at % 3]
    fleet = Fleet(START, rules, spare, failing={1: 0.5} if bad else {})
    fleet.upgrade(trial_s=12.0)
    fleet.tick(at)
    fleet.new_leader()
    fleet.tick(80)
    end = "main 3:6, big 2:2, main-2 1:2" if bad else "main-r1 3:6, big-r1 2:2, main-2-r1 1:2"
    assert shape(fleet.plan) == end
    assert fleet.spare == spare
    assert fleet.plan.target == (0 if bad else 1)
    for plan in fleet.plans:
        _keeps_serving(plan, spare)


def _keeps_serving(plan: Plan, spare: int) -> None:
    """No role of the scenario disappears, no group is lopsided to nothing, and the size stays within what there is."""
    assert all(group.prefill > 0 and group.decode > 0 for group in plan.groups)
    assert START.size <= plan.size <= START.size + min(spare, 2)
    assert len({group.name for group in plan.groups}) == len(plan.groups)
