"""How long each step of a substitution took, from the loss to the verified pairs.

Owns the times of open holes and of those who fill them. Decides nothing.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from shared.policy.fleet.events import Cause, Place, Substituted

MOST_HOLES: Final = 1024
"""Times kept of one place's holes; the oldest are dropped."""


@dataclass(slots=True)
class _Way:
    place: Place
    cause: Cause
    began: float
    steps: dict[str, float] = field(default_factory=dict)  # the time of each, the first one counts


class Steps:
    """Holes and ways by place and instance. A way that fails gives its hole back, with the time it has been open."""

    def __init__(self) -> None:
        self._holes: dict[Place, deque[tuple[float, Cause]]] = {}
        self._ways: dict[str, _Way] = {}

    def open(self, place: Place, cause: Cause, now: float) -> None:
        """Note that a member is missing since now."""
        self._holes.setdefault(place, deque(maxlen=MOST_HOLES)).append((now, cause))

    def begin(self, instance: str, place: Place, step: str, now: float) -> None:
        """Note who is to fill the place's oldest hole. Without one there is nothing to measure."""
        self.fail(instance)
        holes = self._holes.get(place)
        if holes:
            began, cause = holes.popleft()
            self._ways[instance] = _Way(place, cause, began, {step: now})

    def mark(self, instance: str, step: str, now: float) -> None:
        """Note a step of one that is on its way."""
        if way := self._ways.get(instance):
            way.steps.setdefault(step, now)

    def fail(self, instance: str) -> None:
        """Note that it does not come."""
        if way := self._ways.pop(instance, None):
            self._holes.setdefault(way.place, deque(maxlen=MOST_HOLES)).appendleft((way.began, way.cause))

    def joined(self, instance: str, place: Place, now: float) -> Substituted | None:
        """Note that it has joined; what is to be told of its way."""
        way = self._ways.pop(instance, None)
        if way is None or way.place != place:
            return None
        steps, before = [], way.began
        for name, at in [*way.steps.items(), ("joined", now)]:
            steps.append((name, max(0.0, at - before)))
            before = max(before, at)
        return Substituted(place, instance, way.cause, tuple(steps))

    def forget(self, place: Place) -> None:
        """Nothing is missing there: whatever was came back by itself."""
        self._holes.pop(place, None)
