"""What comes first, what waits for what, and what an operator is told."""

from dataclasses import replace

import pytest

from shared.messages import ExplainOrder, ScaleOrder
from shared.policy.steering import RatioRules, ScaleRules, Steering, SteeringRules
from tests.unit.policy.steering.fleet import UNIX, Fleet, plan_of, shape
from tests.unit.policy.steering.loop import Loop
from tests.unit.policy.steering.model import Group, lognormal


def test_an_order_before_the_first_tick_is_asked_again() -> None:
    answer = Steering(SteeringRules("chat")).order(ScaleOrder("chat", groups=2), 0.0, UNIX)
    assert (answer.ok, answer.text) == (False, "the monitor has just taken the lead; ask again in a moment")


@pytest.mark.parametrize(
    ("scale", "word"),
    [
        (ScaleRules(timetable=("0 8 * * mon = x",)), '"0 8 \\* \\* mon = x": "x" is no number'),
        (ScaleRules(timezone="Nowhere/Else"), '"Nowhere/Else" is no time zone'),
    ],
)
def test_a_time_table_that_cannot_be_read_is_refused_at_once(scale: ScaleRules, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Steering(SteeringRules("chat", scale=scale))


def test_explain_says_what_is_measured_and_why_nothing_is_done() -> None:
    group = Group(4, 4, lognormal(0.35, 185.0))
    group.outstanding = 80
    loop = Loop(group)
    loop.run(60.0)
    text = loop.steering.order(ExplainOrder("chat"), group.now, UNIX).text
    first, head, why = text.splitlines()
    assert first.startswith("chat: ")
    assert "nothing asks for more groups or for fewer" in first
    assert head.startswith("main 4:4: T_p ")
    assert "n_p*b_p/T_p" in head
    assert why.endswith(": stays")
    assert "4:4 gives" in why
    assert loop.steering.reasons == ("nothing asks for more groups or for fewer", f"main: {why.strip()}")


def test_what_is_explained_before_anything_was_measured_is_said_so() -> None:
    fleet = Fleet(plan_of(("main", 1, 1)), per_tick=0)
    assert "main 1:1: nothing measured yet" in fleet.steering.explain(fleet.now)


def test_no_ratio_is_changed_while_members_are_on_their_way_nor_just_after_an_order() -> None:
    group = Group(2, 6, lognormal(0.58, 28.0))
    group.outstanding = 80
    loop = Loop(group, SteeringRules("chat", ratio=RatioRules(hold_s=5.0)))
    loop.run(10.0)
    for second in range(100):
        group.run(1.0)
        for message in group.messages():
            loop.steering.see(message, group.now)
        decision = loop.steering.tick(group.now, UNIX, loop.plan, settled=False, spare=0)
        assert decision.plan is None, second
    assert "members are on their way" in loop.steering.explain(group.now)
    assert loop.steering.order(ScaleOrder("chat", prefill=3, decode=5), group.now, UNIX).ok
    loop.run(50.0)
    assert loop.ratios == [(2, 6), (3, 5)]
    loop.run(60.0)
    assert loop.ratios[:3] == [(2, 6), (3, 5), (4, 4)]


def test_an_upgrade_comes_before_the_clock_and_the_clock_follows_it() -> None:
    rules = SteeringRules("chat", scale=ScaleRules(least=2))
    fleet = Fleet(plan_of(("main", 2, 2)), rules, spare=0)
    fleet.upgrade(trial_s=20.0)
    fleet.spare = 4
    fleet.tick(10)
    assert shape(fleet.plan) == "main 1:1, main-r1 1:1 10%"
    fleet.tick(60)
    assert shape(fleet.plan) == "main-r1 2:2, main-2-r1 2:2"
    assert {group.revision for group in fleet.plan.groups} == {1}


def test_an_order_that_the_groups_have_overtaken_is_dropped_and_said_so() -> None:
    fleet = Fleet(plan_of(("main", 2, 2)))
    assert fleet.steering.order(ScaleOrder("chat", prefill=3), fleet.now, UNIX).ok
    fleet.plan = replace(fleet.plan, groups=plan_of(("main", 4, 4)).groups)
    fleet.tick()
    assert shape(fleet.plan) == "main 4:4"
    assert "was dropped" in fleet.reasons[-1].text
