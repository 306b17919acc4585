"""Finds the cheapest fleet: by the equation where to begin, by trials where it really is.

A fleet is some groups alike, each with its part of the traffic, so one group under its part is tried. A group is at
most so large; within it the ratio is searched: what misses gets one more of the role whose objective is missed, what
meets gives one back as long as it still does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from simulator.engine.profile import Profile
from simulator.planner.aims import Aims
from simulator.planner.demand import Demand, share_of
from simulator.planner.trial import Cache, Capability, Found, Group, capability, tried
from simulator.workload.arrival import Arrival

LARGEST: Final = 12
"""Instances of one group."""
TRIALS: Final = 24
"""Of one profile."""
MOST_REQUESTS: Final = 6000
"""Of one trial: a longer span is cut."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """So many groups alike, and what was found of one of them."""

    group: Group
    groups: int
    found: Found
    batch: int

    @property
    def price(self) -> float:
        """Of an hour."""
        return self.groups * self.group.price

    @property
    def devices(self) -> int:
        """All of them."""
        return self.groups * self.group.size * self.group.profile.devices


@dataclass
class Search:
    """One profile under one demand. `tell` hears of each trial."""

    profile: Profile
    demand: Demand
    aims: Aims
    seed: int = 0
    cache: Cache = field(default_factory=Cache)
    tell: Callable[[str], None] = lambda _: None
    trials: dict[tuple[int, int, int], Found] = field(default_factory=dict)

    def capability(self) -> Capability | None:
        """What the equation expects of one instance."""
        return capability(self.profile, self.demand.busiest(), self.aims)

    def best(self) -> Fleet | None:
        """The cheapest fleet of this profile; None where the objectives are out of its reach."""
        can = self.capability()
        if can is None:
            return None
        load = self.demand.peak
        prefill, decode = max(1, ceil(load / can.prefill)), max(1, ceil(load / can.decode))
        groups = max(1, ceil((prefill + decode) / LARGEST))
        low = Group(self.profile, max(1, ceil(prefill / groups)), max(1, ceil(decode / groups)))
        grown = self._grown(low, groups, can.batch)
        if grown is None:
            return None
        least = self._shrunk(grown, groups, can.batch)
        return Fleet(least, groups, self.found(least, groups, can.batch), can.batch)

    def part(self, groups: int) -> list[Arrival]:
        """What falls to one of so many groups in the busiest span."""
        part = share_of(self.demand.busiest(), 1.0 / groups, self.seed)
        return part[:MOST_REQUESTS]

    def found(self, group: Group, groups: int, batch: int) -> Found:
        """Try it, once."""
        key = group.prefill, group.decode, groups
        if key not in self.trials:
            self.trials[key] = found = self.trial(group, self.part(groups), batch)
            self.tell(f"{groups} x {group}: {100 * found.share:.2f} %")
        return self.trials[key]

    def trial(self, group: Group, arrivals: Sequence[Arrival], batch: int) -> Found:
        """Let a group serve these."""
        return tried(group, arrivals, self.aims, batch, self.cache)

    def _meets(self, group: Group, groups: int, batch: int) -> bool:
        return self.found(group, groups, batch).share >= self.aims.share

    def _grown(self, group: Group, groups: int, batch: int) -> Group | None:
        """Add to the role whose objective is missed more, until both are met."""
        for _ in range(TRIALS):
            if self._meets(group, groups, batch):
                return group
            found = self.found(group, groups, batch)
            more = max(1, group.size // 6) if found.share < self.aims.share - 0.1 else 1
            # a prompt that waits may wait for a slot that full decodes hold, so the time from there on tells
            held = found.figures.codes.get(None, 0) > 0 and self._held(group, groups, batch)
            if found.tpot_met < found.ttft_met or held:
                group = Group(self.profile, group.prefill, group.decode + more)
            else:
                group = Group(self.profile, group.prefill + more, group.decode)
        return None

    def _held(self, group: Group, groups: int, batch: int) -> bool:
        """Whether one more decode helps more than one more prefill."""
        decode = self.found(Group(self.profile, group.prefill, group.decode + 1), groups, batch)
        prefill = self.found(Group(self.profile, group.prefill + 1, group.decode), groups, batch)
        return decode.share > prefill.share

    def _shrunk(self, group: Group, groups: int, batch: int) -> Group:
        """Take from either role what is not needed."""
        while True:
            less = [
                Group(self.profile, group.prefill - p, group.decode - d)
                for p, d in ((1, 0), (0, 1))
                if group.prefill > p and group.decode > d
            ]
            kept = next((one for one in less if self._meets(one, groups, batch)), None)
            if kept is None:
                return group
            group = kept
