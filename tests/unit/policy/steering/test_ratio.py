"""One verdict at a time: what a step must promise, for how long, and what stands against it."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.messages import Role
from shared.policy.steering import GroupFigures, RatioRules
from shared.policy.steering.ratio import Can, Ratio, RatioControl, Verdict, least_of

RULES = RatioRules(window_s=10.0, gain=0.1, hold_s=5.0, rest_s=20.0, busy=0.5)
ALONE = Ratio(0, 0)


def figures(c_p: float, c_d: float, **changes: float) -> GroupFigures:
    known = GroupFigures("main", 2, 2, c_p=c_p, c_d=c_d, use_p=0.95, use_d=0.6, passed=10_000, steady=True, span_s=10.0)
    return replace(known, **changes)


def decide(control: RatioControl, seen: GroupFigures, ratio: Ratio, now: float) -> Verdict:
    return control.decide(seen, ratio, least_of(ratio, ALONE, RULES.least), now)


def test_it_says_what_it_compares() -> None:
    verdict = decide(RatioControl(RULES), figures(3.1, 5.2), Ratio(3, 3), 0.0)
    assert (
        verdict.text
        == "a prefill can do 3.1/s, a decode 5.2/s; 3:3 gives 9.3, 4:2 gives 10.4 (+12%), promised for 0 of 5 s"
    )
    assert verdict == Verdict(verdict.text, Role.PREFILL)


def test_a_step_waits_for_its_hold_and_then_for_the_rest_after_the_last() -> None:
    control, seen = RatioControl(RULES), figures(1.0, 9.0)
    assert not decide(control, seen, Ratio(2, 6), 0.0).due
    assert not decide(control, seen, Ratio(2, 6), 4.9).due
    assert decide(control, seen, Ratio(2, 6), 5.0).due
    control.stepped(Role.PREFILL, 5.0)
    assert not decide(control, seen, Ratio(3, 5), 5.5).due
    verdict = decide(control, seen, Ratio(3, 5), 15.0)
    assert not verdict.due
    assert verdict.text.endswith("10 s of rest are left since the last change")
    assert decide(control, seen, Ratio(3, 5), 25.0).due


def test_what_was_promised_before_members_moved_does_not_count() -> None:
    control, seen = RatioControl(RULES), figures(1.0, 9.0)
    decide(control, seen, Ratio(2, 6), 0.0)
    control.unsettled()
    assert not decide(control, seen, Ratio(2, 6), 6.0).due
    assert decide(control, seen, Ratio(2, 6), 11.0).due


def test_half_the_gain_must_be_promised_for_four_windows() -> None:
    control, seen = RatioControl(RULES), figures(1.0, 10.7 / 7)  # 10:8 gives 10, 11:7 gives 10.7
    assert not decide(control, seen, Ratio(10, 8), 0.0).due
    assert not decide(control, seen, Ratio(10, 8), 39.0).due
    assert decide(control, seen, Ratio(10, 8), 40.0).due


def test_a_step_is_taken_back_only_for_twice_the_gain() -> None:
    control = RatioControl(RULES)
    control.stepped(Role.PREFILL, 0.0)
    slight = figures(9.0, 11.0, use_p=0.6, use_d=0.95)  # 12:8 to 11:9 is 12.5 %
    verdicts = [decide(control, slight, Ratio(12, 8), float(now)) for now in range(50, 60)]
    assert not any(verdict.due for verdict in verdicts)
    assert any(decide(control, slight, Ratio(12, 8), float(now)).due for now in range(200, 206))


@pytest.mark.parametrize(
    ("seen", "word"),
    [
        (figures(1.0, 9.0, passed=3), "too few to tell"),
        (figures(0.0, 9.0), "too few to tell"),
        (figures(1.0, 9.0, use_p=0.4, use_d=0.1), "only 40% of the prefills is in use"),
        (figures(1.0, 9.0, steady=False), "until as many requests come out"),
    ],
)
def test_without_evidence_nothing_is_done(seen: GroupFigures, word: str) -> None:
    control = RatioControl(RULES)
    decide(control, seen, Ratio(3, 3), 0.0)
    verdict = decide(control, seen, Ratio(3, 3), 100.0)
    assert (verdict.more, verdict.due) == (None, False)
    assert word in verdict.text


def test_a_second_witness_that_says_otherwise_doubles_the_hold() -> None:
    control, calm = RatioControl(RULES), figures(1.0, 9.0, e2e=2.0, share=0.5)
    decide(control, calm, Ratio(2, 6), 0.0)
    contrary = figures(1.0, 9.0, e2e=4.0, share=0.1)
    verdict = decide(control, contrary, Ratio(2, 6), 5.0)
    assert not verdict.due
    assert "though T_p/E2E says otherwise" in verdict.text
    assert decide(control, contrary, Ratio(2, 6), 10.0).due


def test_two_of_a_role_stay_where_the_scenario_has_no_others() -> None:
    assert least_of(Ratio(2, 2), ALONE, 2) == Ratio(2, 2)
    assert least_of(Ratio(2, 1), ALONE, 2) == Ratio(1, 1)  # three have no fourth to give
    assert least_of(Ratio(3, 3), Ratio(1, 4), 2) == Ratio(1, 1)
    verdict = decide(RatioControl(RULES), figures(1.0, 9.0), Ratio(2, 2), 0.0)
    assert verdict.text.endswith("3:1 gives 3: stays, because 2 decode is the least")


def test_a_large_group_takes_larger_steps_and_is_judged_by_where_they_lead() -> None:
    control, seen = RatioControl(RULES), figures(1.0, 1.0)
    decide(control, seen, Ratio(40, 88), 0.0)
    verdict = decide(control, seen, Ratio(40, 88), 5.0)
    assert (verdict.due, verdict.to) == (True, Ratio(48, 80))
    assert verdict.text.endswith("64:64 gives 64 (+60%), promised for 5 s: 8 decodes become prefills")


CAN = st.floats(0.01, 100.0)


@settings(max_examples=40)
@given(can=st.builds(Can, CAN, CAN), start=st.builds(Ratio, st.integers(1, 40), st.integers(1, 40)))
def test_steps_only_ever_raise_the_throughput_and_end_near_the_best(can: Can, start: Ratio) -> None:
    control, ratio, seen, now = RatioControl(RULES), start, figures(*can), 0.0
    least = least_of(start, ALONE, RULES.least)
    for _ in range(60):
        verdicts = [decide(control, seen, ratio, now + 5.0 * one) for one in range(13)]
        now += 65.0
        due = [verdict for verdict in verdicts if verdict.due]
        if not due:
            break
        assert due[0].to is not None
        assert can.at(due[0].to) > can.at(ratio)
        assert min(due[0].to) >= min(*ratio, *least)
        ratio = due[0].to
        control.stepped(due[0].more, now)
    else:
        raise AssertionError("it never ends")
    sizes = range(least.prefill, sum(start) - least.decode + 1)
    most = max((can.at(Ratio(one, sum(start) - one)) for one in sizes), default=0.0)
    assert most <= can.at(ratio) * 1.05 * (1 + 1e-9)
