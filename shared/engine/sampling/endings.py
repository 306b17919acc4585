"""Which tokens end a text, and when they may not. Pure."""

from collections.abc import Collection

from shared.messages import Stopping


def ends_of(stopping: Stopping, eos_ids: frozenset[int]) -> frozenset[int]:
    """Tokens that end it, wherever they come."""
    return frozenset(stopping.stop_token_ids) | (frozenset() if stopping.ignore_eos else eos_ids)


def banned(ends: Collection[int], generated: int, min_tokens: int) -> tuple[int, ...]:
    """Tokens that may not come next, because only so many have been generated."""
    return () if generated >= min_tokens else tuple(ends)
