"""What groups are called: `main`, `main-2`, ... or a configured name; `-canary` for one beside it; `-r3` its revision.

A group is upgraded by one of the same base with another revision, so both can be there at a time. The group's own
settings are those of its base.
"""

import re
from collections.abc import Collection
from typing import Final, NamedTuple

from shared.policy.steering.rules import MAIN

CANARY: Final = "-canary"
_REVISED: Final = re.compile(r"(?P<base>.+?)(?P<canary>-canary)?-r\d+")
_NUMBERED: Final = re.compile(MAIN + r"(?:-(?P<number>[1-9]\d{0,6}))?")


class Parts(NamedTuple):
    """A group's name, taken apart."""

    base: str
    canary: bool = False


def parts(name: str, named: Collection[str] = ()) -> Parts:
    """Take a name apart; one that the configuration gives means nothing but itself."""
    found = None if name in named else _REVISED.fullmatch(name)
    return Parts(name) if found is None else Parts(found["base"], found["canary"] is not None)


def group_name(base: str, revision: int, *, canary: bool = False) -> str:
    """Name the group of that base at that revision; a canary's name always says the revision."""
    if canary:
        return f"{base}{CANARY}-r{revision}"
    return base if revision == 0 else f"{base}-r{revision}"


def ordinal(base: str) -> int | None:
    """Number of a group that scaling may add or take: 1 for `main`; None for any other name."""
    found = _NUMBERED.fullmatch(base)
    if found is None:
        return None
    number = int(found["number"] or 1)
    return number if number > 1 or found["number"] is None else None


def base_name(number: int) -> str:
    """Name the base of that number."""
    return MAIN if number == 1 else f"{MAIN}-{number}"
