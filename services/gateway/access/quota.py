"""What a client hears of its limits: the rate-limit headers, and the refusal where one is reached. Pure."""

from typing import Final

from shared.errors import LimitReached, NeverFits
from shared.policy.limits import Levels, Limit, Limits, Need, Shortage, remaining, reset_us

STREAM_RETRY_US: Final = 1_000_000
"""Nobody knows when one of the tenant's streams will end."""
_SECOND: Final = 1_000_000


def rate_headers(limits: Limits, levels: Levels) -> dict[str, str]:
    """Make OpenAI's headers, of those limits that there are."""
    made: dict[str, str] = {}
    for name, limit, level in (
        ("requests", limits.requests, levels.requests),
        ("tokens", limits.tokens, levels.tokens),
    ):
        if limit:
            made[f"x-ratelimit-limit-{name}"] = str(limit)
            made[f"x-ratelimit-remaining-{name}"] = str(remaining(level, limit))
            made[f"x-ratelimit-reset-{name}"] = duration(reset_us(level, limit))
    return made


def duration(us: int) -> str:
    """Write a time as OpenAI does: 20ms, 1s, 6m0s, 1h0m0s. Rounded up."""
    if us <= _SECOND - 1000:
        return f"{-(-us // 1000)}ms" if us else "0s"
    minutes, seconds = divmod(-(-us // _SECOND), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def refusal(tenant: str, limits: Limits, levels: Levels, need: Need, short: Shortage) -> LimitReached:
    """Make the error that says which limit was reached and when to come back."""
    headers = rate_headers(limits, levels)
    if short.never:
        return NeverFits(_too_much(tenant, limits, need, short.limit), headers)
    wait_us = short.wait_us
    match short.limit:
        case Limit.REQUESTS:
            said = f"requests per minute: {limits.requests} are allowed, and as many were made"
        case Limit.TOKENS:
            left = remaining(levels.tokens, limits.tokens)
            said = f"tokens per minute: {limits.tokens} are allowed, {left} are left, this request needs {need.tokens}"
        case _:
            wait_us = STREAM_RETRY_US
            said = f"concurrent streams: {limits.streams} are allowed, {levels.streams} are open"
            said += f", this request needs {need.streams}" if need.streams > 1 else ""
    words = f"Rate limit reached for {tenant} on {said}. Try again in {duration(wait_us)}."
    return LimitReached(words, wait_us / _SECOND, headers)


def _too_much(tenant: str, limits: Limits, need: Need, limit: Limit) -> str:
    if limit is Limit.TOKENS:
        asked, allowed = f"{need.tokens} tokens (prompt and max_tokens)", f"{limits.tokens} per minute"
    else:
        asked, allowed = f"{need.streams} choices", f"{limits.streams} streams at a time"
    return f"This request needs {asked}, and {tenant} is allowed {allowed}: it can never be served; ask for less."
