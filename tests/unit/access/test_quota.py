"""What clients hear of limits: headers, durations, refusals and their statuses."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.gateway.access.quota import duration, rate_headers, refusal
from services.gateway.refusals import answer, as_map, headers
from shared.errors import Code, LimitReached, LinkLost, NeverFits
from shared.policy.limits import MINUTE, Levels, Limit, Limits, Need, Shortage, shortage


@pytest.mark.parametrize(
    ("us", "shown"),
    [
        (0, "0s"),
        (1, "1ms"),
        (20_000, "20ms"),
        (999_000, "999ms"),
        (999_001, "1s"),
        (1_000_000, "1s"),
        (1_000_001, "2s"),
        (59_999_999, "1m0s"),
        (360_000_000, "6m0s"),
        (3_725_000_000, "1h2m5s"),
    ],
)
def test_times_are_written_as_openai_writes_them(us: int, shown: str) -> None:
    assert duration(us) == shown


def test_only_limits_that_there_are_have_headers() -> None:
    assert rate_headers(Limits(streams=5), Levels(streams=2)) == {}
    assert rate_headers(Limits(tokens=100), Levels(tokens=30 * MINUTE)) == {
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "70",
        "x-ratelimit-reset-tokens": "18s",
    }


def refused(limits: Limits, levels: Levels, need: Need) -> LimitReached:
    short = shortage(limits, levels, need)
    assert short is not None
    return refusal("acme", limits, levels, need, short)


def test_a_rate_that_is_used_up_says_when_to_come_back() -> None:
    error = refused(Limits(requests=3), Levels(requests=3 * MINUTE), Need(1))
    assert (answer(error).status, error.code) == (429, Code.RATE_LIMITED)
    said = headers(error)
    assert (said["retry-after"], said["x-baton-reason"]) == ("20", "rate_limit_exceeded")
    assert said["x-ratelimit-remaining-requests"] == "0"
    assert "x-should-retry" not in said
    assert str(error).endswith("Try again in 20s.")
    assert as_map(error)["error"]["retry_after_s"] == 20


def test_what_can_never_fit_is_not_to_be_repeated() -> None:
    error = refused(Limits(tokens=100), Levels(), Need(500))
    assert isinstance(error, NeverFits)
    assert (answer(error).status, answer(error).type, answer(error).code) == (429, *["insufficient_quota"] * 2)
    assert headers(error)["x-should-retry"] == "false"
    assert headers(error)["retry-after"] == "59"
    assert as_map(error)["error"]["retryable"] is False
    assert "retry_after_s" not in as_map(error)["error"]


def test_the_messages_tell_the_limits_apart() -> None:
    said = [
        str(refused(Limits(requests=1), Levels(requests=MINUTE), Need(1))),
        str(refused(Limits(tokens=1), Levels(tokens=MINUTE), Need(1))),
        str(refused(Limits(streams=1), Levels(streams=1), Need(1))),
    ]
    assert [next(word for word in ("requests", "tokens", "concurrent") if f"on {word}" in one) for one in said] == [
        "requests",
        "tokens",
        "concurrent",
    ]


@given(wait_us=st.integers(1, 10**10))
@example(wait_us=1001)
def test_the_message_rounds_a_wait_up_like_the_headers(wait_us: int) -> None:
    error = refusal("acme", Limits(requests=1), Levels(), Need(1), Shortage(Limit.REQUESTS, wait_us))
    assert str(error).endswith(f"Try again in {duration(wait_us)}.")


def test_keys_that_cannot_be_checked_are_a_503_that_may_be_repeated() -> None:
    error = LinkLost("Redis does not answer")
    assert answer(error).status == 503
    assert headers(error)["retry-after"] == "1"
