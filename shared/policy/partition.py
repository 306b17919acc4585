"""A scenario's open groups by what sets them apart: canaries, strategies, revisions of the model. Pure."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from shared.messages import Group, GroupPhase

PERCENT: Final = 100
Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Partition:
    """Groups by name, in the order of their names."""

    canaries: tuple[tuple[str, int], ...]  # with the percent of the requests that they get
    ordinary: Names
    strategies: dict[str, Names]  # of the ordinary ones
    revisions: dict[int, Names]

    @classmethod
    def of(cls, groups: Mapping[str, Group]) -> "Partition | None":
        """Part the groups of a map; None where all are alike, so that nothing need be asked of any of them."""
        opened = sorted(
            (group for group in groups.values() if group.phase is GroupPhase.OPEN), key=lambda one: one.name
        )
        strategies: defaultdict[str, Names] = defaultdict(tuple)
        revisions: defaultdict[int, Names] = defaultdict(tuple)
        for group in opened:
            revisions[group.revision] += (group.name,)
            if not group.canary:
                strategies[group.strategy] += (group.name,)
        canaries = tuple((group.name, group.canary) for group in opened if group.canary)
        if not canaries and len(strategies) <= 1 and len(revisions) <= 1:
            return None
        ordinary = tuple(group.name for group in opened if not group.canary)
        return cls(canaries, ordinary, dict(strategies), dict(revisions))

    def drawn(self, request_id: str) -> str:
        """Name the canary group that a request's lot falls on; empty where it is none of them.

        The lot is the client request's: all its choices and all its attempts have the same one.
        """
        if not self.canaries:
            return ""
        lot = crc32("-".join(request_id.split("-")[:2]).encode()) % PERCENT
        for name, percent in self.canaries:
            if lot < percent:
                return name
            lot -= percent
        return ""
