"""Buckets: whole numbers, nothing taken by a refusal, never more let through than the limit allows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.policy.limits import (
    MINUTE,
    MOST_PER_MINUTE,
    Account,
    Levels,
    Limit,
    Limits,
    Need,
    Shortage,
    drained,
    remaining,
    rescaled,
    reset_us,
    shortage,
)


def test_a_full_bucket_of_the_largest_limit_is_a_whole_number_for_lua() -> None:
    assert MOST_PER_MINUTE * MINUTE < 2**53


def test_a_level_drains_by_the_limit_and_never_below_nothing() -> None:
    assert drained(10 * MINUTE, 60, 1_000_000) == 9 * MINUTE
    assert drained(10 * MINUTE, 60, 3_600_000_000) == 0
    assert drained(5, 60, -1_000_000) == 5  # a clock that was set back gives nothing away


def test_what_is_left_is_rounded_down_and_the_time_until_all_is_back_is_rounded_up() -> None:
    assert remaining(MINUTE + 1, 10) == 8
    assert remaining(11 * MINUTE, 10) == 0
    assert reset_us(MINUTE, 60) == 1_000_000
    assert reset_us(MINUTE + 1, 60) == 1_000_001


def test_the_worst_shortage_is_told() -> None:
    limits = Limits(requests=60, tokens=6000, streams=2)
    assert shortage(limits, Levels(), Need(6000, 2)) is None
    full = Levels(60 * MINUTE, 6000 * MINUTE, 2)
    assert shortage(limits, full, Need(600)) == Shortage(Limit.TOKENS, 6_000_000)
    assert shortage(limits, full, Need(10)) == Shortage(Limit.REQUESTS, 1_000_000)
    assert shortage(limits, Levels(streams=1), Need(1, 2)) == Shortage(Limit.STREAMS, 0)


@pytest.mark.parametrize(("need", "limit"), [(Need(6001), Limit.TOKENS), (Need(1, 3), Limit.STREAMS)])
def test_what_is_larger_than_the_limit_never_fits(need: Need, limit: Limit) -> None:
    assert shortage(Limits(tokens=6000, streams=2), Levels(), need) == Shortage(limit, 0, never=True)


def test_no_limit_lets_everything_through() -> None:
    assert not Limits()
    assert shortage(Limits(), Levels(10**20, 10**20, 10**6), Need(10**9, 128)) is None


def test_what_takes_nothing_of_a_limit_is_not_held_by_it() -> None:
    limits = Limits(requests=60, tokens=6000, streams=2)
    over = Levels(59 * MINUTE, 7000 * MINUTE, 5)  # beyond two of its limits, after a reload or a long answer
    assert shortage(limits, over, Need(0, 0)) is None
    assert shortage(limits, Levels(60 * MINUTE), Need(0, 0)) == Shortage(Limit.REQUESTS, 1_000_000)


@pytest.mark.parametrize(("before", "after"), [(1_000_000, 10), (10, 1_000_000), (7, 3)])
def test_a_bucket_whose_limit_is_changed_is_as_full_as_before(before: int, after: int) -> None:
    account = Account()
    assert account.admit(Limits(tokens=before), Need(before), 0, 0)[0]
    _, levels = account.admit(Limits(tokens=after), Need(after), 0, 0)
    assert levels.tokens == after * MINUTE
    assert account.admit(Limits(tokens=after), Need(after), 0, 60_000_000)[0]


def test_what_was_used_beyond_a_limit_stays_that_much_when_it_is_changed() -> None:
    assert rescaled(160 * MINUTE, 60, 600) == 700 * MINUTE
    assert rescaled(700 * MINUTE, 600, 60) == 160 * MINUTE
    assert rescaled(5, 3, 7) == 12  # rounded up


@given(was=st.integers(1, MOST_PER_MINUTE), limit=st.integers(1, MOST_PER_MINUTE), level=st.integers(0, 2**53))
def test_a_limit_that_is_changed_and_changed_back_gives_nothing_away(was: int, limit: int, level: int) -> None:
    assert level <= rescaled(rescaled(level, was, limit), limit, was) <= level + -(-was // limit)


def test_a_limit_that_was_not_there_before_begins_with_what_is_known() -> None:
    account = Account(Levels(tokens=5 * MINUTE))
    assert account.admit(Limits(tokens=10), Need(5), 0, 0) == (True, Levels(0, 10 * MINUTE, 1))


STEPS = st.lists(
    st.tuples(st.integers(0, 30_000_000), st.integers(1, 400), st.integers(0, 400)), min_size=1, max_size=60
)


@given(rate=st.integers(1, 100), per_minute=st.integers(1, 600), steps=STEPS)
def test_never_more_is_used_than_a_bucket_full_and_what_drained_since(
    rate: int, per_minute: int, steps: list[tuple[int, int, int]]
) -> None:
    limits, account, now = Limits(requests=rate, tokens=per_minute), Account(), 0
    admitted = used = 0
    for wait_us, asked, spent in steps:
        now += wait_us
        fits, levels = account.admit(limits, Need(asked), 0, now)
        if fits:
            admitted += 1
            used += min(spent, asked)
            account.settle(limits, asked - min(spent, asked), now)
        else:
            assert shortage(limits, levels, Need(asked)) is not None
        assert admitted * MINUTE <= rate * MINUTE + rate * now
        assert used * MINUTE <= per_minute * MINUTE + per_minute * now


@given(
    rate=st.integers(1, 1000),
    asked=st.lists(st.integers(1, 50), min_size=1, max_size=40),
)
def test_a_refusal_takes_nothing_and_its_wait_is_exact(rate: int, asked: list[int]) -> None:
    limits, account = Limits(tokens=rate), Account()
    for tokens in asked:
        before = account.admit(limits, Need(0, 0), 0, 0)[1]
        fits, levels = account.admit(limits, Need(tokens), 0, 0)
        if fits:
            continue
        assert levels == before
        short = shortage(limits, levels, Need(tokens))
        assert short is not None
        if not short.never:
            early = Account(levels)
            assert not early.admit(limits, Need(tokens), 0, short.wait_us - 1)[0]
            late = Account(levels)
            assert late.admit(limits, Need(tokens), 0, short.wait_us)[0]
