"""One buffer's search for a decode: whom a prefill asks next. Pure; the service and the simulator ask.

Owns the order and the rounds: best first, each once a round, those whose push was refused behind the others. A decode
that is believed to be full may have room all the same, since its status can be late; but only a few of them are asked
in a round, so that a round costs what it asks, not the size of the group.
"""

from collections.abc import Collection
from typing import Final

from shared.messages import Role
from shared.policy.placement import FleetView
from shared.policy.pool import Tier

AGAIN_S: Final = 0.25
"""When nobody has room, ask again after so long even without news: a status may be lost."""
FULL_ASKED: Final = 8
"""Decodes believed to be full or absent that are asked in one round."""


class Asking:
    """One buffer's. `last`: decodes to be asked after the others."""

    def __init__(self, view: FleetView, scenario: str, group: str, last: Collection[str] = ()) -> None:
        self._view = view
        self._scenario = scenario
        self._group = group
        self._behind: dict[str, int] = dict.fromkeys(last, 1)  # refusals, in the order of the first
        self._asked: set[str] = set()  # in this round
        self._full = 0  # of them

    def next(self, now: float) -> str | None:
        """Name the best one not asked in this round; None: wait for news or AGAIN_S, then `again`."""
        view, asked = self._view, self._asked
        if self._full < FULL_ASKED:
            exclude = asked | self._behind.keys() if self._behind else asked  # few, both of them
            first = view.next(self._scenario, Role.DECODE, now, self._group, exclude)
            if first is not None:
                self._full += first.tier is not Tier.FREE
                asked.add(first.instance)
                return first.instance
        for name in sorted(self._behind, key=lambda one: self._behind[one]):
            if name not in asked and view.candidates.standing(self._scenario, Role.DECODE, name, self._group):
                asked.add(name)
                return name
        return None

    def again(self) -> None:
        """Begin a new round."""
        self._asked.clear()
        self._full = 0

    def refused(self, decode: str) -> None:
        """Note that a push to it was refused: it comes after the others from now on."""
        self._behind[decode] = self._behind.get(decode, 0) + 1
