"""When an instance must stop acting, and when it must not."""

import pytest

from shared.tenure import Tenure

TTL = 3.0


@pytest.fixture
def tenure() -> Tenure:
    tenure = Tenure(TTL)
    tenure.awake(0.0)
    assert not tenure.confirmed((100, 1), 0.0, created=True)  # the first one breaks nothing
    return tenure


def run(tenure: Tenure, start: float, end: float, *, pulses: bool) -> None:
    """Let time pass for a process that runs, with or without a monitor that pulses."""
    steps = round((end - start) * 10)
    for step in range(steps + 1):
        now = start + step / 10
        tenure.awake(now)
        if pulses:
            tenure.pulse((100, 2), now)


def test_nobody_is_cut_off_before_its_first_lease() -> None:
    tenure = Tenure(TTL)
    tenure.pulse((1, 1), 10.0)
    assert not tenure.cut_off(10.0)


def test_a_confirmed_lease_is_not_cut_off(tenure: Tenure) -> None:
    run(tenure, 0.0, 2.9, pulses=True)
    assert not tenure.cut_off(2.9)


def test_alone_without_redis_while_the_monitor_pulses_on_is_cut_off(tenure: Tenure) -> None:
    run(tenure, 0.0, 4.0, pulses=True)  # a renewal's time after the ttl
    assert tenure.cut_off(4.0)


def test_the_pulses_that_a_monitor_still_sends_when_redis_has_gone_cut_nobody_off(tenure: Tenure) -> None:
    run(tenure, 0.0, 3.9, pulses=True)  # it may have renewed just before, and holds its own lease for a ttl
    run(tenure, 3.9, 8.0, pulses=False)
    assert not tenure.cut_off(3.9)
    assert not tenure.confirmed((100, 7), 8.0, created=True)  # Redis is back: nobody had been replaced


def test_without_redis_and_without_pulse_traffic_goes_on(tenure: Tenure) -> None:
    run(tenure, 0.0, 60.0, pulses=False)
    assert not tenure.cut_off(60.0)


def test_a_pulse_from_before_the_outage_does_not_cut_off(tenure: Tenure) -> None:
    run(tenure, 0.0, 0.5, pulses=True)
    run(tenure, 0.5, 3.4, pulses=False)
    assert not tenure.cut_off(3.4)


def test_a_margin_makes_the_holder_stop_before_redis_forgets() -> None:
    tenure = Tenure(TTL, margin_s=0.3)
    tenure.confirmed((100, 1), 0.0, created=True)
    run(tenure, 0.0, 4.1, pulses=True)
    assert tenure.cut_off(4.1)


def test_a_renewal_breaks_nothing(tenure: Tenure) -> None:
    run(tenure, 0.0, 1.0, pulses=True)
    assert not tenure.confirmed((100, 1), 1.0, created=False)
    run(tenure, 1.0, 3.5, pulses=True)
    assert not tenure.cut_off(3.5)


def test_a_process_that_slept_through_its_lease_has_been_replaced(tenure: Tenure) -> None:
    tenure.awake(10.0)
    assert tenure.confirmed((100, 5), 10.0, created=True)
    assert tenure.epoch == (100, 5)


def test_a_process_that_slept_but_kept_its_lease_goes_on(tenure: Tenure) -> None:
    tenure.awake(10.0)
    assert not tenure.confirmed((100, 1), 10.0, created=False)


def test_having_slept_is_forgotten_once_the_lease_is_confirmed(tenure: Tenure) -> None:
    tenure.awake(10.0)
    assert tenure.confirmed((100, 5), 10.0, created=True)
    run(tenure, 10.0, 10.5, pulses=False)
    assert not tenure.confirmed((100, 6), 10.5, created=True)  # someone deleted the key; we were awake


def test_an_answer_from_before_a_stop_does_not_hide_that_the_process_slept(tenure: Tenure) -> None:
    tenure.awake(10.0)
    assert not tenure.confirmed((100, 1), 0.5, created=False)  # executed before the stop, read after it
    assert tenure.confirmed((100, 5), 10.0, created=True)


def test_a_lease_missing_after_the_monitor_was_heard_has_been_noticed(tenure: Tenure) -> None:
    run(tenure, 0.0, 5.0, pulses=True)
    assert tenure.confirmed((100, 7), 5.0, created=True)


def test_a_lease_missing_because_redis_stood_still_breaks_nothing(tenure: Tenure) -> None:
    run(tenure, 0.0, 1.0, pulses=True)
    run(tenure, 1.0, 12.0, pulses=False)
    assert not tenure.confirmed((100, 7), 12.0, created=True)


def test_a_flush_of_redis_breaks_nothing_and_raises_the_epoch(tenure: Tenure) -> None:
    run(tenure, 0.0, 1.0, pulses=True)
    assert not tenure.confirmed((101, 1), 1.0, created=True)
    assert tenure.epoch == (101, 1)


def test_a_jump_of_redis_wall_clock_breaks_nothing(tenure: Tenure) -> None:
    run(tenure, 0.0, 1.0, pulses=True)
    assert not tenure.confirmed((100, 9), 1.0, created=True)  # expired early there, not lapsed on our clock


def test_the_pulse_of_a_replaced_monitor_is_ignored(tenure: Tenure) -> None:
    tenure.pulse((100, 9), 0.1)
    run(tenure, 0.1, 4.0, pulses=False)
    tenure.pulse((100, 8), 4.0)
    assert not tenure.cut_off(4.0)
