"""Groups by the hour: as many as the busiest minutes of each hour need, as lines of a scenario's time table."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from simulator.planner.demand import share_of
from simulator.planner.search import Fleet, Search

STEPS: Final = 5
"""Of the search for what one group can carry: to a thirtieth."""
MOST: Final = 64.0
"""Times its part of the plan that a group is tried with."""


@dataclass(frozen=True, slots=True)
class Tide:
    """How many groups at each hour of the traffic, and what they cost beside a fleet that never changes."""

    groups: tuple[int, ...]
    carries: float  # requests per second of one group
    share_of_hours: float  # group-hours, of those of a fixed fleet

    @property
    def lines(self) -> tuple[str, ...]:
        """Of [scenario.<name>.scale] timetable, for a traffic that begins at midnight; where the number changes."""
        day = self.groups[:24]
        return tuple(
            f"0 {hour} * * * = {groups}"
            for hour, groups in enumerate(day)
            if not hour or groups != day[hour - 1] or hour == len(day)
        )


def tide(search: Search, fleet: Fleet, *, least: int = 1) -> Tide | None:
    """Plan the hours; None where the traffic is too short for that."""
    hours = search.demand.by_hour()
    if not hours:
        return None
    carries = _carries(search, fleet)
    groups = tuple(max(least, ceil(rate / carries)) for rate in hours)
    return Tide(groups, carries, _share(groups))


def _share(groups: Sequence[int]) -> float:
    return sum(groups) / (len(groups) * max(groups))


def _carries(search: Search, fleet: Fleet) -> float:
    """Requests per second that one group serves within its objectives."""
    part = search.part(fleet.groups)
    span = max(one.at for one in part)
    low, high = 1.0, 2.0  # times what it has in the plan

    def serves(times: float) -> bool:
        found = search.trial(fleet.group, share_of(part, times, search.seed), fleet.batch)
        return found.share >= search.aims.share

    while high < MOST and serves(high):
        low, high = high, 2 * high
    for _ in range(STEPS):
        middle = (low + high) / 2
        if serves(middle):
            low = middle
        else:
            high = middle
    return low * len(part) / span
