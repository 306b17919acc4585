"""What a worker counts of its work: sums over time, correct however requests overlap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.messages import Work
from shared.worker.work import Level, Stint, WorkMeter

SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda two: tuple(sorted(two))), max_size=8)


def test_a_prompt_counts_in_its_slot_until_it_is_computed_and_then_as_waiting() -> None:
    meter = WorkMeter()
    stint = Stint(meter)
    stint.begin(10.0)
    assert meter.read(10.5) == Work(slot_us=500_000, busy_us=500_000)
    stint.computed(11.0)
    stint.end(11.25, passed=True)
    assert meter.read(20.0) == Work(passed=1, slot_us=1_000_000, busy_us=1_000_000, wait_us=250_000)


def test_each_step_of_a_prompt_counts_once_however_often_it_is_said() -> None:
    meter = WorkMeter()
    stint = Stint(meter)
    stint.begin(0.0)
    stint.begin(0.5)
    stint.computed(1.0)
    stint.computed(2.0)
    stint.end(3.0, passed=True)
    stint.end(4.0, passed=False)
    stint.computed(5.0)
    stint.begin(6.0)
    assert meter.read(9.0) == Work(passed=1, slot_us=1_000_000, busy_us=1_000_000, wait_us=2_000_000)


def test_a_prompt_that_failed_has_not_passed_but_its_time_counts() -> None:
    meter = WorkMeter()
    stint = Stint(meter)
    stint.begin(0.0)
    stint.end(2.0, passed=False)
    assert meter.read(5.0) == Work(slot_us=2_000_000, busy_us=2_000_000)


def test_time_is_not_counted_twice_where_requests_overlap() -> None:
    level = Level()
    level.add(1, 0.0)
    level.add(1, 1.0)
    level.add(-1, 2.0)
    level.add(-1, 4.0)
    level.add(1, 10.0)
    assert level.read(11.0) == (6_000_000, 5_000_000)
    assert level.read(9.0) == (5_000_000, 4_000_000)  # a clock that goes back takes nothing away


@given(SPANS)
def test_sums_are_those_of_the_spans(spans: list[tuple[int, int]]) -> None:
    level = Level()
    changes = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans], key=lambda one: one[0])
    for at, change in changes:
        level.add(change, float(at))
    occupied = {second for start, end in spans for second in range(start, end)}
    together = sum(end - start for start, end in spans)
    assert level.read(100.0) == (together * 1_000_000, len(occupied) * 1_000_000)
    assert level.count == 0


@pytest.mark.parametrize("moments", [1, 7])
def test_reading_changes_nothing(moments: int) -> None:
    meter = WorkMeter()
    meter.slots.add(2, 0.0)
    for moment in range(moments):
        meter.read(float(moment))
    assert meter.read(8.0) == Work(slot_us=16_000_000, busy_us=8_000_000)
