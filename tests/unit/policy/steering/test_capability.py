"""What is believed of a worker that is not full: unbiased where the load moves, on the safe side where it does not."""

import random

import pytest

from shared.policy.steering.capability import Line, PromptTime, StepTime


@pytest.mark.parametrize(("a", "c"), [(0.020, 0.0003), (0.020, 0.0), (0.0, 0.002), (0.010, 0.001)])
def test_the_step_of_a_full_batch_is_known_from_smaller_ones(a: float, c: float) -> None:
    source, step = random.Random(1), StepTime()  # noqa: S311
    for now in range(100):
        batch = max(1.0, source.gauss(10.0, 3.0))
        step.add(batch, (a + c * batch) * source.gauss(1.0, 0.02), 64.0, float(now))
    true = (a + c * 64.0) / (a + c * 10.0)
    assert step.grows(10.0, 64.0) == pytest.approx(true, rel=0.15)


def test_without_spread_a_step_is_believed_to_stay_and_a_prefill_to_do_no_more() -> None:
    step, prompt = StepTime(), PromptTime()
    for now in range(20):
        step.add(10.0, 0.025, 64.0, float(now))
        prompt.add(2.0, 0.001, 100.0, float(now))
    assert step.grows(10.0, 64.0) == 1.0
    assert prompt.gain(2.0, 8.0) == 1.0


def test_a_prefill_that_batches_is_seen_to_do_more_with_more() -> None:
    prompt = PromptTime()
    for now in range(60):
        slots = 1.0 + now % 4
        prompt.add(slots, 0.001 / slots, 100.0, float(now))  # each takes as long, however many there are
    assert prompt.gain(2.0, 8.0) == pytest.approx(4.0, rel=0.1)
    assert PromptTime().gain(1.0, 8.0) == 1.0


def test_a_work_conserving_prefill_is_not_thought_to_batch() -> None:
    source, prompt = random.Random(2), PromptTime()  # noqa: S311
    for now in range(200):
        prompt.add(1.0 + now % 4, 0.001 * source.gauss(1.0, 0.1), 100.0, float(now))
    assert prompt.gain(1.0, 8.0) < 1.15


def test_what_is_extrapolated_never_leaves_what_is_possible() -> None:
    step, prompt = StepTime(), PromptTime()
    for now, number in enumerate((1.0, 2.0, 3.0)):
        step.add(number, number**3, 1.0, float(now))
        prompt.add(number, number**-3, 1.0, float(now))
    assert step.grows(2.0, 8.0) == 4.0  # a full batch does no less than a smaller one
    assert prompt.gain(2.0, 8.0) == 4.0  # and a prompt takes no less time in company
    assert step.grows(8.0, 2.0) == prompt.gain(8.0, 2.0) == 1.0


def test_a_line_forgets_slowly() -> None:
    line = Line()
    for now in range(50):
        line.add(1.0 + now % 2, 1.0 + now % 2, 1.0, float(now))
    assert line.slope == pytest.approx(1.0, rel=0.05)
    for now in range(2000, 2050):
        line.add(1.0 + now % 2, 5.0, 1.0, float(now))
    assert line.slope == pytest.approx(0.0, abs=0.01)
